//! What a service may ask, in whose name, and what only it may.

use millrace::config::rate_limits::Rate;
use millrace_test_support::{TestServer, TestService};
use serde_json::json;

use super::world::{IRC, V3, World};

#[tokio::test]
async fn a_service_asks_in_the_names_of_its_users_and_of_nobody_else() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let bot = world.client(&irc);
    let who = async |query: &str| bot.get(&format!("{V3}/account/whoami{query}")).await;
    let answer = who("").await.ok();
    assert_eq!(answer["user_id"], "@irc-bot:test");
    assert!(answer.get("device_id").is_none(), "{answer}");
    who("?user_id=@alice:test").await.refused(403, "M_FORBIDDEN");
    who("?user_id=@irc_a:elsewhere").await.refused(403, "M_FORBIDDEN");
    who("?user_id=nobody").await.refused(400, "M_INVALID_PARAM");
    who("?user_id=@irc_a:test").await.refused(403, "M_FORBIDDEN");
    let body = json!({ "type": "m.login.application_service", "username": "irc_a" });
    let registered = bot.post(&format!("{V3}/register"), body.clone()).await.ok();
    assert_eq!(registered["user_id"], "@irc_a:test");
    bot.post(&format!("{V3}/register"), body).await.refused(400, "M_USER_IN_USE");
    assert_eq!(who("?user_id=@irc_a:test").await.ok()["user_id"], "@irc_a:test");
    let profile = format!("{V3}/profile/@irc_a:test/displayname");
    let named = json!({ "displayname": "A on IRC" });
    bot.put(&profile, named.clone()).await.refused(403, "M_FORBIDDEN");
    bot.put(&format!("{profile}?user_id=@irc_a:test"), named.clone()).await.ok();
    assert_eq!(world.alice.get(&profile).await.ok(), named);
}

#[tokio::test]
async fn a_service_makes_devices_and_asks_as_them_without_passwords() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let bot = world.client(&irc);
    let who = async |query: &str| bot.get(&format!("{V3}/account/whoami?{query}")).await;
    who("device_id=BRIDGE").await.refused(400, "M_UNKNOWN_DEVICE");
    let device = format!("{V3}/devices/BRIDGE");
    let created = bot.put(&device, json!({ "display_name": "the bridge" })).await;
    assert_eq!(created.status, 201);
    let renamed = bot.put(&device, json!({ "display_name": "bridge" })).await;
    assert_eq!(renamed.status, 200);
    assert_eq!(bot.get(&device).await.ok()["display_name"], "bridge");
    for query in ["device_id=BRIDGE", "org.matrix.msc3202.device_id=BRIDGE"] {
        assert_eq!(who(query).await.ok()["device_id"], "BRIDGE");
    }
    // What needs a device is refused without one.
    bot.post(&format!("{V3}/keys/upload"), json!({})).await.refused(400, "M_MISSING_PARAM");
    bot.post(&format!("{V3}/keys/upload?device_id=BRIDGE"), json!({})).await.ok();
    world.alice.put(&format!("{V3}/devices/NEW"), json!({})).await.refused(404, "M_NOT_FOUND");
    bot.delete(&device, json!({})).await.ok();
    who("device_id=BRIDGE").await.refused(400, "M_UNKNOWN_DEVICE");
    bot.put(&format!("{V3}/devices/OTHER"), json!({})).await.ok();
    bot.post(&format!("{V3}/delete_devices"), json!({ "devices": ["OTHER"] })).await.ok();
    bot.get(&format!("{V3}/devices/OTHER")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_service_logs_its_users_in() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let (bot, nobody) = (world.client(&irc), world.server.client());
    let flows = nobody.get(&format!("{V3}/login")).await.ok()["flows"].clone();
    let wanted = json!({ "type": "m.login.application_service" });
    assert!(flows.as_array().unwrap().contains(&wanted), "{flows}");
    let login = |user: &str| {
        json!({
            "type": "m.login.application_service",
            "identifier": { "type": "m.id.user", "user": user },
            "device_id": "PUPPET",
        })
    };
    let path = &format!("{V3}/login");
    nobody.post(path, login("irc-bot")).await.refused(401, "M_MISSING_TOKEN");
    world.alice.post(path, login("irc-bot")).await.refused(401, "M_UNKNOWN_TOKEN");
    bot.post(path, login("alice")).await.refused(400, "M_EXCLUSIVE");
    bot.post(path, login("irc_unknown")).await.refused(403, "M_FORBIDDEN");
    let session = bot.post(path, login("@irc-bot:test")).await.ok();
    assert_eq!(session["device_id"], "PUPPET");
    let puppet = nobody.with_session(&session);
    let who = puppet.get(&format!("{V3}/account/whoami")).await.ok();
    assert_eq!((&who["user_id"], &who["device_id"]), (&json!("@irc-bot:test"), &json!("PUPPET")));
}

#[tokio::test]
async fn exclusive_names_are_for_their_service_and_others_not_for_it() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let (bot, nobody) = (world.client(&irc), world.server.client());
    let register = &format!("{V3}/register");
    let body = json!({
        "username": "irc_mine", "password": "password", "auth": { "type": "m.login.dummy" },
    });
    nobody.post(register, body).await.refused(400, "M_EXCLUSIVE");
    for name in ["irc_mine", "irc-bot"] {
        let path = format!("{register}/available?username={name}");
        nobody.get(&path).await.refused(400, "M_EXCLUSIVE");
    }
    let service = |name: &str| json!({ "type": "m.login.application_service", "username": name });
    bot.post(register, service("other")).await.refused(400, "M_EXCLUSIVE");
    nobody.post(register, service("irc_a")).await.refused(401, "M_MISSING_TOKEN");
    world.alice.post(register, service("irc_a")).await.refused(401, "M_UNKNOWN_TOKEN");
    let silent = json!({
        "type": "m.login.application_service", "username": "irc_a", "inhibit_login": true,
    });
    let answer = bot.post(register, silent).await.ok();
    assert!(answer.get("access_token").is_none(), "{answer}");

    let room = world.bridged_room(&irc, "@irc_a:test").await;
    let alias = |name: &str| format!("{V3}/directory/room/%23{name}:test");
    let body = json!({ "room_id": room });
    world.alice.put(&alias("irc_chan"), body.clone()).await.refused(400, "M_EXCLUSIVE");
    let taken = json!({ "room_alias_name": "irc_chan" });
    let create = format!("{V3}/createRoom");
    world.alice.post(&create, taken).await.refused(400, "M_EXCLUSIVE");
    let as_a = |path: String| format!("{path}?user_id=@irc_a:test");
    bot.put(&as_a(alias("other")), body.clone()).await.refused(400, "M_EXCLUSIVE");
    bot.put(&as_a(alias("irc_chan")), body).await.ok();
    world.alice.delete(&alias("irc_chan"), json!({})).await.refused(400, "M_EXCLUSIVE");
    // The service removes it in whatever name it asks.
    bot.delete(&alias("irc_chan"), json!({})).await.ok();
}

#[tokio::test]
async fn a_service_says_when_something_was_said_and_others_cannot() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    let bot = world.client(&irc);
    let hello = json!({ "msgtype": "m.text", "body": "long ago" });
    let sent = async |client: &millrace_test_support::Client, path: String, body| {
        let event = client.put(&path, body).await.ok()["event_id"].clone();
        let path = format!("{V3}/rooms/{room}/event/{}", event.as_str().unwrap());
        world.alice.get(&path).await.ok()["origin_server_ts"].clone()
    };
    let send = |query: &str| format!("{V3}/rooms/{room}/send/m.room.message/{query}");
    let at = sent(&bot, send("1?user_id=@irc_a:test&ts=1234567890123"), hello.clone()).await;
    assert_eq!(at, 1_234_567_890_123_u64);
    let state = format!("{V3}/rooms/{room}/state/m.room.member/@irc_a:test");
    let state = format!("{state}?user_id=@irc_a:test&ts=1111111111111");
    let member = json!({ "membership": "join", "displayname": "a" });
    assert_eq!(sent(&bot, state, member).await, 1_111_111_111_111_u64);
    let at = sent(&world.alice, send("2?ts=1234567890123"), hello.clone()).await;
    assert_ne!(at, 1_234_567_890_123_u64, "a user says it now");
    bot.put(&send("3?user_id=@irc_a:test&ts=-1"), hello).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn requests_of_a_service_are_counted_only_where_it_says_so() {
    let (free, counted) = (TestService::start("free").await, TestService::start("counted").await);
    let users =
        |name: &str| format!("namespaces: {{users: [{{exclusive: true, regex: '@{name}_.*'}}]}}");
    let mut config = TestServer::config();
    config.rate_limits.enabled = true;
    config.rate_limits.registration = Rate { per_second: 1000.0, burst: 1000 };
    config.rate_limits.create_room = Rate { per_second: 1000.0, burst: 1000 };
    config.rate_limits.join = Rate { per_second: 1000.0, burst: 1000 };
    config.rate_limits.message = Rate { per_second: 0.001, burst: 2 };
    let registrations = [
        free.registration(&format!("rate_limited: false\n{}", users("free"))),
        counted.registration(&users("counted")),
    ];
    let world = World::with(&registrations, config).await;
    let room = world.bridged_room(&free, "@free_a:test").await;
    world.join(&counted, "@counted_a:test", &room).await;
    world.join(&counted, "@counted-bot:test", &room).await;
    let say = async |service: &TestService, user: &str, n: u32| {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{n}?user_id={user}");
        let body = json!({ "msgtype": "m.text", "body": "hello" });
        world.client(service).put(&path, body).await.status.as_u16()
    };
    let mut statuses = Vec::new();
    for n in 0..4 {
        statuses.push([
            say(&free, "@free_a:test", n).await,
            say(&counted, "@counted_a:test", n).await,
            say(&counted, "@counted-bot:test", n).await,
        ]);
    }
    assert_eq!(statuses, [[200, 200, 200], [200, 200, 200], [200, 429, 200], [200, 429, 200]]);
}
