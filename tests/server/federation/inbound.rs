//! What other servers send: transactions, in any order, with links missing, forged, in floods.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use millrace_model::Pdu;
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{
    Asked, Client, FakeAnswer, FakeEvent, FakeRoom, FakeServer, Network, TestServer, wire,
};
use ruma::UserId;
use serde_json::{Value, json};

/// A server under test, a room of alice's on it, and a fake server whose bob is in the room.
struct World {
    engine: Arc<MemoryEngine>,
    one: TestServer,
    alice: Client,
    far: FakeServer,
    room: FakeRoom,
    bob: Pdu,
}

impl World {
    async fn new() -> Self {
        Self::with_visibility("shared").await
    }

    async fn with_visibility(visibility: &str) -> Self {
        let network = Network::default();
        let engine = Arc::new(MemoryEngine::new());
        let one = start(&network, &engine).await;
        let alice = one.register("alice").await;
        let body = json!({
            "preset": "public_chat",
            "initial_state": [{
                "type": "m.room.history_visibility",
                "content": { "history_visibility": visibility },
            }],
        });
        let created = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
        let far = FakeServer::start(&network, "far");
        let id = created["room_id"].as_str().unwrap();
        let path = format!("/_matrix/client/v3/rooms/{id}/send/m.room.message/early");
        let early = json!({ "msgtype": "m.text", "body": "before bob came" });
        alice.put(&path, early).await.ok();
        let room = FakeRoom::of(&one, id).await;
        let bob = room.join(&far, &far.user("bob"), &[&room.newest]);
        let world = Self { engine, one, alice, far, room, bob };
        world.send(&[&world.bob]).await;
        world
    }

    /// Sends events in one transaction, all of which must be taken, and waits until they were
    /// worked on.
    async fn send(&self, pdus: &[&Pdu]) {
        let results = self.far.send(&self.one, pdus, &[]).await.ok();
        for pdu in pdus {
            assert_eq!(results["pdus"][pdu.event_id.as_str()], json!({}), "{results}");
        }
        self.one.inbound.idle().await;
    }

    async fn edu(&self, kind: &str, content: Value) {
        let edu = json!({ "edu_type": kind, "content": content });
        self.far.send(&self.one, &[], &[edu]).await.ok();
    }

    fn say(&self, prev: &[&Pdu], text: &str) -> Pdu {
        self.room.say(&self.far, &self.bob, prev, text)
    }

    /// What messages of the fake server's users say, the newest first, as alice reads them.
    async fn heard(&self) -> Vec<String> {
        heard(&self.alice, self.room.id.as_str()).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/rooms/{}/{rest}", self.room.id)
    }

    fn federation_path(&self, kind: &str, rest: &str) -> String {
        format!("/_matrix/federation/v1/{kind}/{}{rest}", self.room.id)
    }
}

async fn start(network: &Network, engine: &Arc<MemoryEngine>) -> TestServer {
    let mut config = TestServer::config();
    config.server.server_name = "one".to_owned();
    config.inbound.answer_timeout_s = 1;
    config.inbound.queue_events_max = 60;
    config.inbound.missing_events_max = 30;
    let transport = network.transport("one");
    let engine = Arc::clone(engine);
    let one = TestServer::start_between(engine, &config, network.clock.clone(), transport).await;
    network.enter("one", one.router.clone());
    one
}

async fn heard(reader: &Client, room: &str) -> Vec<String> {
    let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=1000");
    let page = reader.get(&path).await.ok();
    let events = page["chunk"].as_array().unwrap().iter();
    let theirs = |event: &&Value| event["sender"].as_str().unwrap().ends_with(":far");
    let messages = events.filter(|event| event["type"] == "m.room.message").filter(theirs);
    messages.map(|event| event["content"]["body"].as_str().unwrap_or("?").to_owned()).collect()
}

fn event_ids<'a>(answer: &'a Value, field: &str) -> Vec<&'a str> {
    answer[field].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_event_of_another_server_reaches_a_local_client() {
    let world = World::new().await;
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    let hello = world.say(&[&world.bob], "hello");
    world.send(&[&hello]).await;
    let since = since["next_batch"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/sync?timeout=10000&since={since}");
    let news = world.alice.get(&path).await.ok();
    let event = &news["rooms"]["join"][world.room.id.as_str()]["timeline"]["events"][0];
    assert_eq!(event["content"]["body"], "hello");
    assert_eq!(event["event_id"], hello.event_id.as_str());
    assert_eq!(event["sender"], "@bob:far");
}

#[tokio::test]
async fn events_in_the_wrong_order_and_twice_are_received_once_each() {
    let world = World::new().await;
    let first = world.say(&[&world.bob], "1");
    let second = world.say(&[&first], "2");
    let third = world.say(&[&second], "3");
    world.send(&[&third, &first, &second, &first, &third]).await;
    world.send(&[&second]).await;
    assert_eq!(world.heard().await, ["3", "2", "1"]);
    assert!(world.far.asked("").is_empty(), "nothing was missing");
}

#[tokio::test]
async fn a_repeated_transaction_is_answered_alike_and_does_nothing() {
    let world = World::new().await;
    let event = wire(&world.say(&[&world.bob], "1"));
    let mut forged = wire(&world.say(&[&world.bob], "2"));
    forged["depth"] = json!(77);
    let first = world.far.send_as(&world.one, "same", &[event, forged], &[]).await.ok();
    assert_eq!(first["pdus"].as_object().unwrap().len(), 2);
    let errors = first["pdus"].as_object().unwrap().values();
    assert_eq!(errors.filter(|result| result["error"].is_string()).count(), 1, "{first}");
    world.one.inbound.idle().await;
    let again = world.far.send_as(&world.one, "same", &[], &[]).await.ok();
    assert_eq!(first, again);
    assert_eq!(world.heard().await, ["1"]);
}

#[tokio::test]
async fn what_a_transaction_may_not_hold_is_refused() {
    let world = World::new().await;
    let event = wire(&world.say(&[&world.bob], "1"));
    let many = vec![event.clone(); 51];
    world.far.send_as(&world.one, "many", &many, &[]).await.refused(400, "M_BAD_JSON");
    let edus = vec![json!({ "edu_type": "x", "content": {} }); 101];
    world.far.send_as(&world.one, "edus", &[], &edus).await.refused(400, "M_BAD_JSON");
    let body = json!({ "origin": "other", "origin_server_ts": 1, "pdus": [event] });
    let path = "/_matrix/federation/v1/send/other";
    let sent = world.far.ask(&world.one, http::Method::PUT, path, body).await;
    sent.refused(403, "M_FORBIDDEN");
    assert!(world.heard().await.is_empty());
}

#[tokio::test]
async fn events_of_unknown_rooms_and_of_no_form_are_left_out() {
    let world = World::new().await;
    let mut elsewhere = wire(&world.say(&[&world.bob], "1"));
    elsewhere["room_id"] = json!("!elsewhere:far");
    let pdus = [elsewhere, json!({ "type": 5 }), json!({ "room_id": world.room.id })];
    let answer = world.far.send_as(&world.one, "odd", &pdus, &[]).await.ok();
    assert_eq!(answer["pdus"], json!({}));
}

#[tokio::test]
async fn a_server_that_the_room_shuts_out_is_not_heard() {
    let world = World::new().await;
    let acl = json!({ "allow": ["*"], "deny": ["far"], "allow_ip_literals": false });
    world.alice.put(&world.path("state/m.room.server_acl/"), acl).await.ok();
    let event = world.say(&[&world.bob], "1");
    let answer = world.far.send(&world.one, &[&event], &[]).await.ok();
    assert!(answer["pdus"][event.event_id.as_str()]["error"].is_string(), "{answer}");
    world.one.inbound.idle().await;
    assert!(world.heard().await.is_empty());
    let path = world.federation_path("backfill", &format!("?limit=1&v={}", event.event_id));
    world.far.get(&world.one, &path).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn missing_events_are_fetched_from_the_sender() {
    let world = World::new().await;
    let first = world.say(&[&world.bob], "1");
    let second = world.say(&[&first], "2");
    let third = world.say(&[&second], "3");
    let events = json!({ "events": [wire(&first), wire(&second)] });
    world.far.answers("get_missing_events", FakeAnswer::Json(events));
    world.send(&[&third]).await;
    assert_eq!(world.heard().await, ["3", "2", "1"]);
    let asked = world.far.asked("get_missing_events");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body["latest_events"], json!([third.event_id]));
    assert_eq!(asked[0].body["earliest_events"], json!([world.bob.event_id]));
}

#[tokio::test]
async fn more_missing_events_are_asked_for_in_turn() {
    let world = World::new().await;
    let mut chain = vec![world.say(&[&world.bob], "0")];
    for n in 1..25 {
        let next = world.say(&[chain.last().unwrap()], &n.to_string());
        chain.push(next);
    }
    // Ten events at a time, those just before what is asked for: whoever gives fewer has no more.
    let events: Vec<Pdu> = chain.clone();
    world.far.on("get_missing_events", move |asked: &Asked| {
        let latest = asked.body["latest_events"][0].as_str()?;
        let at = events.iter().position(|pdu| pdu.event_id == latest)?;
        let before: Vec<Value> = events[at.saturating_sub(10)..at].iter().map(wire).collect();
        Some(FakeAnswer::Json(json!({ "events": before })))
    });
    world.send(&[chain.last().unwrap()]).await;
    let all: Vec<String> = (0..25).rev().map(|n| n.to_string()).collect();
    assert_eq!(world.heard().await, all);
    assert_eq!(world.far.asked("get_missing_events").len(), 3);
}

#[tokio::test]
async fn an_answer_with_other_events_than_asked_for_is_not_used() {
    let world = World::new().await;
    let missing = world.say(&[&world.bob], "missing");
    let newest = world.say(&[&missing], "newest");
    let unasked = world.say(&[&world.bob], "unasked");
    world
        .far
        .answers("get_missing_events", FakeAnswer::Json(json!({ "events": [wire(&unasked)] })));
    world.send(&[&newest]).await;
    assert!(world.heard().await.is_empty(), "neither the unasked nor what lacks its predecessor");
    // A server that does not show what is before its own event is not believed about the state.
    assert!(world.far.asked("state_ids").is_empty());
}

#[tokio::test]
async fn what_follows_an_event_that_is_not_received_is_not_received_over_a_gap() {
    let world = World::new().await;
    let carol = world.far.user("carol");
    let lost = world.room.join(&world.far, &carol, &[&world.bob]);
    let renamed = world.room.join(&world.far, &carol, &[&lost]);
    let first = world.room.say(&world.far, &renamed, &[&renamed], "1");
    let second = world.room.say(&world.far, &renamed, &[&first], "2");
    let events = json!({ "events": [wire(&first)] });
    world.far.answers("get_missing_events", FakeAnswer::Json(events));
    // Its state has an event that nobody shows.
    let member = alice_member(&world).await;
    let room = &world.room;
    let state = [&room.create, &room.levels, &room.join_rules, &member, &world.bob, &renamed];
    tell_state(&world, &first, &state);
    world.send(&[&second]).await;
    assert!(world.heard().await.is_empty());
    let asked = world.far.asked("state_ids");
    assert_eq!(asked.len(), 1, "not for the state before the second one");
}

/// The answers by which a fake server tells the state of a room before an event.
fn tell_state(world: &World, event: &Pdu, state: &[&Pdu]) {
    let ids: Vec<_> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
    let told = json!({ "pdu_ids": ids, "auth_chain_ids": [] });
    let wanted = event.event_id.to_string();
    world.far.on("state_ids", move |asked| {
        let of = asked.path.contains(wanted.trim_start_matches('$'));
        of.then(|| FakeAnswer::Json(told.clone()))
    });
}

#[tokio::test]
async fn an_event_whose_predecessors_nobody_has_is_received_with_the_state_told() {
    let world = World::new().await;
    let lost = world.say(&[&world.bob], "lost");
    let carol = world.far.user("carol");
    let joined = world.room.join(&world.far, &carol, &[&lost]);
    let hello = world.room.say(&world.far, &joined, &[&joined], "from carol");
    let room = &world.room;
    let member = alice_member(&world).await;
    let state = [&room.create, &room.levels, &room.join_rules, &member, &world.bob, &joined];
    tell_state(&world, &hello, &state);
    let event = json!({ "origin": "far", "origin_server_ts": 1, "pdus": [wire(&joined)] });
    world.far.answers("/event/", FakeAnswer::Json(event));
    world.send(&[&hello]).await;
    assert_eq!(world.heard().await, ["from carol"]);
    let members = world.alice.get(&world.path("joined_members")).await.ok();
    assert!(members["joined"]["@carol:far"].is_object(), "{members}");
}

#[tokio::test]
async fn history_of_before_a_gap_is_fetched_for_whoever_reads_it() {
    let world = World::new().await;
    let mut chain = vec![world.say(&[&world.bob], "0")];
    for n in 1..5 {
        let next = world.say(&[chain.last().unwrap()], &n.to_string());
        chain.push(next);
    }
    // Bob's server does not tell what is missing when it sends the newest, but the state.
    let newest = chain.last().unwrap().clone();
    let member = alice_member(&world).await;
    let room = &world.room;
    let state = [&room.create, &room.levels, &room.join_rules, &member, &world.bob];
    tell_state(&world, &newest, &state);
    world.send(&[&newest]).await;
    let mut older: Vec<Value> = chain[..4].iter().rev().map(wire).collect();
    older.push(wire(&world.say(&[&world.bob], "unasked")));
    let pdus = json!({ "origin": "far", "origin_server_ts": 1, "pdus": older });
    world.far.answers("/backfill/", FakeAnswer::Json(pdus));
    assert_eq!(world.heard().await, ["4", "3", "2", "1", "0"]);
    assert_eq!(world.heard().await, ["4", "3", "2", "1", "0"]);
    assert_eq!(world.far.asked("/backfill/").len(), 1, "it is kept");
}

#[tokio::test]
async fn an_event_of_before_a_gap_is_fetched_and_readers_at_once_ask_once() {
    let world = World::new().await;
    let older = world.say(&[&world.bob], "older");
    let newest = world.say(&[&older], "newest");
    let member = alice_member(&world).await;
    let room = &world.room;
    let state = [&room.create, &room.levels, &room.join_rules, &member, &world.bob];
    tell_state(&world, &newest, &state);
    world.send(&[&newest]).await;
    let path = world.path(&format!("event/{}", older.event_id));
    // Nobody has it: that is remembered, and what there is is shown.
    world.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(world.heard().await, ["newest"]);
    assert_eq!(world.far.asked("/backfill/").len(), 1);
    let pdus = json!({ "origin": "far", "origin_server_ts": 1, "pdus": [wire(&older)] });
    world.far.answers("/backfill/", FakeAnswer::Json(pdus));
    world.one.clock.advance(std::time::Duration::from_mins(5));
    let reads = (0..4).map(|_| world.alice.get(&path));
    for answer in futures::future::join_all(reads).await {
        assert_eq!(answer.ok()["content"]["body"], "older");
    }
    assert_eq!(world.far.asked("/backfill/").len(), 2);
    let path = world.path(&format!("context/{}", older.event_id));
    assert_eq!(world.alice.get(&path).await.ok()["event"]["content"]["body"], "older");
}

#[tokio::test]
async fn the_event_at_a_time_is_told_and_asked_for() {
    let world = World::new().await;
    let minute = std::time::Duration::from_mins(1);
    world.one.clock.advance(minute);
    let older = world.say(&[&world.bob], "older");
    world.one.clock.advance(minute);
    let newest = world.say(&[&older], "newest");
    let query = |pdu: &Pdu| format!("timestamp_to_event?dir=b&ts={}", pdu.origin_server_ts.0);
    let member = alice_member(&world).await;
    let room = &world.room;
    let state = [&room.create, &room.levels, &room.join_rules, &member, &world.bob];
    tell_state(&world, &newest, &state);
    world.send(&[&newest]).await;
    let told = json!({ "event_id": older.event_id, "origin_server_ts": older.origin_server_ts });
    world.far.answers("/timestamp_to_event/", FakeAnswer::Json(told));
    let pdus = json!({ "origin": "far", "origin_server_ts": 1, "pdus": [wire(&older)] });
    world.far.answers("/backfill/", FakeAnswer::Json(pdus));
    let path = format!("/_matrix/client/v1/rooms/{}/{}", room.id, query(&older));
    let found = world.alice.get(&path).await.ok();
    assert_eq!(found["event_id"], older.event_id.as_str());
    let query = format!("?dir=f&ts={}", older.origin_server_ts.0);
    let path = world.federation_path("timestamp_to_event", &query);
    let found = world.far.get(&world.one, &path);
    assert_eq!(found.await.ok()["event_id"], older.event_id.as_str());
}

/// Alice's join event.
async fn alice_member(world: &World) -> Pdu {
    let path = world.federation_path("state", &format!("?event_id={}", world.bob.event_id));
    let state = world.far.get(&world.one, &path).await.ok();
    let pdus = state["pdus"].as_array().unwrap();
    let alice = pdus.iter().find(|pdu| pdu["state_key"] == "@alice:one").unwrap();
    Pdu::parse(&alice.to_string(), world.room.rules).unwrap()
}

#[tokio::test]
async fn auth_events_that_are_missing_are_fetched() {
    let world = World::new().await;
    let carol = world.far.user("carol");
    // Carol's joining was never sent: her message names it as auth event.
    let joined = world.room.join(&world.far, &carol, &[&world.bob]);
    let hello = world.room.say(&world.far, &joined, &[&joined], "from carol");
    let chain = json!({ "auth_chain": [wire(&joined)] });
    world.far.answers("event_auth", FakeAnswer::Json(chain));
    world.far.answers("get_missing_events", FakeAnswer::Json(json!({ "events": [wire(&joined)] })));
    world.send(&[&hello]).await;
    assert_eq!(world.heard().await, ["from carol"]);
}

#[tokio::test]
async fn what_the_rules_refuse_is_rejected_and_what_follows_it_is_received() {
    let world = World::new().await;
    let bob = world.far.user("bob");
    let refused = world.far.event(
        &world.room,
        FakeEvent {
            sender: &bob,
            kind: "m.room.topic",
            state_key: Some(""),
            content: json!({ "topic": "bob may not" }),
            prev: &[&world.bob],
            auth: &world.room.auth(&world.bob),
        },
    );
    let after = world.say(&[&refused], "after");
    world.send(&[&refused, &after]).await;
    assert_eq!(world.heard().await, ["after"]);
    world.alice.get(&world.path("state/m.room.topic/")).await.refused(404, "M_NOT_FOUND");
    let path = world.path(&format!("event/{}", refused.event_id));
    world.alice.get(&path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn an_event_can_be_redacted_before_it_has_come() {
    let world = World::new().await;
    let late = world.say(&[&world.bob], "late");
    let path = world.path(&format!("redact/{}/1", late.event_id));
    world.alice.put(&path, json!({})).await.ok();
    world.send(&[&late]).await;
    assert_eq!(world.heard().await, ["?"]);
}

#[tokio::test]
async fn who_was_banned_meanwhile_fails_softly() {
    let world = World::new().await;
    let ban = json!({ "user_id": "@bob:far" });
    let before = world.say(&[&world.bob], "before");
    world.send(&[&before]).await;
    world.alice.post(&world.path("ban"), ban).await.ok();
    // Bob's server says that it has not heard of the ban: the event is a fork from before it.
    let evading = world.say(&[&before], "evading");
    let results = world.far.send(&world.one, &[&evading], &[]).await.ok();
    world.one.inbound.idle().await;
    assert_eq!(world.heard().await, ["before"], "{results}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let world = World::new().await;
    let first = world.say(&[&world.bob], "1");
    let second = world.say(&[&first], "2");
    world.far.answers("get_missing_events", FakeAnswer::Never);
    world.far.send(&world.one, &[&second], &[]).await.ok();
    let World { engine, one, alice, far, room, .. } = world;
    one.stop().await;
    far.answers("get_missing_events", FakeAnswer::Json(json!({ "events": [wire(&first)] })));
    let one = start(far.network(), &engine).await;
    one.inbound.idle().await;
    assert_eq!(heard(&alice.on(&one), room.id.as_str()).await, ["2", "1"]);
}

#[tokio::test]
async fn an_event_is_tried_again_when_the_peer_is_back() {
    let world = World::new().await;
    let first = world.say(&[&world.bob], "1");
    let second = world.say(&[&first], "2");
    let events = json!({ "events": [wire(&first)] });
    world.far.answers("get_missing_events", FakeAnswer::Json(events));
    // The link breaks after the transaction: answers get through, questions do not.
    let asking = world.far.clone();
    let network = world.far.network().clone();
    network.cut("one", "far");
    asking.send(&world.one, &[&second], &[]).await.ok();
    world.one.inbound.idle().await;
    assert!(world.heard().await.is_empty());
    network.mend("one", "far");
    world.one.clock.advance(std::time::Duration::from_hours(3));
    // Its keys have not run out meanwhile, but it shows up again.
    let third = world.say(&[&second], "3");
    world.send(&[&third]).await;
    assert_eq!(world.heard().await, ["3", "2", "1"]);
}

#[tokio::test]
async fn a_room_that_waits_for_a_peer_does_not_delay_another() {
    let world = World::new().await;
    let body = json!({ "preset": "public_chat" });
    let other = world.alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let other = FakeRoom::of(&world.one, other["room_id"].as_str().unwrap()).await;
    let joined = other.join(&world.far, &world.far.user("bob"), &[&other.newest]);
    let quick = other.say(&world.far, &joined, &[&joined], "quick");
    world.far.answers("get_missing_events", FakeAnswer::Never);
    let lost = world.say(&[&world.bob], "lost");
    let stuck = world.say(&[&lost], "stuck");
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    world.far.send(&world.one, &[&stuck, &joined, &quick], &[]).await.ok();
    // Without waiting for the first room, which waits for an answer that never comes.
    let mut since = since["next_batch"].as_str().unwrap().to_owned();
    while heard(&world.alice, other.id.as_str()).await.is_empty() {
        let path = format!("/_matrix/client/v3/sync?timeout=30000&since={since}");
        let news = world.alice.get(&path).await.ok();
        since = news["next_batch"].as_str().unwrap().to_owned();
    }
    assert!(world.heard().await.is_empty());
}

#[tokio::test]
async fn a_flood_of_one_room_is_bounded() {
    let world = World::new().await;
    world.far.answers("get_missing_events", FakeAnswer::Never);
    let lost = world.say(&[&world.bob], "lost");
    let mut refused = 0;
    for _ in 0..3 {
        let flood: Vec<Pdu> = (0..50).map(|n| world.say(&[&lost], &n.to_string())).collect();
        let flood: Vec<&Pdu> = flood.iter().collect();
        let answer = world.far.send(&world.one, &flood, &[]).await.ok();
        let results = answer["pdus"].as_object().unwrap().values();
        refused += results.filter(|result| result["error"].is_string()).count();
    }
    assert!(refused >= 90, "at most 60 wait: {refused} were refused");
}

#[tokio::test]
async fn endless_answers_end() {
    let world = World::new().await;
    for question in ["get_missing_events", "state_ids", "/state/", "/event/"] {
        world.far.answers(question, FakeAnswer::Endless);
    }
    let lost = world.say(&[&world.bob], "lost");
    let stuck = world.say(&[&lost], "stuck");
    world.send(&[&stuck]).await;
    assert!(world.heard().await.is_empty());
    let next = world.say(&[&world.bob], "next");
    world.send(&[&next]).await;
    assert_eq!(world.heard().await, ["next"]);
}

#[tokio::test]
async fn history_is_served_as_far_as_a_server_may_see_it() {
    for (visibility, seen) in
        [("world_readable", true), ("shared", true), ("invited", false), ("joined", false)]
    {
        let world = World::with_visibility(visibility).await;
        let from = world.say(&[&world.bob], "now");
        world.send(&[&from]).await;
        let path = world.federation_path("backfill", &format!("?limit=100&v={}", from.event_id));
        let answer = world.far.get(&world.one, &path).await.ok();
        let pdus = answer["pdus"].as_array().unwrap();
        assert_eq!(pdus[0], wire(&from));
        assert_eq!(pdus.last().unwrap()["type"], "m.room.create");
        let early = pdus.iter().find(|pdu| pdu["sender"] == "@alice:one").unwrap();
        assert_eq!(early["content"]["body"].is_string(), seen, "{visibility}: {early}");
    }
}

#[tokio::test]
async fn states_and_events_are_served_to_servers_in_the_room_only() {
    let world = World::new().await;
    let message = world.say(&[&world.bob], "now");
    world.send(&[&message]).await;
    let id = &message.event_id;
    let get = async |path: String| world.far.get(&world.one, &path).await;
    let ids = get(world.federation_path("state_ids", &format!("?event_id={id}"))).await.ok();
    let state = get(world.federation_path("state", &format!("?event_id={id}"))).await.ok();
    assert_eq!(event_ids(&ids, "pdu_ids").len(), state["pdus"].as_array().unwrap().len());
    assert!(event_ids(&ids, "pdu_ids").contains(&world.bob.event_id.as_str()));
    assert!(event_ids(&ids, "auth_chain_ids").contains(&world.room.levels.event_id.as_str()));
    let chain = get(world.federation_path("event_auth", &format!("/{id}"))).await.ok();
    let chain = chain["auth_chain"].as_array().unwrap();
    assert!(chain.contains(&wire(&world.bob)));
    let event = get(format!("/_matrix/federation/v1/event/{id}")).await.ok();
    assert_eq!(event["pdus"], json!([wire(&message)]));
    let body = json!({ "latest_events": [id], "earliest_events": [], "limit": 1 });
    let path = world.federation_path("get_missing_events", "");
    let missing = world.far.ask(&world.one, http::Method::POST, &path, body).await.ok();
    assert_eq!(missing["events"], json!([wire(&world.bob)]));
    let unknown = world.federation_path("state_ids", "?event_id=$unknown");
    get(unknown).await.refused(404, "M_NOT_FOUND");
    let stranger = FakeServer::start(world.far.network(), "stranger");
    for path in [
        world.federation_path("state_ids", &format!("?event_id={id}")),
        world.federation_path("state", &format!("?event_id={id}")),
        world.federation_path("event_auth", &format!("/{id}")),
        world.federation_path("backfill", &format!("?limit=1&v={id}")),
    ] {
        stranger.get(&world.one, &path).await.refused(403, "M_FORBIDDEN");
    }
    let path = format!("/_matrix/federation/v1/event/{id}");
    stranger.get(&world.one, &path).await.refused(404, "M_NOT_FOUND");
}

/// What a sync from `since` on says.
async fn sync(client: &Client, since: &str) -> Value {
    client.get(&format!("/_matrix/client/v3/sync?since={since}")).await.ok()
}

fn ephemeral<'a>(news: &'a Value, room: &FakeRoom, kind: &str) -> Option<&'a Value> {
    let events = news["rooms"]["join"][room.id.as_str()]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == kind).map(|event| &event["content"])
}

#[tokio::test]
async fn typing_receipts_and_presence_reach_local_clients() {
    let world = World::new().await;
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let (room, bob) = (&world.room.id, world.far.user("bob"));
    world.edu("m.typing", json!({ "room_id": room, "user_id": bob, "typing": true })).await;
    let message = world.say(&[&world.bob], "read this");
    let read = json!({ room.as_str(): { "m.read": {
        bob.as_str(): { "data": { "ts": 5 }, "event_ids": [message.event_id] }
    } } });
    let edu = json!({ "edu_type": "m.receipt", "content": read });
    // The receipt comes with its event, which waits in the room's queue.
    world.far.send(&world.one, &[&message], &[edu]).await.ok();
    let update = json!({
        "user_id": bob, "presence": "online", "last_active_ago": 1000, "currently_active": true,
    });
    world.edu("m.presence", json!({ "push": [update] })).await;
    world.one.inbound.idle().await;
    let news = sync(&world.alice, since).await;
    assert_eq!(ephemeral(&news, &world.room, "m.typing").unwrap()["user_ids"], json!([bob]));
    let receipts = ephemeral(&news, &world.room, "m.receipt").unwrap();
    let receipt = &receipts[message.event_id.as_str()]["m.read"][bob.as_str()];
    assert_eq!(receipt["ts"], 5);
    let presence = &news["presence"]["events"][0];
    assert_eq!(presence["sender"], "@bob:far");
    assert_eq!(presence["content"]["presence"], "online");
}

#[tokio::test]
async fn a_server_speaks_for_its_own_users_only() {
    let world = World::new().await;
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let room = &world.room.id;
    let alice = world.alice.user().to_owned();
    world.edu("m.typing", json!({ "room_id": room, "user_id": alice, "typing": true })).await;
    let stranger = world.far.user("stranger");
    world.edu("m.typing", json!({ "room_id": room, "user_id": stranger, "typing": true })).await;
    let read = json!({ room.as_str(): { "m.read": {
        alice.as_str(): { "data": { "ts": 5 }, "event_ids": [world.bob.event_id] }
    } } });
    world.edu("m.receipt", read).await;
    let update = json!({ "user_id": alice, "presence": "online", "last_active_ago": 1,
        "status_msg": "forged" });
    world.edu("m.presence", json!({ "push": [update] })).await;
    to_device(&world, &alice, "1").await;
    world.edu("m.unheard_of", json!({ "anything": 1 })).await;
    let news = sync(&world.alice, since).await;
    assert!(ephemeral(&news, &world.room, "m.typing").is_none(), "{news}");
    assert!(ephemeral(&news, &world.room, "m.receipt").is_none(), "{news}");
    assert!(!news.to_string().contains("forged"), "{news}");
    assert!(news["to_device"]["events"].as_array().is_none_or(Vec::is_empty), "{news}");
}

async fn to_device(world: &World, sender: &UserId, message_id: &str) {
    let content = json!({
        "sender": sender, "type": "org.example.hello", "message_id": message_id,
        "messages": { world.alice.user().as_str(): { "*": { "text": message_id } } },
    });
    world.edu("m.direct_to_device", content).await;
}

#[tokio::test]
async fn a_message_to_devices_arrives_once() {
    let world = World::new().await;
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    let bob = world.far.user("bob");
    for id in ["1", "2", "1"] {
        to_device(&world, &bob, id).await;
    }
    let news = sync(&world.alice, since["next_batch"].as_str().unwrap()).await;
    let events = news["to_device"]["events"].as_array().unwrap();
    let texts: Vec<_> = events.iter().map(|event| &event["content"]["text"]).collect();
    assert_eq!(texts, ["1", "2"]);
}

#[tokio::test]
async fn devices_of_remote_users_are_tracked_and_fetched_again_where_an_update_was_missed() {
    let world = World::new().await;
    let bob = world.far.user("bob");
    let keys = |device: &str| {
        json!({ "user_id": bob, "device_id": device, "algorithms": [], "keys": {},
            "signatures": {} })
    };
    let list = json!({ "user_id": bob, "stream_id": 5,
        "devices": [{ "device_id": "A", "keys": keys("A") }] });
    world.far.answers("/user/devices/", FakeAnswer::Json(list));
    let known = world.one.inbound.devices_of(&bob).await.unwrap();
    assert_eq!(known.devices.len(), 1);
    let since = world.alice.get("/_matrix/client/v3/sync").await.ok();
    let since = since["next_batch"].as_str().unwrap();
    let update = |stream: u64, prev: &[u64], device: &str| {
        json!({ "user_id": bob, "device_id": device, "stream_id": stream, "prev_id": prev,
            "keys": keys(device) })
    };
    world.edu("m.device_list_update", update(6, &[5], "B")).await;
    let known = world.one.inbound.devices_of(&bob).await.unwrap();
    let devices: Vec<_> = known.devices.iter().map(|(device, _)| device.as_str()).collect();
    assert_eq!(devices, ["A", "B"]);
    assert_eq!(world.far.asked("/user/devices/").len(), 1, "the update told what changed");
    let news = sync(&world.alice, since).await;
    assert_eq!(news["device_lists"]["changed"], json!([bob]));
    let list = json!({ "user_id": bob, "stream_id": 9, "devices": [] });
    world.far.answers("/user/devices/", FakeAnswer::Json(list));
    world.edu("m.device_list_update", update(9, &[8], "C")).await;
    assert!(world.one.inbound.devices_of(&bob).await.unwrap().devices.is_empty());
}
