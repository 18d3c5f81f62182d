//! Rooms whose events a policy server has to vouch for: ours are sent with its signature or not at
//! all, those of others fail softly without.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use millrace_model::{
    Pdu,
    rules::{room_version, signing_key::ServerSigningKey},
};
use millrace_test_support::{
    Answer, Asked, Client, FakeAnswer, FakeRoom, FakeServer, Network, TestServer,
};
use ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId, signatures};
use serde_json::{Value, json};

const SIGN: &str = "/_matrix/policy/v1/sign";
const KEY_ID: &str = "ed25519:policy_server";

/// A server under test with a room of alice's, and a policy server that is in the room.
struct World {
    network: Network,
    one: TestServer,
    alice: Client,
    guard: FakeServer,
    room: String,
}

fn policy_key() -> ServerSigningKey {
    ServerSigningKey::new("policy_server", &[9; 32]).unwrap()
}

fn policy(via: &str) -> Value {
    json!({ "via": via, "public_keys": { "ed25519": policy_key().public_base64() } })
}

/// What a policy server answers that vouches for everything.
fn vouch(asked: &Asked) -> FakeAnswer {
    let rules = room_version::rules(&RoomVersionId::V11).unwrap();
    let mut event: CanonicalJsonObject = serde_json::from_value(asked.body.clone()).unwrap();
    event.remove("signatures");
    signatures::sign_event("guard", &policy_key(), &mut event, &rules.redaction).unwrap();
    let event = serde_json::to_value(event).unwrap();
    FakeAnswer::Json(json!({ "guard": { KEY_ID: event["signatures"]["guard"][KEY_ID] } }))
}

fn refusal() -> FakeAnswer {
    FakeAnswer::Status(400, json!({ "errcode": "M_FORBIDDEN", "error": "this looks like spam" }))
}

impl World {
    async fn new() -> Self {
        let network = Network::default();
        let mut config = TestServer::config();
        config.rooms.default_room_version = "11".to_owned();
        let one = TestServer::start_in_with(&network, "one", config).await;
        let alice = one.register("alice").await;
        let body = json!({ "preset": "public_chat" });
        let created = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
        let room = created["room_id"].as_str().unwrap().to_owned();
        let guard = FakeServer::start(&network, "guard");
        guard.on(SIGN, |asked| Some(vouch(asked)));
        let world = Self { network, one, alice, guard, room };
        world.join(&world.guard, "watcher").await;
        world.set("m.room.policy", policy("guard")).await.ok();
        world
    }

    async fn join(&self, server: &FakeServer, user: &str) -> (FakeRoom, Pdu) {
        let room = FakeRoom::of(&self.one, &self.room).await;
        let join = room.join(server, &server.user(user), &[&room.newest]);
        self.receive(server, &join).await;
        (room, join)
    }

    async fn receive(&self, server: &FakeServer, pdu: &Pdu) {
        let results = server.send(&self.one, &[pdu], &[]).await.ok();
        assert_eq!(results["pdus"][pdu.event_id.as_str()], json!({}), "{results}");
        self.one.inbound.idle().await;
    }

    fn path(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/rooms/{}/{rest}", self.room)
    }

    async fn set(&self, kind: &str, content: Value) -> Answer {
        self.alice.put(&self.path(&format!("state/{kind}/")), content).await
    }

    async fn say(&self, text: &str) -> Answer {
        let path = self.path(&format!("send/m.room.message/{}", text.replace(' ', "-")));
        self.alice.put(&path, json!({ "msgtype": "m.text", "body": text })).await
    }

    /// What messages of the room say, the newest first.
    async fn heard(&self) -> Vec<String> {
        let page = self.alice.get(&self.path("messages?dir=b&limit=100")).await.ok();
        let events = page["chunk"].as_array().unwrap().iter();
        let messages = events.filter(|event| event["type"] == "m.room.message");
        messages.filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())).collect()
    }

    /// An event as the server stores it.
    async fn stored(&self, event: &str) -> Value {
        use millrace_store::{
            Read,
            tables::{EVENT_NUMBERS, EVENTS},
        };
        let room = OwnedRoomId::try_from(self.room.as_str()).unwrap();
        let id = ruma::OwnedEventId::try_from(event).unwrap();
        let snapshot = self.one.env.store.snapshot();
        let number = snapshot.get(&EVENT_NUMBERS, &room, &id).await.unwrap().unwrap();
        let text = snapshot.get(&EVENTS, &room, number).await.unwrap().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn asked(&self) -> usize {
        self.guard.asked(SIGN).len()
    }
}

#[tokio::test]
async fn events_of_ours_bear_the_signature_of_the_rooms_policy_server() {
    let world = World::new().await;
    assert_eq!(world.asked(), 0, "the policy itself needs no signature");
    let sent = world.say("hello").await.ok();
    let stored = world.stored(sent["event_id"].as_str().unwrap()).await;
    assert!(stored["signatures"]["guard"][KEY_ID].is_string(), "{stored}");
    assert!(stored["signatures"]["one"].is_object());
    let asked = &world.guard.asked(SIGN)[0];
    assert_eq!(asked.body["content"]["body"], "hello");
    world.say("hello").await.ok();
    assert_eq!(world.asked(), 1, "a repeated request sends nothing");
    world.set("m.room.topic", json!({ "topic": "all is asked" })).await.ok();
    let redact = world.path(&format!("redact/{}/1", sent["event_id"].as_str().unwrap()));
    world.alice.put(&redact, json!({})).await.ok();
    world.alice.post(&world.path("invite"), json!({ "user_id": "@nobody:one" })).await;
    let bob = world.one.register("bob").await;
    bob.post(&world.path("join"), json!({})).await.ok();
    world.alice.post(&world.path("kick"), json!({ "user_id": "@bob:one" })).await.ok();
    let kinds: Vec<_> =
        world.guard.asked(SIGN).iter().map(|asked| asked.body["type"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "m.room.member").count(), 3, "{kinds:?}");
    assert!(kinds.contains(&json!("m.room.topic")) && kinds.contains(&json!("m.room.redaction")));
}

#[tokio::test]
async fn what_the_policy_server_refuses_is_not_sent_and_its_words_are_passed_on() {
    let world = World::new().await;
    world.guard.on(SIGN, |asked| {
        let spam = asked.body["content"]["body"].as_str().is_some_and(|text| text.contains("spam"));
        spam.then(refusal)
    });
    let refused = world.say("spam").await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.body["errcode"], "M_FORBIDDEN");
    assert_eq!(refused.body["error"], "this looks like spam");
    world.say("fine").await.ok();
    assert_eq!(world.heard().await, ["fine"]);
}

#[tokio::test]
async fn a_room_whose_policy_server_is_gone_is_freed_by_changing_its_policy() {
    let world = World::new().await;
    world.network.leave("guard");
    let refused = world.say("to nobody").await;
    assert_eq!(refused.status, 502, "{:?}", refused.body);
    world.set("m.room.policy", json!({})).await.ok();
    world.say("free").await.ok();
    assert_eq!(world.heard().await, ["free"]);
}

#[tokio::test]
async fn a_server_without_a_user_in_the_room_or_a_key_is_no_policy_server() {
    let world = World::new().await;
    let _stranger = FakeServer::start(&world.network, "stranger");
    let keyless = json!({ "via": "guard", "public_keys": { "other": "AAAA" } });
    for (n, useless) in [policy("stranger"), keyless, json!({ "via": 3 })].into_iter().enumerate() {
        world.set("m.room.policy", useless).await.ok();
        world.say(&format!("m{n}")).await.ok();
    }
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_signature_with_another_key_does_not_count() {
    let world = World::new().await;
    let other = ServerSigningKey::new("policy_server", &[8; 32]).unwrap();
    let key = json!({ "ed25519": other.public_base64() });
    world.set("m.room.policy", json!({ "via": "guard", "public_keys": key })).await.ok();
    assert_eq!(world.say("unsigned").await.status, 502);
    assert!(world.heard().await.is_empty());
}

#[tokio::test]
async fn events_of_others_are_asked_about_once_and_fail_softly_where_they_are_refused() {
    let world = World::new().await;
    let far = FakeServer::start(&world.network, "far");
    let (room, bob) = world.join(&far, "bob").await;
    assert_eq!(world.asked(), 1, "the joining was not signed");
    let fine = room.say(&far, &bob, &[&bob], "fine");
    world.receive(&far, &fine).await;
    let stored = world.stored(fine.event_id.as_str()).await;
    assert!(stored["signatures"]["guard"][KEY_ID].is_string(), "others get it with the signature");
    world.guard.answers(SIGN, refusal());
    let spam = room.say(&far, &bob, &[&fine], "spam");
    world.receive(&far, &spam).await;
    assert_eq!(world.asked(), 3);
    // With the signature nobody is asked.
    let mut signed = room.say(&far, &bob, &[&spam], "signed").to_canonical().unwrap();
    let before = signed["signatures"].clone();
    signatures::sign_event("guard", &policy_key(), &mut signed, &room.rules.redaction).unwrap();
    assert_ne!(before, signed["signatures"]);
    let signed = Pdu::from_canonical(&signed, room.rules).unwrap();
    world.receive(&far, &signed).await;
    assert_eq!(world.asked(), 3);
    assert_eq!(world.heard().await, ["signed", "fine"]);
}

#[tokio::test]
async fn a_policy_server_that_is_down_holds_up_no_room() {
    let world = World::new().await;
    let far = FakeServer::start(&world.network, "far");
    let (room, bob) = world.join(&far, "bob").await;
    world.guard.answers(SIGN, FakeAnswer::Never);
    tokio::time::pause();
    let mut last = bob.clone();
    for n in 0..20 {
        last = room.say(&far, &bob, &[&last], &format!("m{n}"));
        world.receive(&far, &last).await;
    }
    assert_eq!(world.asked(), 2, "after it did not answer once, it is left alone for a while");
    assert!(world.heard().await.is_empty());
}

#[tokio::test]
async fn a_room_with_a_policy_server_is_upgraded() {
    for version in ["11", "12"] {
        let world = World::new().await;
        let upgrade = json!({ "new_version": version });
        let upgraded = world.alice.post(&world.path("upgrade"), upgrade).await.ok();
        let path = world.path("state/m.room.tombstone/");
        let tombstone = world.alice.get(&path).await.ok();
        assert_eq!(tombstone["replacement_room"], upgraded["replacement_room"]);
        assert!(world.asked() > 0);
    }
}
