//! `/sync` as clients use it: what comes again when a response was lost, and in which form.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::time::Duration;

use millrace_test_support::{Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// A user who syncs under a stored filter.
struct Follower {
    client: Client,
    filter: String,
}

impl Follower {
    async fn new(client: &Client, filter: Value) -> Self {
        let path = format!("{V3}/user/{}/filter", client.user());
        let made = client.post(&path, filter).await.ok();
        Self { client: client.clone(), filter: text(&made["filter_id"]) }
    }

    /// What is answered at once; an initial sync where `since` is empty.
    async fn sync(&self, since: &str) -> Value {
        self.wait(since, Duration::ZERO).await
    }

    async fn wait(&self, since: &str, timeout: Duration) -> Value {
        let (filter, timeout) = (&self.filter, timeout.as_millis());
        let since = if since.is_empty() { String::new() } else { format!("&since={since}") };
        let path = format!("{V3}/sync?filter={filter}&timeout={timeout}{since}");
        self.client.get(&path).await.ok()
    }
}

fn next(answer: &Value) -> String {
    text(&answer["next_batch"])
}

async fn make_room(server: &TestServer, members: &[&str]) -> (Vec<Client>, String) {
    let mut clients = Vec::new();
    for name in members {
        clients.push(server.register(name).await);
    }
    let new = json!({ "preset": "public_chat" });
    let room = clients[0].post(&format!("{V3}/createRoom"), new).await.ok();
    let room = text(&room["room_id"]);
    for client in &clients[1..] {
        client.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    }
    (clients, room)
}

async fn say(client: &Client, room: &str, body: &str) {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{body}");
    client.put(&path, json!({ "msgtype": "m.text", "body": body })).await.ok();
}

/// The local parts of the members of whom a sync's state tells.
fn members(answer: &Value, room: &str) -> Vec<String> {
    let state = list(&answer["rooms"]["join"][room]["state"]["events"]);
    let members = state.iter().filter(|event| event["type"] == "m.room.member");
    let mut names: Vec<String> = members
        .map(|event| text(&event["state_key"]))
        .map(|user| user[1..].split(':').next().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn members_are_told_again_to_who_repeats_a_token_and_not_to_who_comes_back() {
    let server = TestServer::start().await;
    let (users, room) = make_room(&server, &["alice", "bob", "carol"]).await;
    let lazy = json!({"room": {
        "timeline": {"limit": 2}, "state": {"lazy_load_members": true}, "ephemeral": {"types": []},
    }});
    let alice = Follower::new(&users[0], lazy).await;
    say(&users[0], &room, "0").await;
    say(&users[0], &room, "1").await;
    let first = alice.sync("").await;
    assert_eq!(members(&first, &room), ["alice"]);
    say(&users[1], &room, "2").await;
    let lost = alice.sync(&next(&first)).await;
    let repeated = alice.sync(&next(&first)).await;
    for answer in [&lost, &repeated] {
        assert_eq!(members(answer, &room), ["bob"], "{answer}");
    }
    say(&users[1], &room, "3").await;
    say(&users[2], &room, "4").await;
    let third = alice.sync(&next(&repeated)).await;
    assert_eq!(members(&third, &room), ["carol"], "bob is known by now");
    let late = alice.sync(&next(&first)).await;
    assert_eq!(members(&late, &room), ["alice", "bob", "carol"], "there is a gap now");
    say(&users[1], &room, "5").await;
    let fourth = alice.sync(&next(&late)).await;
    assert!(members(&fourth, &room).is_empty(), "{fourth}");
}

#[tokio::test]
async fn messages_to_a_device_come_a_hundred_at_a_time_in_order_and_exactly_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let bob = Follower::new(&bob, json!({})).await;
    let begin = next(&bob.sync("").await);
    for n in 0..250 {
        let messages = json!({"messages": {bob.client.user(): {bob.client.device(): {"n": n}}}});
        alice.put(&format!("{V3}/sendToDevice/t/{n}"), messages).await.ok();
    }
    let numbers = |answer: &Value| -> Vec<u64> {
        let events = list(&answer["to_device"]["events"]);
        events.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect()
    };
    let (mut since, mut found) = (begin, Vec::new());
    while found.len() < 250 {
        let lost = bob.sync(&since).await;
        let minute = Duration::from_secs(60);
        let answer = tokio::time::timeout(minute / 2, bob.wait(&since, minute)).await;
        let answer = answer.expect("while some are left, nobody waits");
        assert_eq!(numbers(&lost), numbers(&answer), "the same to who repeats a token");
        assert!(numbers(&answer).len() <= 100);
        found.extend(numbers(&answer));
        since = next(&answer);
    }
    assert_eq!(found, (0..250).collect::<Vec<_>>());
    let last = bob.sync(&since).await;
    assert!(numbers(&last).is_empty());
    assert!(numbers(&bob.sync("").await).is_empty(), "acknowledged, so they are deleted");
    let messages = json!({"messages": {bob.client.user(): {"*": {"n": 250}}}});
    alice.put(&format!("{V3}/sendToDevice/t/250"), messages).await.ok();
    assert_eq!(numbers(&bob.sync(&next(&last)).await), [250]);
}

#[tokio::test]
async fn a_filter_chooses_the_fields_and_the_format_of_events() {
    let server = TestServer::start().await;
    let (users, room) = make_room(&server, &["alice", "bob"]).await;
    let secret = format!("{V3}/rooms/{room}/send/m.room.message/secret");
    let sent = users[0].put(&secret, json!({"msgtype": "m.text", "body": "secret"})).await.ok();
    let redact = format!("{V3}/rooms/{room}/redact/{}/1", text(&sent["event_id"]));
    users[0].put(&redact, json!({})).await.ok();
    say(&users[0], &room, "hello").await;
    let fields = json!({"event_fields": ["content.body", "type"]});
    let answer = Follower::new(&users[1], fields).await.sync("").await;
    let timeline = list(&answer["rooms"]["join"][&room]["timeline"]["events"]);
    let newest = timeline.last().unwrap();
    assert_eq!(*newest, json!({"content": {"body": "hello"}, "type": "m.room.message"}));

    let raw = json!({"event_format": "federation", "room": {"timeline": {"limit": 3}}});
    let raw = Follower::new(&users[1], raw).await;
    let answer = raw.sync("").await;
    let joined = &answer["rooms"]["join"][&room];
    let (timeline, state) = (list(&joined["timeline"]["events"]), list(&joined["state"]["events"]));
    assert!(!state.is_empty());
    for event in timeline.iter().chain(&state) {
        assert!(event["hashes"]["sha256"].is_string(), "{event}");
        assert!(event["prev_events"].is_array() && event["signatures"]["test"].is_object());
        assert!(event["event_id"].is_string() && event["unsigned"]["age"].is_u64());
    }
    let gone = timeline.iter().find(|event| event["event_id"] == sent["event_id"]).unwrap();
    assert_eq!(gone["content"], json!({}), "redacted in this format too");
    users[1].post(&format!("{V3}/rooms/{room}/leave"), json!({})).await.ok();
    let left = &raw.sync(&next(&answer)).await["rooms"]["leave"][&room];
    assert!(list(&left["timeline"]["events"])[0]["hashes"].is_object(), "{left}");
}

#[tokio::test]
async fn every_initial_sync_tells_what_came_since_the_one_before() {
    let server = TestServer::start().await;
    let (users, room) = make_room(&server, &["alice", "bob"]).await;
    let follower = Follower::new(&users[1], json!({"room": {"timeline": {"limit": 3}}})).await;
    let whole = Follower::new(&users[1], json!({"room": {"timeline": {"limit": 50}}})).await;
    for turn in ["one", "two", "three", "four"] {
        let path = format!("{V3}/rooms/{room}/send/m.room.message/{turn}");
        let sent = users[0].put(&path, json!({ "msgtype": "m.text", "body": turn })).await.ok();
        for follower in [&follower, &whole, &follower] {
            let answer = follower.sync("").await;
            let timeline = list(&answer["rooms"]["join"][&room]["timeline"]["events"]);
            assert_eq!(timeline.last().unwrap()["content"]["body"], turn);
        }
        let receipt = format!("{V3}/rooms/{room}/receipt/m.read/{}", text(&sent["event_id"]));
        users[0].post(&receipt, json!({})).await.ok();
        let ephemeral = &follower.sync("").await["rooms"]["join"][&room]["ephemeral"]["events"];
        let read = &ephemeral[0]["content"][text(&sent["event_id"])]["m.read"];
        assert!(read[users[0].user().as_str()].is_object(), "{ephemeral}");
    }
    let answer = follower.sync("").await;
    let timeline = &answer["rooms"]["join"][&room]["timeline"];
    assert_eq!((list(&timeline["events"]).len(), &timeline["limited"]), (3, &json!(true)));
    let answer = whole.sync("").await;
    let timeline = &answer["rooms"]["join"][&room]["timeline"];
    assert_eq!(list(&timeline["events"])[0]["type"], "m.room.create");
    assert_eq!(timeline["limited"], false);
}

#[tokio::test]
async fn who_gives_up_their_account_types_no_more() {
    let server = TestServer::start().await;
    let (users, room) = make_room(&server, &["alice", "bob"]).await;
    let types = format!("{V3}/rooms/{room}/typing/{}", users[1].user());
    users[1].put(&types, json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let typing = async || {
        let answer = Follower::new(&users[0], json!({})).await.sync("").await;
        list(&answer["rooms"]["join"][&room]["ephemeral"]["events"])
    };
    assert_eq!(typing().await[0]["content"]["user_ids"], json!([users[1].user()]));
    let identifier = json!({ "type": "m.id.user", "user": "bob" });
    let auth =
        json!({ "type": "m.login.password", "identifier": identifier, "password": "password" });
    users[1].post(&format!("{V3}/account/deactivate"), json!({ "auth": auth })).await.ok();
    assert_eq!(typing().await, Vec::<Value>::new());
}
