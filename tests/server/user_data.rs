//! What belongs to users, as clients use it: account data, receipts, profiles, push rules, filters,
//! messages to devices, typing, presence.

use millrace_test_support::{Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

/// A room of alice's in which bob is joined.
struct World {
    server: TestServer,
    alice: Client,
    bob: Client,
    room: String,
}

impl World {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let body = json!({"preset": "public_chat"});
        let room = alice.post(&format!("{V3}/createRoom"), body).await.ok();
        let room = room["room_id"].as_str().expect("an ID").to_owned();
        bob.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
        Self { server, alice, bob, room }
    }

    async fn say(&self, sender: &Client, body: &str) -> String {
        let path = format!("{V3}/rooms/{}/send/m.room.message/{body}", self.room);
        let sent = sender.put(&path, json!({"msgtype": "m.text", "body": body})).await.ok();
        sent["event_id"].as_str().expect("an ID").to_owned()
    }

    async fn sync(&self, client: &Client, since: Option<&Value>) -> Value {
        let since = since.map_or(String::new(), |since| format!("&since={}", text(since)));
        client.get(&format!("{V3}/sync?timeout=0{since}")).await.ok()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Contents of the events of a type in a list of events.
fn contents<'a>(events: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = events.as_array().into_iter().flatten();
    events.filter(|event| event["type"] == kind).map(|event| &event["content"]).collect()
}

#[tokio::test]
async fn account_data_and_tags_are_read_back_and_synced() {
    let world = World::new().await;
    let user = format!("{V3}/user/{}", world.alice.user());
    let next = world.sync(&world.alice, None).await["next_batch"].clone();
    let in_room = format!("{user}/rooms/{}", world.room);
    for (path, value) in [(&user, 1), (&in_room, 2)] {
        let path = format!("{path}/account_data/org.example.x");
        world.alice.put(&path, json!({"value": value})).await.ok();
        assert_eq!(world.alice.get(&path).await.ok(), json!({"value": value}));
        world.bob.get(&path).await.refused(403, "M_FORBIDDEN");
    }
    world.alice.put(&format!("{in_room}/tags/u.work"), json!({"order": 0.5})).await.ok();
    let tags = json!({"tags": {"u.work": {"order": 0.5}}});
    assert_eq!(world.alice.get(&format!("{in_room}/tags")).await.ok(), tags);
    let sync = world.sync(&world.alice, Some(&next)).await;
    assert_eq!(contents(&sync["account_data"]["events"], "org.example.x"), [&json!({"value": 1})]);
    let room = &sync["rooms"]["join"][&world.room]["account_data"]["events"];
    assert_eq!(contents(room, "org.example.x"), [&json!({"value": 2})]);
    assert_eq!(contents(room, "m.tag"), [&tags]);
    world.alice.delete(&format!("{in_room}/tags/u.work"), json!({})).await.ok();
    assert_eq!(world.alice.get(&format!("{in_room}/tags")).await.ok(), json!({"tags": {}}));
}

#[tokio::test]
async fn deleted_account_data_is_told_once_as_empty() {
    let world = World::new().await;
    let (user, kind) = (format!("user/{}", world.alice.user()), "account_data/org.example.x");
    let unstable = "/_matrix/client/unstable/org.matrix.msc3391";
    for scope in [user.clone(), format!("{user}/rooms/{}", world.room)] {
        let path = format!("{V3}/{scope}/{kind}");
        for by_put in [true, false] {
            world.alice.put(&path, json!({"value": 1})).await.ok();
            let next = world.sync(&world.alice, None).await["next_batch"].clone();
            if by_put {
                world.alice.put(&path, json!({})).await.ok();
            } else {
                let path = format!("{unstable}/{scope}/{kind}");
                world.bob.delete(&path, json!({})).await.refused(403, "M_FORBIDDEN");
                world.alice.delete(&path, json!({})).await.ok();
            }
            world.alice.get(&path).await.refused(404, "M_NOT_FOUND");
            let of = |sync: &Value| {
                let room = &sync["rooms"]["join"][&world.room];
                let room = contents(&room["account_data"]["events"], "org.example.x").len();
                room + contents(&sync["account_data"]["events"], "org.example.x").len()
            };
            let told = world.sync(&world.alice, Some(&next)).await;
            assert_eq!(of(&told), 1, "{scope}");
            assert_eq!(of(&world.sync(&world.alice, Some(&told["next_batch"])).await), 0);
            assert_eq!(of(&world.sync(&world.alice, None).await), 0);
        }
    }
    let path = format!("{unstable}/{user}/account_data/m.push_rules");
    world.alice.delete(&path, json!({})).await.refused(405, "M_BAD_JSON");
}

#[tokio::test]
async fn what_is_set_about_a_devices_notifications_ends_with_the_device() {
    let world = World::new().await;
    let body = json!({
        "type": "m.login.password", "password": "password",
        "identifier": {"type": "m.id.user", "user": "alice"},
    });
    let second = world.server.client().post(&format!("{V3}/login"), body).await.ok();
    let second = world.server.client().with_session(&second);
    let path = |device: &str| {
        let kind = format!("m.local_notification_settings.{device}");
        format!("{V3}/user/{}/account_data/{kind}", world.alice.user())
    };
    for device in [second.device(), world.alice.device()] {
        world.alice.put(&path(device), json!({"is_silenced": true})).await.ok();
    }
    second.post(&format!("{V3}/logout"), json!({})).await.ok();
    world.alice.get(&path(second.device())).await.refused(404, "M_NOT_FOUND");
    world.alice.get(&path(world.alice.device())).await.ok();
}

#[tokio::test]
async fn invitations_that_a_user_does_not_want_are_refused_or_kept_from_them() {
    let world = World::new().await;
    let (server, alice, bob) = (&world.server, &world.alice, &world.bob);
    let body = json!({"preset": "private_chat"});
    let room = bob.post(&format!("{V3}/createRoom"), body).await.ok()["room_id"].clone();
    let (room, carol) = (text(&room), server.register("carol").await);
    let data = |kind: &str| format!("{V3}/user/{}/account_data/{kind}", carol.user());
    let invite = json!({"user_id": carol.user()});
    carol.put(&data("m.invite_permission_config"), json!({"default_action": "block"})).await.ok();
    let path = format!("{V3}/rooms/{room}/invite");
    bob.post(&path, invite.clone()).await.refused(403, "M_INVITE_BLOCKED");
    let state = format!("{V3}/rooms/{room}/state/m.room.member/{}", carol.user());
    bob.put(&state, json!({"membership": "invite"})).await.refused(403, "M_INVITE_BLOCKED");
    let creation = bob.post(&format!("{V3}/createRoom"), json!({"invite": [carol.user()]})).await;
    creation.refused(403, "M_INVITE_BLOCKED");
    carol.put(&data("m.invite_permission_config"), json!({})).await.ok();

    let rules = data("org.matrix.msc4155.invite_permission_config");
    carol.put(&rules, json!({"ignored_users": ["@bob:*"]})).await.ok();
    bob.post(&path, invite).await.ok();
    let sync = world.sync(&carol, None).await;
    assert_eq!(sync["rooms"]["invite"], Value::Null, "an ignored invitation is not shown");
    let path = format!("{V3}/rooms/{}/invite", world.room);
    alice.post(&path, json!({"user_id": carol.user()})).await.ok();
    let sync = world.sync(&carol, Some(&sync["next_batch"])).await;
    assert!(sync["rooms"]["invite"][&world.room].is_object(), "others may invite: {sync}");
    carol.put(&rules, json!({"blocked_users": ["*"]})).await.ok();
    assert_eq!(world.sync(&carol, None).await["rooms"]["invite"], Value::Null);
}

#[tokio::test]
async fn what_the_server_manages_is_refused_as_account_data() {
    let world = World::new().await;
    let user = format!("{V3}/user/{}/account_data", world.alice.user());
    for kind in ["m.push_rules", "m.fully_read"] {
        let answer = world.alice.put(&format!("{user}/{kind}"), json!({})).await;
        answer.refused(405, "M_BAD_JSON");
    }
    world.alice.get(&format!("{user}/org.example.none")).await.refused(404, "M_NOT_FOUND");
    let rules = world.alice.get(&format!("{user}/m.push_rules")).await.ok();
    assert_eq!(rules["global"]["override"][0]["rule_id"], ".m.rule.master");
}

#[tokio::test]
async fn receipts_reset_the_unread_counts_and_are_shown_to_others() {
    let world = World::new().await;
    world.say(&world.alice, "one").await;
    let second = world.say(&world.alice, "two").await;
    let sync = world.sync(&world.bob, None).await;
    let unread = &sync["rooms"]["join"][&world.room]["unread_notifications"];
    assert_eq!(*unread, json!({"notification_count": 2, "highlight_count": 0}));
    let room = format!("{V3}/rooms/{}", world.room);
    world.bob.post(&format!("{room}/receipt/m.read/{second}"), json!({})).await.ok();
    // Both say the same of one event; the one that is about all the room is shown.
    let threaded = json!({"thread_id": "main"});
    world.bob.post(&format!("{room}/receipt/m.read/{second}"), threaded).await.ok();
    let markers = json!({"m.fully_read": second, "m.read.private": second});
    world.bob.post(&format!("{room}/read_markers"), markers).await.ok();
    let seen = world.sync(&world.bob, Some(&sync["next_batch"])).await;
    let joined = &seen["rooms"]["join"][&world.room];
    assert_eq!(joined["unread_notifications"]["notification_count"], 0);
    let data = contents(&joined["account_data"]["events"], "m.fully_read");
    assert_eq!(data, [&json!({"event_id": second})]);
    let alices = world.sync(&world.alice, None).await;
    let events = &alices["rooms"]["join"][&world.room]["ephemeral"]["events"];
    let receipts = &contents(events, "m.receipt")[0][&second];
    assert!(receipts["m.read"][world.bob.user().as_str()]["ts"].is_u64(), "{receipts}");
    assert!(receipts["m.read"][world.bob.user().as_str()].get("thread_id").is_none(), "{receipts}");
    assert!(receipts.get("m.read.private").is_none(), "a private receipt is nobody else's");
    for (body, kind) in [
        (json!({"thread_id": "$other"}), "m.read"),
        (json!({"thread_id": "nonsense"}), "m.read"),
        (json!({"thread_id": "main"}), "m.fully_read"),
        (json!({}), "m.unknown"),
    ] {
        let answer = world.bob.post(&format!("{room}/receipt/{kind}/{second}"), body).await;
        answer.refused(400, "M_INVALID_PARAM");
    }
    let eve = world.server.register("eve").await;
    let answer = eve.post(&format!("{room}/receipt/m.read/{second}"), json!({})).await;
    answer.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_profile_is_read_by_anybody_and_spread_to_rooms() {
    let world = World::new().await;
    let profile = format!("{V3}/profile/{}", world.alice.user());
    world.alice.put(&format!("{profile}/displayname"), json!({"displayname": "Alice"})).await.ok();
    world.alice.put(&format!("{profile}/org.x"), json!({"org.x": {"a": 1}})).await.ok();
    let nobody = world.server.client();
    let all = json!({"displayname": "Alice", "org.x": {"a": 1}});
    assert_eq!(nobody.get(&profile).await.ok(), all);
    let one = nobody.get(&format!("{profile}/displayname")).await.ok();
    assert_eq!(one, json!({"displayname": "Alice"}));
    let member = format!("{V3}/rooms/{}/state/m.room.member/{}", world.room, world.alice.user());
    assert_eq!(world.bob.get(&member).await.ok()["displayname"], "Alice");
    world.alice.delete(&format!("{profile}/org.x"), json!({})).await.ok();
    nobody.get(&format!("{profile}/org.x")).await.refused(404, "M_NOT_FOUND");
    nobody.get(&format!("{V3}/profile/@eve:test")).await.refused(404, "M_NOT_FOUND");
    let answer =
        world.bob.put(&format!("{profile}/displayname"), json!({"displayname": "x"})).await;
    answer.refused(403, "M_FORBIDDEN");
    let large = json!({"org.y": "y".repeat(66_000)});
    world.alice.put(&format!("{profile}/org.y"), large).await.refused(400, "M_PROFILE_TOO_LARGE");
    let found = json!({"search_term": "ali"});
    let found = world.bob.post(&format!("{V3}/user_directory/search"), found).await.ok();
    assert_eq!(found["results"][0]["display_name"], "Alice");
}

#[tokio::test]
async fn push_rules_are_set_placed_and_removed() {
    let world = World::new().await;
    let rules = format!("{V3}/pushrules/global");
    let silent = json!({"actions": ["dont_notify"]});
    let bob = format!("{rules}/sender/{}", world.bob.user());
    world.alice.put(&bob, silent.clone()).await.ok();
    let all = world.alice.get(&format!("{V3}/pushrules/")).await.ok();
    assert_eq!(all["global"]["sender"][0]["actions"], silent["actions"]);
    let rule = |id: &str, place: &str| format!("{rules}/override/{id}{place}");
    let body = json!({"actions": [], "conditions": []});
    world.alice.put(&rule("a", ""), body.clone()).await.ok();
    world.alice.put(&rule("b", "?after=a"), body.clone()).await.ok();
    world.alice.put(&rule("c", "?before=none"), body.clone()).await.refused(400, "M_UNKNOWN");
    world.alice.put(&rule(".c", ""), body).await.refused(400, "M_INVALID_PARAM");
    let all = world.alice.get(&format!("{rules}/")).await.ok();
    let ids: Vec<_> = (1..3).map(|at| text(&all["override"][at]["rule_id"])).collect();
    assert_eq!(ids, ["a", "b"]);
    world.alice.put(&rule("a", "/enabled"), json!({"enabled": false})).await.ok();
    let enabled = world.alice.get(&rule("a", "/enabled")).await.ok();
    assert_eq!(enabled, json!({"enabled": false}));
    world.alice.delete(&rule("a", ""), json!({})).await.ok();
    world.alice.get(&rule("a", "")).await.refused(404, "M_NOT_FOUND");
    world.alice.get(&rule("a", "/actions")).await.refused(404, "M_NOT_FOUND");
    let unknown = format!("{rules}/postcontent/x/enabled");
    world.alice.put(&unknown, json!({"enabled": false})).await.refused(404, "M_NOT_FOUND");
    let notifications = world.alice.get(&format!("{V3}/notifications")).await.ok();
    assert_eq!(notifications["notifications"], json!([]));
}

#[tokio::test]
async fn pushers_and_filters_are_stored_and_listed() {
    let world = World::new().await;
    let pusher = json!({
        "app_id": "app", "pushkey": "key", "kind": "http", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en",
        "data": {"url": "https://push.example.org/_matrix/push/v1/notify"},
    });
    let set = format!("{V3}/pushers/set");
    world.alice.post(&set, pusher.clone()).await.ok();
    let listed = world.alice.get(&format!("{V3}/pushers")).await.ok();
    assert_eq!(listed["pushers"], json!([pusher]));
    let mut elsewhere = pusher.clone();
    elsewhere["data"]["url"] = "https://push.example.org/".into();
    world.alice.post(&set, elsewhere).await.refused(400, "M_INVALID_PARAM");
    let gone = json!({"app_id": "app", "pushkey": "key", "kind": null});
    world.alice.post(&set, gone).await.ok();
    assert_eq!(world.alice.get(&format!("{V3}/pushers")).await.ok()["pushers"], json!([]));
    let filters = format!("{V3}/user/{}/filter", world.alice.user());
    let filter = json!({"room": {"timeline": {"limit": 10}}});
    let id = world.alice.post(&filters, filter.clone()).await.ok();
    let path = format!("{filters}/{}", text(&id["filter_id"]));
    assert_eq!(world.alice.get(&path).await.ok(), filter);
    world.bob.get(&path).await.refused(403, "M_FORBIDDEN");
    world.alice.get(&format!("{filters}/none")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_message_to_a_device_is_synced_once() {
    let world = World::new().await;
    let next = world.sync(&world.bob, None).await["next_batch"].clone();
    let bob = world.bob.user().as_str();
    for _ in 0..2 {
        let messages = json!({"messages": {bob: {world.bob.device(): {"k": "v"}}}});
        world.alice.put(&format!("{V3}/sendToDevice/my.type/txn"), messages).await.ok();
    }
    let first = world.sync(&world.bob, Some(&next)).await;
    let event = json!({"type": "my.type", "sender": world.alice.user(), "content": {"k": "v"}});
    assert_eq!(first["to_device"]["events"], json!([event]));
    let second = world.sync(&world.bob, Some(&first["next_batch"])).await;
    assert!(second["to_device"]["events"].as_array().is_none_or(Vec::is_empty), "{second}");
    let wrong = json!({"messages": {bob: {"*": []}}});
    let answer = world.alice.put(&format!("{V3}/sendToDevice/my.type/2"), wrong).await;
    answer.refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn typing_and_presence_are_shown_to_who_shares_a_room() {
    let world = World::new().await;
    let next = world.sync(&world.bob, None).await["next_batch"].clone();
    let typing = format!("{V3}/rooms/{}/typing/{}", world.room, world.alice.user());
    world.alice.put(&typing, json!({"typing": true, "timeout": 10_000})).await.ok();
    let status = format!("{V3}/presence/{}/status", world.alice.user());
    let busy = json!({"presence": "unavailable", "status_msg": "busy"});
    world.alice.put(&status, busy).await.ok();
    let sync = world.sync(&world.bob, Some(&next)).await;
    let events = &sync["rooms"]["join"][&world.room]["ephemeral"]["events"];
    assert_eq!(contents(events, "m.typing"), [&json!({"user_ids": [world.alice.user()]})]);
    let presence = contents(&sync["presence"]["events"], "m.presence");
    assert!(presence.iter().any(|one| one["status_msg"] == "busy"), "{sync}");
    assert_eq!(world.bob.get(&status).await.ok()["presence"], "unavailable");
    let eve = world.server.register("eve").await;
    eve.get(&status).await.refused(403, "M_FORBIDDEN");
    eve.put(&typing, json!({"typing": false})).await.refused(403, "M_FORBIDDEN");
    world.alice.put(&typing, json!({"typing": true})).await.refused(400, "M_BAD_JSON");
    world.alice.post(&format!("{V3}/rooms/{}/leave", world.room), json!({})).await.ok();
    let sync = world.sync(&world.bob, Some(&sync["next_batch"])).await;
    let events = &sync["rooms"]["join"][&world.room]["ephemeral"]["events"];
    assert_eq!(
        contents(events, "m.typing"),
        [&json!({"user_ids": []})],
        "who leaves types no more"
    );
}

#[tokio::test]
async fn who_is_removed_from_a_room_types_there_no_more() {
    let world = World::new().await;
    let (room, bob) = (&world.room, world.bob.user());
    let typing = format!("{V3}/rooms/{room}/typing/{bob}");
    let target = json!({"user_id": bob});
    let state = format!("{V3}/rooms/{room}/state/m.room.member/{bob}");
    for removal in ["kick", "ban", "state"] {
        world.alice.post(&format!("{V3}/rooms/{room}/unban"), target.clone()).await;
        world.bob.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
        world.bob.put(&typing, json!({"typing": true, "timeout": 10_000})).await.ok();
        let before = world.sync(&world.alice, None).await;
        let events = &before["rooms"]["join"][room]["ephemeral"]["events"];
        assert_eq!(contents(events, "m.typing"), [&json!({"user_ids": [bob]})]);
        if removal == "state" {
            world.alice.put(&state, json!({"membership": "leave"})).await.ok();
        } else {
            let path = format!("{V3}/rooms/{room}/{removal}");
            world.alice.post(&path, target.clone()).await.ok();
        }
        let after = world.sync(&world.alice, Some(&before["next_batch"])).await;
        let events = &after["rooms"]["join"][room]["ephemeral"]["events"];
        assert_eq!(contents(events, "m.typing"), [&json!({"user_ids": []})], "{removal}");
    }
}

#[tokio::test]
async fn who_unsubscribes_from_a_thread_hears_no_more_of_it() {
    let world = World::new().await;
    let root = world.say(&world.alice, "root").await;
    let reply = async |n: u32, thread: &str| {
        let path = format!("{V3}/rooms/{}/send/m.room.message/reply{n}", world.room);
        let relation = json!({"rel_type": "m.thread", "event_id": thread});
        let body = json!({"msgtype": "m.text", "body": "x", "m.relates_to": relation});
        text(&world.alice.put(&path, body).await.ok()["event_id"]).to_owned()
    };
    let unread = async || {
        let synced = world.sync(&world.bob, None).await;
        let count = &synced["rooms"]["join"][&world.room]["unread_notifications"];
        count["notification_count"].as_u64().expect("a count")
    };
    let below = "/_matrix/client/unstable/io.element.msc4306";
    let path = |root: &str| format!("{below}/rooms/{}/thread/{root}/subscription", world.room);
    let subscription = path(&root);
    let first = reply(1, &root).await;
    let before = unread().await;
    world.bob.get(&subscription).await.refused(404, "M_NOT_FOUND");
    world.bob.delete(&subscription, json!({})).await.ok();
    let second = reply(2, &root).await;
    assert_eq!(unread().await, before, "the second is silent");

    // A client does not undo what its user did, but for what was said since.
    let by = |event: &str| json!({"automatic": event});
    let conflict = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
    world.bob.put(&subscription, by(&first)).await.refused(409, conflict);
    world.bob.put(&subscription, by(&second)).await.ok();
    assert_eq!(world.bob.get(&subscription).await.ok(), json!({"automatic": true}));
    world.bob.put(&subscription, json!({})).await.ok();
    assert_eq!(world.bob.get(&subscription).await.ok(), json!({"automatic": false}));
    reply(3, &root).await;
    assert_eq!(unread().await, before + 1);

    // The two rules are listed, and can be changed.
    let rules = format!("{V3}/pushrules/global");
    let listed = world.bob.get(&format!("{rules}/")).await.ok();
    let ids =
        ["unsubscribed", "subscribed"].map(|it| format!(".io.element.msc4306.rule.{it}_thread"));
    let kind = listed["postcontent"].as_array().unwrap();
    assert_eq!(kind.iter().map(|rule| text(&rule["rule_id"])).collect::<Vec<_>>(), ids);
    let rule = format!("{rules}/io.element.msc4306.postcontent/{}", ids[1]);
    world.bob.put(&format!("{rule}/actions"), json!({"actions": []})).await.ok();
    assert_eq!(world.bob.get(&rule).await.ok()["actions"], json!([]));
    let now = unread().await;
    reply(5, &root).await;
    assert_eq!(unread().await, now);
    world.bob.put(&format!("{rule}/enabled"), json!({"enabled": false})).await.ok();
    let enabled = world.bob.get(&format!("{rule}/enabled")).await.ok();
    assert_eq!(enabled, json!({"enabled": false}));
    let now = unread().await;
    reply(6, &root).await;
    assert_eq!(unread().await, now + 1, "the other rules decide");

    let elsewhere = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
    world.bob.put(&subscription, by(&root)).await.refused(400, elsewhere);
    let other = world.say(&world.alice, "other").await;
    world.bob.put(&subscription, by(&reply(4, &other).await)).await.refused(400, elsewhere);
    world.bob.put(&path("$none"), json!({})).await.refused(404, "M_NOT_FOUND");
    world.bob.get(&path("$none")).await.refused(404, "M_NOT_FOUND");
    let carol = world.server.register("carol").await;
    carol.put(&subscription, json!({})).await.refused(403, "M_FORBIDDEN");
}
