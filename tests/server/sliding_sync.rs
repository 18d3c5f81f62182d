//! Sliding sync (MSC4186), as clients use it: windows that move, what is told of rooms in them and of
//! those that come back, extensions, lost responses and forgotten connections.

use std::{sync::Arc, time::Duration};

use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Client, TestClock, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const SYNC: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const THREADS: &str = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
const NAME: [&str; 2] = ["m.room.name", ""];
const MEMBER: &str = "m.room.member";

/// One connection of a client.
struct Connection<'a> {
    client: &'a Client,
    pos: Option<String>,
    body: Value,
}

impl<'a> Connection<'a> {
    fn new(client: &'a Client, body: Value) -> Self {
        Self { client, pos: None, body }
    }

    /// A connection with one list of the rooms from the first to `last`.
    fn with_list(client: &'a Client, last: u64, required: &[[&str; 2]], limit: u64) -> Self {
        Self::new(
            client,
            json!({"lists": {"all": {
                "ranges": [[0, last]], "required_state": required, "timeline_limit": limit,
            }}}),
        )
    }

    fn path(&self, timeout: u64) -> String {
        let pos = self.pos.as_ref().map_or(String::new(), |pos| format!("&pos={pos}"));
        format!("{SYNC}?timeout={timeout}{pos}")
    }

    /// A response, from which the client goes on.
    async fn sync(&mut self) -> Value {
        self.wait(0).await
    }

    async fn wait(&mut self, timeout: u64) -> Value {
        let response = self.lose(timeout).await;
        self.pos = Some(text(&response["pos"]).to_owned());
        response
    }

    /// A response that does not reach the client.
    async fn lose(&self, timeout: u64) -> Value {
        self.client.post(&self.path(timeout), self.body.clone()).await.ok()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

async fn create(client: &Client, body: Value) -> String {
    let room = client.post(&format!("{V3}/createRoom"), body).await.ok();
    text(&room["room_id"]).to_owned()
}

async fn say(client: &Client, room: &str, body: &str) -> String {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{body}");
    let sent = client.put(&path, json!({"msgtype": "m.text", "body": body})).await.ok();
    text(&sent["event_id"]).to_owned()
}

async fn join(client: &Client, room: &str) {
    client.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
}

/// What is said in a room's timeline.
fn said(room: &Value) -> Vec<&str> {
    let events = room["timeline"].as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// Types and state keys of a room's state, sorted.
fn state(room: &Value) -> Vec<[&str; 2]> {
    let events = room["required_state"].as_array().into_iter().flatten();
    let mut state: Vec<_> =
        events.map(|event| [text(&event["type"]), text(&event["state_key"])]).collect();
    state.sort_unstable();
    state
}

/// The rooms of a response, sorted.
fn rooms(response: &Value) -> Vec<&str> {
    response["rooms"].as_object().expect("rooms").keys().map(String::as_str).collect()
}

fn sorted<'a>(ids: &[&'a String]) -> Vec<&'a str> {
    let mut ids: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_window_has_the_rooms_with_the_newest_events_and_what_is_new_in_them() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let mut ids = Vec::new();
    for name in ["one", "two", "three"] {
        ids.push(create(&alice, json!({"name": name})).await);
    }
    let mut phone = Connection::with_list(&alice, 1, &[NAME], 2);
    let first = phone.sync().await;
    assert_eq!(first["lists"], json!({"all": {"count": 3}}));
    assert_eq!(rooms(&first), sorted(&[&ids[1], &ids[2]]), "those with the newest events");
    let three = &first["rooms"][&ids[2]];
    assert_eq!((&three["initial"], &three["name"]), (&json!(true), &json!("three")));
    assert_eq!(state(three), [NAME]);
    assert_eq!(three["timeline"].as_array().map(Vec::len), Some(2));
    assert_eq!((&three["limited"], &three["num_live"]), (&json!(true), &json!(0)));
    assert_eq!((&three["joined_count"], &three["membership"]), (&json!(1), &json!("join")));
    assert!(three["prev_batch"].is_string());

    let quiet = phone.sync().await;
    assert_eq!(quiet["rooms"], json!({}));
    say(&alice, &ids[2], "hello").await;
    let news = phone.sync().await;
    assert_eq!(rooms(&news), [&ids[2]]);
    let room = &news["rooms"][&ids[2]];
    assert_eq!(
        (said(room), &room["num_live"], &room["limited"]),
        (vec!["hello"], &json!(1), &json!(false))
    );
    assert!(
        room["initial"].is_null() && room["name"].is_null() && room["required_state"].is_null()
    );
    assert!(room["bump_stamp"].as_u64() > three["bump_stamp"].as_u64());

    // The oldest comes into the window, and pushes another one out.
    say(&alice, &ids[0], "me-too").await;
    let news = phone.sync().await;
    assert_eq!(rooms(&news), [&ids[0]]);
    let room = &news["rooms"][&ids[0]];
    assert_eq!((&room["initial"], &room["num_live"]), (&json!(true), &json!(1)));
    assert_eq!(said(room), ["me-too"]);
}

#[tokio::test]
async fn a_room_that_comes_back_into_the_window_is_told_of_since_it_left() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let one = create(&alice, json!({})).await;
    let two = create(&alice, json!({})).await;
    let mut phone = Connection::with_list(&alice, 0, &[NAME], 10);
    assert_eq!(rooms(&phone.sync().await), [&two]);
    say(&alice, &one, "a").await;
    assert_eq!(rooms(&phone.sync().await), [&one], "now the first");
    say(&alice, &one, "b").await;
    alice.put(&format!("{V3}/rooms/{two}/state/m.room.name"), json!({"name": "two"})).await.ok();
    say(&alice, &one, "c").await;
    let news = phone.sync().await;
    assert_eq!(said(&news["rooms"][&one]), ["b", "c"]);
    assert_eq!(rooms(&news), [&one], "the other is out of sight");
    say(&alice, &two, "d").await;
    let news = phone.sync().await;
    assert_eq!(rooms(&news), [&two]);
    let room = &news["rooms"][&two];
    assert!(room["initial"].is_null());
    assert_eq!((said(room), state(room)), (vec!["d"], vec![NAME]));
    assert_eq!((&room["name"], &room["limited"]), (&json!("two"), &json!(false)));
    assert_eq!(room["timeline"].as_array().map(Vec::len), Some(2), "the name is in it");
}

#[tokio::test]
async fn subscriptions_and_larger_limits_tell_more_of_a_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = create(&alice, json!({"preset": "public_chat", "topic": "all"})).await;
    join(&bob, &room).await;
    for body in ["a", "b", "c", "d"] {
        say(&bob, &room, body).await;
    }
    let mut phone = Connection::with_list(&alice, 9, &[NAME, [MEMBER, "$LAZY"]], 1);
    let first = phone.sync().await;
    assert_eq!(said(&first["rooms"][&room]), ["d"]);
    assert_eq!(state(&first["rooms"][&room]), [[MEMBER, bob.user().as_str()]]);

    phone.body["room_subscriptions"] = json!({&room: {
        "timeline_limit": 3, "required_state": [["m.room.topic", ""], [MEMBER, "$ME"]],
    }});
    let opened = phone.sync().await;
    let more = &opened["rooms"][&room];
    assert_eq!(said(more), ["b", "c", "d"]);
    assert_eq!(more["unstable_expanded_timeline"], true);
    assert_eq!((&more["num_live"], &more["initial"]), (&json!(0), &Value::Null));
    assert_eq!(state(more), [[MEMBER, alice.user().as_str()], ["m.room.topic", ""]]);
    assert_eq!(phone.sync().await["rooms"], json!({}), "all of it was told");

    say(&bob, &room, "e").await;
    let news = phone.sync().await;
    assert_eq!(said(&news["rooms"][&room]), ["e"]);
    assert!(news["rooms"][&room]["required_state"].is_null(), "bob is known");

    // With a gap the client drops what it knows of members.
    for body in ["f", "g", "h", "i"] {
        say(&bob, &room, body).await;
    }
    let news = phone.sync().await;
    assert_eq!(said(&news["rooms"][&room]), ["g", "h", "i"]);
    assert_eq!(news["rooms"][&room]["limited"], true);
    assert_eq!(state(&news["rooms"][&room]), [[MEMBER, bob.user().as_str()]]);
}

#[tokio::test]
async fn stars_ask_for_all_state_and_lazily_for_all_but_members() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = create(&alice, json!({"preset": "public_chat", "name": "n"})).await;
    join(&bob, &room).await;
    let all = Connection::with_list(&alice, 9, &[["*", "*"]], 0).sync().await;
    let all = state(&all["rooms"][&room]).iter().map(|key| key.join("|")).collect::<Vec<_>>();
    assert!(
        all.contains(&format!("{MEMBER}|{}", bob.user().as_str()))
            && all.contains(&"m.room.name|".into())
    );
    let lazy = [["*", "*"], [MEMBER, "$LAZY"], [MEMBER, "$ME"]];
    let lazy = Connection::with_list(&alice, 9, &lazy, 0).sync().await;
    let lazy = state(&lazy["rooms"][&room]).iter().map(|key| key.join("|")).collect::<Vec<_>>();
    let others: Vec<_> =
        all.iter().filter(|key| !key.contains(bob.user().as_str())).cloned().collect();
    assert_eq!(lazy, others);
    let members = Connection::with_list(&alice, 9, &[[MEMBER, "*"]], 0).sync().await;
    assert_eq!(
        state(&members["rooms"][&room]),
        [[MEMBER, alice.user().as_str()], [MEMBER, bob.user().as_str()]]
    );
}

#[tokio::test]
async fn invitations_come_go_and_become_rooms() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut phone = Connection::with_list(&bob, 9, &[NAME], 5);
    assert_eq!(phone.sync().await["lists"]["all"]["count"], 0);
    let body = json!({"invite": [bob.user().as_str()], "name": "come"});
    let (room, other) = (create(&alice, body.clone()).await, create(&alice, body).await);
    let invited = phone.sync().await;
    assert_eq!(rooms(&invited), sorted(&[&room, &other]));
    let stripped = invited["rooms"][&room]["invite_state"].as_array().expect("state");
    assert!(stripped.iter().any(|event| event["content"]["name"] == "come"));
    assert!(invited["rooms"][&room]["timeline"].is_null());
    assert_eq!(phone.sync().await["rooms"], json!({}));

    join(&bob, &room).await;
    bob.post(&format!("{V3}/rooms/{other}/leave"), json!({})).await.ok();
    let news = phone.sync().await;
    let joined = &news["rooms"][&room];
    assert_eq!((&joined["initial"], &joined["name"]), (&json!(true), &json!("come")));
    let left = &news["rooms"][&other];
    assert_eq!(
        (&left["membership"], state(left)),
        (&json!("leave"), vec![[MEMBER, bob.user().as_str()]])
    );
    let next = phone.sync().await;
    assert_eq!((&next["rooms"], &next["lists"]["all"]["count"]), (&json!({}), &json!(1)));
}

#[tokio::test]
async fn who_leaves_is_told_once_and_who_is_removed_stays_told() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let body = json!({"preset": "public_chat"});
    let (kicked, left) = (create(&alice, body.clone()).await, create(&alice, body).await);
    join(&bob, &kicked).await;
    join(&bob, &left).await;
    let mut phone = Connection::with_list(&bob, 9, &[NAME], 5);
    phone.sync().await;
    say(&alice, &kicked, "bye").await;
    let out = json!({"user_id": bob.user().as_str()});
    alice.post(&format!("{V3}/rooms/{kicked}/kick"), out).await.ok();
    say(&alice, &kicked, "gone").await;
    bob.post(&format!("{V3}/rooms/{left}/leave"), json!({})).await.ok();
    let news = phone.sync().await;
    assert_eq!(rooms(&news), sorted(&[&kicked, &left]));
    assert_eq!(said(&news["rooms"][&kicked]), ["bye"], "and nothing after the kick");
    for room in [&kicked, &left] {
        let room = &news["rooms"][room];
        assert_eq!(
            (&room["membership"], state(room)),
            (&json!("leave"), vec![[MEMBER, bob.user().as_str()]])
        );
    }
    let kicked_room = &news["rooms"][&kicked];
    let inside = ["joined_count", "invited_count", "heroes", "notification_count"];
    assert!(inside.iter().all(|field| kicked_room[field].is_null()), "not theirs to know any more");
    say(&alice, &kicked, "still").await;
    assert_eq!(phone.sync().await["rooms"], json!({}));
    // Anew, only what others did is told.
    let mut anew = Connection::with_list(&bob, 9, &[NAME], 5);
    anew.body["conn_id"] = json!("anew");
    let anew = anew.sync().await;
    assert_eq!(rooms(&anew), [&kicked]);
    assert!(inside.iter().all(|field| anew["rooms"][&kicked][field].is_null()));
    join(&bob, &left).await;
    let back = phone.sync().await;
    assert_eq!((rooms(&back), &back["rooms"][&left]["initial"]), (vec![&*left], &json!(true)));
}

#[tokio::test]
async fn a_lost_response_is_told_again_and_a_forgotten_connection_says_so() {
    let (engine, config) = (Arc::new(MemoryEngine::new()), TestServer::config());
    let clock = TestClock::default();
    let server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
    let alice = server.register("alice").await;
    let room = create(&alice, json!({})).await;
    let mut phone = Connection::with_list(&alice, 9, &[NAME], 5);
    let mut other = Connection::with_list(&alice, 9, &[NAME], 5);
    other.body["conn_id"] = json!("other");
    phone.sync().await;
    other.sync().await;
    say(&alice, &room, "a").await;
    assert_eq!(said(&phone.lose(0).await["rooms"][&room]), ["a"]);
    say(&alice, &room, "b").await;
    assert_eq!(said(&phone.sync().await["rooms"][&room]), ["a", "b"]);
    assert_eq!(said(&other.sync().await["rooms"][&room]), ["a", "b"]);
    let old = other.pos.clone();
    other.sync().await;
    other.sync().await;
    other.pos = old;
    let refused = alice.post(&other.path(0), other.body.clone()).await;
    refused.refused(400, "M_UNKNOWN_POS");
    server.stop().await;
    let server = TestServer::start_on(engine, &config, clock).await;
    let refused = alice.on(&server).post(&phone.path(0), phone.body.clone()).await;
    refused.refused(400, "M_UNKNOWN_POS");
}

#[tokio::test]
async fn a_client_waits_for_what_it_asked_for_and_for_nothing_else() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let quiet = create(&alice, json!({"preset": "public_chat"})).await;
    let room = create(&alice, json!({"preset": "public_chat"})).await;
    join(&bob, &room).await;
    let mut phone = Connection::with_list(&bob, 0, &[NAME], 5);
    phone.sync().await;
    let waiting = async { phone.wait(30_000).await };
    let doing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Of no interest: bob did not ask for typing, and is not in the other room.
        let path = format!("{V3}/rooms/{room}/typing/{}", alice.user().as_str());
        alice.put(&path, json!({"typing": true, "timeout": 10_000})).await.ok();
        say(&alice, &quiet, "nothing").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(&alice, &room, "now").await;
    };
    let (news, ()) = tokio::join!(waiting, doing);
    assert_eq!(said(&news["rooms"][&room]), ["now"]);
    let empty = phone.wait(50).await;
    assert_eq!(empty["rooms"], json!({}));
}

#[tokio::test]
async fn filters_choose_rooms() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let encryption =
        json!([{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]);
    let encrypted = create(&alice, json!({"initial_state": encryption})).await;
    let plain = create(&alice, json!({})).await;
    let space = create(&alice, json!({"creation_content": {"type": "m.space"}})).await;
    let invited = create(&bob, json!({"invite": [alice.user().as_str()]})).await;
    let path = format!("{V3}/rooms/{space}/state/m.space.child/{plain}");
    alice.put(&path, json!({"via": ["test.example"]})).await.ok();
    let user = format!("{V3}/user/{}", alice.user().as_str());
    let direct = json!({bob.user().as_str(): [&encrypted]});
    alice.put(&format!("{user}/account_data/m.direct"), direct).await.ok();
    alice.put(&format!("{user}/rooms/{plain}/tags/m.favourite"), json!({})).await.ok();
    for (filters, wanted) in [
        (json!({"is_dm": true}), vec![&encrypted]),
        (json!({"is_dm": false}), vec![&plain, &space, &invited]),
        (json!({"is_encrypted": true}), vec![&encrypted]),
        (json!({"is_invite": true}), vec![&invited]),
        (json!({"is_invite": false, "is_encrypted": false}), vec![&plain, &space]),
        (json!({"room_types": ["m.space"]}), vec![&space]),
        (json!({"not_room_types": ["m.space"]}), vec![&encrypted, &plain, &invited]),
        (json!({"room_types": [null], "is_invite": false}), vec![&encrypted, &plain]),
        (json!({"tags": ["m.favourite"]}), vec![&plain]),
        (json!({"not_tags": ["m.favourite"], "is_invite": false}), vec![&encrypted, &space]),
        (json!({"spaces": [&space]}), vec![&plain]),
        (json!({"spaces": [&invited]}), vec![]),
    ] {
        let mut phone = Connection::with_list(&alice, 9, &[NAME], 1);
        phone.body["lists"]["all"]["filters"] = filters.clone();
        let response = phone.sync().await;
        assert_eq!(rooms(&response), sorted(&wanted), "{filters}");
        assert_eq!(response["lists"]["all"]["count"], wanted.len(), "{filters}");
    }
    let mut phone = Connection::with_list(&alice, 9, &[NAME], 1);
    let response = phone.sync().await;
    assert_eq!(response["rooms"][&encrypted]["is_dm"], true);
    assert!(response["rooms"][&plain]["is_dm"].is_null());
}

#[tokio::test]
async fn messages_to_the_device_wait_until_they_are_acknowledged() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let extension = json!({"to_device": {"enabled": true, "limit": 2}});
    let mut phone =
        Connection::new(&bob, json!({"conn_id": "encryption", "extensions": extension}));
    let empty = phone.sync().await;
    assert_eq!(empty["extensions"]["to_device"]["events"], json!([]));
    for n in 0..3 {
        let body = json!({"messages": {bob.user().as_str(): {bob.device(): {"n": n}}}});
        alice.put(&format!("{V3}/sendToDevice/org.example.x/{n}"), body).await.ok();
    }
    let numbers = |response: &Value| -> Vec<u64> {
        let events = response["extensions"]["to_device"]["events"].as_array().into_iter().flatten();
        events.filter_map(|event| event["content"]["n"].as_u64()).collect()
    };
    let first = phone.sync().await;
    assert_eq!(numbers(&first), [0, 1]);
    assert_eq!(numbers(&phone.sync().await), [0, 1], "they were not acknowledged");
    phone.body["extensions"]["to_device"]["since"] =
        first["extensions"]["to_device"]["next_batch"].clone();
    let rest = phone.sync().await;
    assert_eq!(numbers(&rest), [2]);
    phone.body["extensions"]["to_device"]["since"] =
        rest["extensions"]["to_device"]["next_batch"].clone();
    assert_eq!(numbers(&phone.sync().await), [0; 0]);
    phone.body["extensions"]["to_device"]["since"] = json!("nonsense");
    let refused = bob.post(&phone.path(0), phone.body.clone()).await;
    refused.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn extensions_tell_of_account_data_receipts_typing_and_devices() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = create(&alice, json!({"preset": "public_chat"})).await;
    let (user, in_room) =
        (format!("{V3}/user/{}", bob.user().as_str()), format!("{V3}/rooms/{room}"));
    bob.put(&format!("{user}/account_data/org.example.x"), json!({"v": 1})).await.ok();
    let mut phone = Connection::with_list(&bob, 9, &[NAME], 5);
    let on = json!({"enabled": true});
    phone.body["extensions"] =
        json!({"account_data": on, "receipts": on, "typing": on, "e2ee": on});
    let first = phone.sync().await["extensions"].clone();
    let global = first["account_data"]["global"].as_array().expect("account data");
    assert!(global.iter().any(|event| event["content"] == json!({"v": 1})));
    assert!(global.iter().any(|event| event["type"] == "m.push_rules"));
    assert!(first["e2ee"]["device_one_time_keys_count"].is_object());
    assert!(first["receipts"].is_null() && first["typing"].is_null());

    join(&bob, &room).await;
    let event = say(&alice, &room, "a").await;
    alice.post(&format!("{in_room}/receipt/m.read/{event}"), json!({})).await.ok();
    let typing = json!({"typing": true, "timeout": 20_000});
    alice.put(&format!("{in_room}/typing/{}", alice.user().as_str()), typing).await.ok();
    bob.put(&format!("{user}/rooms/{room}/tags/u.x"), json!({})).await.ok();
    let news = phone.sync().await;
    assert_eq!(
        (&news["rooms"][&room]["notification_count"], &news["rooms"][&room]["highlight_count"]),
        (&json!(1), &json!(0))
    );
    let extensions = &news["extensions"];
    let receipt = &extensions["receipts"]["rooms"][&room];
    assert!(receipt["content"][&event]["m.read"][alice.user().as_str()]["ts"].is_u64());
    let typing = &extensions["typing"]["rooms"][&room]["content"];
    assert_eq!(typing, &json!({"user_ids": [alice.user().as_str()]}));
    assert_eq!(extensions["account_data"]["rooms"][&room][0]["type"], "m.tag");
    let changed = extensions["e2ee"]["device_lists"]["changed"].as_array().expect("users");
    assert!(changed.contains(&json!(alice.user().as_str())));

    bob.post(&format!("{in_room}/receipt/m.read/{event}"), json!({})).await.ok();
    let news = phone.sync().await;
    assert_eq!(news["rooms"][&room]["notification_count"], 0);
    assert!(news["rooms"][&room]["timeline"].is_null());
    let receipt = &news["extensions"]["receipts"]["rooms"][&room];
    assert!(receipt["content"][&event]["m.read"][bob.user().as_str()]["ts"].is_u64());
    let quiet = phone.sync().await;
    assert_eq!(quiet["rooms"], json!({}));
    assert!(
        ["account_data", "receipts", "typing"].iter().all(|one| quiet["extensions"][one].is_null())
    );

    // What comes while they are off is told when they are on again.
    let extensions = std::mem::replace(&mut phone.body["extensions"], json!({}));
    phone.sync().await;
    let event = say(&alice, &room, "meanwhile").await;
    alice.post(&format!("{in_room}/receipt/m.read/{event}"), json!({})).await.ok();
    bob.put(&format!("{user}/account_data/org.example.x"), json!({"v": 2})).await.ok();
    bob.put(&format!("{user}/rooms/{room}/account_data/org.example.y"), json!({"v": 3})).await.ok();
    assert!(phone.sync().await["extensions"] == json!({}));
    phone.body["extensions"] = extensions;
    let news = phone.sync().await["extensions"].clone();
    assert!(
        news["receipts"]["rooms"][&room]["content"][&event]["m.read"][alice.user().as_str()]
            .is_object()
    );
    let global = news["account_data"]["global"].as_array().expect("account data");
    assert!(global.iter().any(|event| event["content"] == json!({"v": 2})));
    let of_room = news["account_data"]["rooms"][&room].as_array().expect("account data");
    assert!(of_room.iter().any(|event| event["type"] == "org.example.y"));

    // Only of the rooms that are open.
    phone.body["extensions"]["receipts"] = json!({"enabled": true, "lists": [], "rooms": ["*"]});
    let event = say(&alice, &room, "b").await;
    alice.post(&format!("{in_room}/receipt/m.read/{event}"), json!({})).await.ok();
    assert!(phone.sync().await["extensions"]["receipts"].is_null());
    phone.body["room_subscriptions"] = json!({&room: {"timeline_limit": 5, "required_state": []}});
    let news = phone.sync().await;
    let receipt = &news["extensions"]["receipts"]["rooms"][&room]["content"];
    assert!(receipt[&event]["m.read"][alice.user().as_str()]["ts"].is_u64());
}

#[tokio::test]
async fn threads_that_are_followed_come_with_it_and_in_pages() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = create(&alice, json!({})).await;
    let extension =
        json!({"io.element.msc4308.thread_subscriptions": {"enabled": true, "limit": 2}});
    let mut phone = Connection::new(&alice, json!({"extensions": extension}));
    let before = phone.sync().await;
    assert_eq!(before["extensions"], json!({}));
    let below = format!("/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread");
    let mut roots = Vec::new();
    for body in ["a", "b", "c"] {
        let root = say(&alice, &room, body).await;
        alice.put(&format!("{below}/{root}/subscription"), json!({})).await.ok();
        roots.push(root);
    }
    alice.delete(&format!("{below}/{}/subscription", roots[2]), json!({})).await.ok();
    let news = phone.sync().await;
    let told = &news["extensions"]["io.element.msc4308.thread_subscriptions"];
    assert_eq!(told["subscribed"][&room][&roots[1]]["automatic"], false);
    assert!(told["subscribed"][&room][&roots[1]]["bump_stamp"].is_u64());
    assert!(told["unsubscribed"][&room][&roots[2]]["bump_stamp"].is_u64());
    assert!(told["subscribed"][&room][&roots[0]].is_null());
    let (from, to) = (text(&told["prev_batch"]), text(&before["pos"]));
    let rest = alice.get(&format!("{THREADS}?dir=b&from={from}&to={to}")).await.ok();
    assert_eq!(rest["subscribed"][&room].as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(rest["subscribed"][&room][&roots[0]]["automatic"], false);
    assert!(rest["end"].is_null());
    let page = alice.get(&format!("{THREADS}?dir=b&limit=1")).await.ok();
    assert!(page["unsubscribed"][&room][&roots[2]].is_object() && page["end"].is_string());
    assert_eq!(phone.sync().await["extensions"], json!({}));
    alice.get(&format!("{THREADS}?dir=b&from=x")).await.refused(400, "M_INVALID_PARAM");
    alice.get(THREADS).await.refused(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let list = json!({"ranges": [[5, 2]], "timeline_limit": 1, "required_state": []});
    for (body, errcode) in [
        (json!({"lists": {"a": list}}), "M_INVALID_PARAM"),
        (json!({"lists": []}), "M_BAD_JSON"),
        (json!({"lists": {"a": {"ranges": [[0]]}}}), "M_BAD_JSON"),
        (json!({"conn_id": "x".repeat(300)}), "M_INVALID_PARAM"),
        (json!({"lists": {"a": {"required_state": vec![NAME; 501]}}}), "M_INVALID_PARAM"),
        (json!({"room_subscriptions": {"nonsense": {}}}), "M_BAD_JSON"),
    ] {
        alice.post(SYNC, body).await.refused(400, errcode);
    }
    alice.post(&format!("{SYNC}?pos=nonsense"), json!({})).await.refused(400, "M_UNKNOWN_POS");
    let nobody = server.client();
    nobody.post(SYNC, json!({})).await.refused(401, "M_MISSING_TOKEN");
    let unknown = json!({"room_subscriptions": {"!x:test.example": {"timeline_limit": 1}}});
    assert_eq!(alice.post(SYNC, unknown).await.ok()["rooms"], json!({}));
}
