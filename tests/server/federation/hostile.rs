//! Servers that lie, flood and stall: what they send is refused and logged once, what they are asked
//! costs little, and what others say arrives all the same.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
};

use millrace_model::Pdu;
use millrace_store::{
    Read,
    tables::{EVENT_NUMBERS, ROOM_HEAD},
};
use millrace_test_support::{
    Client, FakeAnswer, FakeEvent, FakeRoom, FakeServer, Network, TestServer, wire,
};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

/// What the tests of this file log, all together.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn get() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let filter = tracing_subscriber::EnvFilter::new("info");
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).init();
            log
        })
    }

    /// How many lines say something.
    fn lines_with(&self, text: &str) -> usize {
        let log = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

/// A server under test with a room of alice's, in which two other servers have somebody.
struct World {
    one: TestServer,
    alice: Client,
    far: FakeServer,
    near: FakeServer,
    room: FakeRoom,
    bob: Pdu,
    nina: Pdu,
}

impl World {
    async fn new() -> Self {
        Log::get();
        let network = Network::default();
        let mut config = TestServer::config();
        config.inbound.answer_timeout_s = 1;
        config.inbound.queue_events_max = 1000;
        let one = TestServer::start_in_with(&network, "one", config).await;
        let alice = one.register("alice").await;
        let body = json!({ "preset": "public_chat" });
        let created = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
        let id = created["room_id"].as_str().unwrap();
        let (far, near) = (FakeServer::start(&network, "far"), FakeServer::start(&network, "near"));
        let room = FakeRoom::of(&one, id).await;
        let bob = room.join(&far, &far.user("bob"), &[&room.newest]);
        let nina = room.join(&near, &near.user("nina"), &[&bob]);
        far.send(&one, &[&bob], &[]).await.ok();
        near.send(&one, &[&nina], &[]).await.ok();
        one.inbound.idle().await;
        Self { one, alice, far, near, room, bob, nina }
    }

    fn say(&self, prev: &[&Pdu], text: &str) -> Pdu {
        self.room.say(&self.far, &self.bob, prev, text)
    }

    async fn heard(&self) -> Vec<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/messages?dir=b&limit=1000", self.room.id);
        let page = self.alice.get(&path).await.ok();
        let events = page["chunk"].as_array().unwrap().iter();
        let messages = events.filter(|event| event["type"] == "m.room.message");
        messages.map(|event| event["content"]["body"].as_str().unwrap_or("?").to_owned()).collect()
    }

    async fn ends(&self) -> usize {
        let snapshot = self.one.env.store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, &self.room.id, ()).await.unwrap().unwrap();
        head.extremities.len()
    }
}

/// Arrays within each other.
fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn what_is_forged_too_large_or_malformed_is_refused_and_logged_once() {
    let world = World::new().await;
    let (far, room) = (&world.far, &world.room);
    let honest = || wire(&world.say(&[&world.nina], "forged"));
    let changed = |field: &str, value: Value| {
        let mut event = honest();
        event[field] = value;
        event
    };
    let content = |content: Value| {
        let kind = FakeEvent {
            sender: &world.bob.sender,
            kind: "m.room.message",
            state_key: None,
            content,
            prev: &[&world.nina],
            auth: &room.auth(&world.bob),
        };
        wire(&far.event(room, kind))
    };
    let large = {
        // As large as it can be made, and then a little more, which the hash covers.
        let mut event = content(json!({ "body": "x".repeat(64_000) }));
        event["more"] = json!("x".repeat(2_000));
        event
    };
    let many: Vec<String> = (0..21).map(|n| format!("$event{n}")).collect();
    let cases = [
        ("a signature of nobody", changed("signatures", json!({})), "is not signed by far"),
        (
            "a wrong signature",
            changed("signatures", json!({ "far": { "ed25519:fake": "A".repeat(86) } })),
            "does not hold",
        ),
        (
            "a sender of another server",
            changed("sender", json!("@nina:near")),
            "not signed by near",
        ),
        ("too many bytes", large, "at most 65535 are allowed"),
        ("too many predecessors", changed("prev_events", json!(many)), "at most 20 are allowed"),
        ("a long type", changed("type", json!("t".repeat(256))), "at most 255 are allowed"),
        ("no depth", changed("depth", Value::Null), ""),
    ];
    for (n, (name, event, reason)) in cases.into_iter().enumerate() {
        let before = Log::get().lines_with("events of other servers are refused");
        let answer = far.send_as(&world.one, &format!("forged{n}"), &[event], &[]).await.ok();
        let results = answer["pdus"].as_object().unwrap();
        let taken = results.values().any(|result| result["error"].is_null());
        assert!(!taken, "{name}: {answer}");
        if !results.is_empty() {
            assert!(answer.to_string().contains(reason), "{name}: {answer}");
        }
        let after = Log::get().lines_with("events of other servers are refused");
        assert_eq!(after - before, 1, "{name} is logged once");
    }
    let too_deep = changed("content", json!({ "x": deep(110) }));
    let answer = far.send_as(&world.one, "deep", &[too_deep], &[]).await;
    assert_eq!(answer.status, 400, "{:?}", answer.body);
    world.one.inbound.idle().await;
    assert!(world.heard().await.is_empty());
    let fine = world.say(&[&world.nina], "fine");
    far.send(&world.one, &[&fine], &[]).await.ok();
    world.one.inbound.idle().await;
    assert_eq!(world.heard().await, ["fine"]);
}

#[tokio::test]
async fn of_an_event_whose_content_was_changed_only_what_redaction_leaves_is_taken() {
    let world = World::new().await;
    let mut event = wire(&world.say(&[&world.nina], "true"));
    event["content"]["body"] = json!("false");
    let answer = world.far.send_as(&world.one, "changed", &[event], &[]).await.ok();
    let (id, _) = answer["pdus"].as_object().unwrap().iter().next().unwrap();
    world.one.inbound.idle().await;
    let path = format!("/_matrix/client/v3/rooms/{}/event/{id}", world.room.id);
    assert_eq!(world.alice.get(&path).await.ok()["content"], json!({}));
}

#[tokio::test]
async fn a_server_whose_events_lack_what_comes_before_them_does_not_hold_up_others() {
    let world = World::new().await;
    let missing = json!({ "errcode": "M_NOT_FOUND", "error": "no" });
    for server in [&world.far, &world.near] {
        server.answers("get_missing_events", FakeAnswer::Status(404, missing.clone()));
    }
    let lost = world.say(&[&world.nina], "lost");
    for _ in 0..4 {
        let flood: Vec<Pdu> = (0..50).map(|n| world.say(&[&lost], &n.to_string())).collect();
        world.far.send(&world.one, &Vec::from_iter(&flood), &[]).await.ok();
    }
    let fine = world.room.say(&world.near, &world.nina, &[&world.nina], "fine");
    world.near.send(&world.one, &[&fine], &[]).await.ok();
    world.one.inbound.idle().await;
    assert_eq!(world.heard().await, ["fine"]);
    let asked = world.far.asked("get_missing_events").len();
    assert!((1..=3).contains(&asked), "it was asked {asked} times for the sake of 200 events");
}

#[tokio::test]
async fn a_server_that_leaves_more_and_more_ends_of_the_graph_is_not_followed() {
    let world = World::new().await;
    for _ in 0..3 {
        let fork: Vec<Pdu> = (0..50).map(|n| world.say(&[&world.nina], &n.to_string())).collect();
        world.far.send(&world.one, &Vec::from_iter(&fork), &[]).await.ok();
        world.one.inbound.idle().await;
    }
    assert_eq!(world.ends().await, 20);
    let fine = world.room.say(&world.near, &world.nina, &[&world.nina], "fine");
    world.near.send(&world.one, &[&fine], &[]).await.ok();
    world.one.inbound.idle().await;
    assert_eq!(world.heard().await[0], "fine", "others may leave one");
    for n in 0..3 {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{n}", world.room.id);
        let text = json!({ "msgtype": "m.text", "body": format!("ours {n}") });
        world.alice.put(&path, text).await.ok();
    }
    assert_eq!(world.ends().await, 1, "what is said here joins them");
}

#[tokio::test]
async fn states_that_are_endless_never_end_or_are_of_other_events_are_not_taken() {
    let world = World::new().await;
    let lost = world.say(&[&world.nina], "lost");
    let other = wire(&world.say(&[&world.nina], "other"));
    let answers = [
        FakeAnswer::Endless,
        FakeAnswer::Never,
        FakeAnswer::Json(json!({ "pdu_ids": ["$x"], "auth_chain_ids": ["$y"] })),
        FakeAnswer::Json(json!({ "pdu_ids": many_ids(), "auth_chain_ids": [] })),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        world.far.answers("state_ids", answer);
        let one = json!({ "origin": "far", "origin_server_ts": 1, "pdus": [other] });
        world.far.answers("/event/", FakeAnswer::Json(one.clone()));
        let stuck = world.say(&[&lost], &format!("stuck {n}"));
        world.far.send(&world.one, &[&stuck], &[]).await.ok();
        world.one.inbound.idle().await;
        assert!(world.heard().await.is_empty(), "answer {n}");
        world.one.clock.advance(std::time::Duration::from_hours(2));
    }
    let snapshot = world.one.env.store.snapshot();
    let id = world.say(&[&world.nina], "x").event_id;
    assert!(snapshot.get(&EVENT_NUMBERS, &world.room.id, &id).await.unwrap().is_none());
}

/// More IDs than a state may have events.
fn many_ids() -> Vec<String> {
    (0..200_001).map(|n| format!("${n:043}")).collect()
}
