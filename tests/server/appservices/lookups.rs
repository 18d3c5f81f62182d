//! What services are asked: whether they can be reached, for users and aliases, and for networks.

use futures::FutureExt;
use millrace_test_support::TestService;
use serde_json::{Value, json};

use super::world::{IRC, V3, World};

const PING: &str = "/_matrix/client/v1/appservice";

#[tokio::test]
async fn a_ping_tells_how_long_it_took_or_what_went_wrong() {
    let (mut irc, other) = (TestService::start("irc").await, TestService::start("other").await);
    let silent = other.registration("").replace("url: http", "url: null # ");
    let world = World::new(&[irc.registration(IRC), silent]).await;
    let bot = world.client(&irc);
    let path = &format!("{PING}/irc/ping");
    let ping = async || bot.post(path, json!({ "transaction_id": "meow" })).await;
    assert!(ping().await.ok()["duration_ms"].is_u64());
    assert!(irc.asked().contains(&"POST /_matrix/app/v1/ping".to_owned()));
    bot.post(&format!("{PING}/other/ping"), json!({})).await.refused(403, "M_FORBIDDEN");
    world.alice.post(path, json!({})).await.refused(403, "M_FORBIDDEN");
    world.server.client().post(path, json!({})).await.refused(401, "M_MISSING_TOKEN");
    let answer = world.client(&other).post(&format!("{PING}/other/ping"), json!({})).await;
    answer.refused(400, "M_URL_NOT_SET");
    irc.answer(|_| async { Some((403, json!({ "errcode": "M_FORBIDDEN" }))) }.boxed());
    let answer = ping().await;
    answer.refused(502, "M_BAD_STATUS");
    assert_eq!(answer.body["status"], 403);
    assert!(answer.body["body"].as_str().unwrap().contains("M_FORBIDDEN"));
    irc.go_away().await;
    ping().await.refused(502, "M_CONNECTION_FAILED");
}

#[tokio::test]
async fn a_service_makes_users_and_aliases_when_somebody_asks_for_them() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.room(json!({ "preset": "public_chat" })).await;
    world.join(&irc, "@irc-bot:test", &room).await;
    let (bot, target) = (world.client(&irc), room.clone());
    irc.answer(move |path| {
        let (bot, room) = (bot.clone(), target.clone());
        async move {
            if path == "/_matrix/app/v1/users/@irc_new:test" {
                let body = json!({ "type": "m.login.application_service", "username": "irc_new" });
                bot.post(&format!("{V3}/register"), body).await.ok();
                return Some((200, json!({})));
            }
            if path == "/_matrix/app/v1/rooms/%23irc_new:test" {
                let alias = format!("{V3}/directory/room/%23irc_new:test");
                bot.put(&alias, json!({ "room_id": room })).await.ok();
                return Some((200, json!({})));
            }
            None
        }
        .boxed()
    });
    let alice = &world.alice;
    let profile = |user: &str| format!("{V3}/profile/{user}");
    alice.get(&profile("@irc_none:test")).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get(&profile("@irc_new:test")).await.ok()["displayname"], "irc_new");
    let alias = |name: &str| format!("{V3}/directory/room/%23{name}:test");
    alice.get(&alias("irc_none")).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get(&alias("irc_new")).await.ok()["room_id"], room);
    let asked = irc.asked().len();
    alice.get(&profile("@irc_new:test")).await.ok();
    alice.get(&profile("@other:test")).await.refused(404, "M_NOT_FOUND");
    alice.get(&alias("other")).await.refused(404, "M_NOT_FOUND");
    let more: Vec<String> = irc.asked().split_off(asked);
    assert!(more.iter().all(|asked| asked.contains("/transactions/")), "{more:?}");
}

#[tokio::test]
async fn joining_by_an_alias_and_inviting_a_user_ask_the_service() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.room(json!({ "preset": "public_chat" })).await;
    let path = format!("{V3}/join/%23irc_none:test");
    world.alice.post(&path, json!({})).await.refused(404, "M_NOT_FOUND");
    irc.until_asked("GET /_matrix/app/v1/rooms/%23irc_none:test").await;
    let path = format!("{V3}/rooms/{room}/invite");
    world.alice.post(&path, json!({ "user_id": "@irc_friend:test" })).await;
    irc.until_asked("GET /_matrix/app/v1/users/@irc_friend:test").await;
}

/// What a bridge tells of its network.
fn network() -> Value {
    json!({
        "user_fields": ["nickname"], "location_fields": ["channel"], "icon": "mxc://test/icon",
        "field_types": {}, "instances": [{ "network_id": "libera", "desc": "Libera", "fields": {} }],
    })
}

#[tokio::test]
async fn networks_are_looked_into_through_their_services() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(&format!("protocols: [irc]\n{IRC}"))]).await;
    let alice = &world.alice;
    let get = async |path: &str| alice.get(&format!("{V3}/thirdparty/{path}")).await;
    irc.answer(|path| {
        async move {
            let path = path.strip_prefix("/_matrix/app/v1/thirdparty/")?;
            let found = json!([{ "alias": "#irc_a:test", "protocol": "irc", "fields": {} }]);
            match path {
                "protocol/irc" => Some((200, network())),
                "location/irc?channel=%23a" | "location?alias=%23irc_a%3Atest" => {
                    Some((200, found))
                }
                "user/irc?nickname=a" | "user?userid=%40irc_a%3Atest" => Some((200, found)),
                _ => Some((200, json!("garbage"))),
            }
        }
        .boxed()
    });
    let told = get("protocol/irc").await.ok();
    assert_eq!(told["instances"][0]["instance_id"], "irc|libera");
    assert_eq!(told["location_fields"], json!(["channel"]));
    assert_eq!(get("protocols").await.ok(), json!({ "irc": told }));
    for path in [
        "location/irc?channel=%23a",
        "user/irc?nickname=a",
        "location?alias=%23irc_a:test",
        "user?userid=@irc_a:test",
    ] {
        assert_eq!(get(path).await.ok()[0]["protocol"], "irc", "{path}");
    }
    assert_eq!(get("location/irc?channel=%23unknown").await.ok(), json!([]));
    get("protocol/xmpp").await.refused(404, "M_NOT_FOUND");
    get("user?userid=@nobody:test").await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_network_has_a_room_directory_of_its_own() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(&format!("protocols: [irc]\n{IRC}"))]).await;
    let (bot, alice) = (world.client(&irc), &world.alice);
    let room = world.room(json!({ "preset": "public_chat", "name": "Channel" })).await;
    let list = format!("{V3}/directory/list/appservice/libera/{room}");
    alice.put(&list, json!({ "visibility": "public" })).await.refused(403, "M_FORBIDDEN");
    bot.put(&list, json!({ "visibility": "public" })).await.ok();
    let unknown = format!("{V3}/directory/list/appservice/libera/!unknown:test");
    bot.put(&unknown, json!({ "visibility": "public" })).await.refused(404, "M_NOT_FOUND");
    let rooms = async |body: Value| {
        let answer = alice.post(&format!("{V3}/publicRooms"), body).await.ok();
        let chunk = answer["chunk"].as_array().unwrap().clone();
        chunk.iter().map(|room| room["room_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(rooms(json!({})).await, nothing);
    assert_eq!(rooms(json!({ "third_party_instance_id": "irc|libera" })).await, [room.as_str()]);
    assert_eq!(rooms(json!({ "third_party_instance_id": "irc|other" })).await, nothing);
    assert_eq!(rooms(json!({ "include_all_networks": true })).await, [room.as_str()]);
    bot.put(&list, json!({ "visibility": "private" })).await.ok();
    assert_eq!(rooms(json!({ "third_party_instance_id": "irc|libera" })).await, nothing);
}
