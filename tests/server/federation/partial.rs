//! Rooms that are joined without their members, which come later (`send_join` with `omit_members`).

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use millrace_store::{Read, engine::MemoryEngine, tables::ROOM_HEAD};
use millrace_test_support::{Answer, Client, Network, TestServer};
use ruma::RoomId;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

/// What a server does when it is asked for the state of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// It does not answer yet.
    Shut,
    /// It answers something else.
    Broken,
}

async fn pass(gate: watch::Receiver<Gate>, request: Request, next: Next) -> Response {
    let mut gate = gate;
    if request.uri().path().contains("/federation/v1/state_ids/") {
        let now = gate.wait_for(|gate| *gate != Gate::Shut).await.map(|now| *now);
        if now.unwrap_or(Gate::Open) == Gate::Broken {
            return (StatusCode::OK, "{}").into_response();
        }
    }
    next.run(request).await
}

/// A server of a network, and the gate before its states.
async fn gated(network: &Network, name: &str, gate: Gate) -> (TestServer, watch::Sender<Gate>) {
    let server = TestServer::start_in(network, name).await;
    let (sender, receiver) = watch::channel(gate);
    let layer = middleware::from_fn(move |request, next| pass(receiver.clone(), request, next));
    let router: Router = server.router.clone().layer(layer);
    network.enter(name, router);
    (server, sender)
}

const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;

/// A room of alice on `one`, in which bob of `one` is too, and which carol of `two` joins.
struct World {
    network: Network,
    one: TestServer,
    gate: watch::Sender<Gate>,
    two: TestServer,
    engine: MemoryEngine,
    alice: Client,
    bob: Client,
    carol: Client,
    room: String,
}

async fn start(network: &Network, name: &str, engine: &MemoryEngine) -> TestServer {
    let mut config = TestServer::config();
    config.server.server_name = name.to_owned();
    let (clock, transport) = (network.clock.clone(), network.transport(name));
    let engine = Arc::new(engine.clone());
    let server = TestServer::start_between(engine, &config, clock, transport).await;
    network.enter(name, server.router.clone());
    server
}

async fn world(gate: Gate) -> World {
    let network = Network::default();
    let (one, gate) = gated(&network, "one", gate).await;
    let engine = MemoryEngine::new();
    let two = start(&network, "two", &engine).await;
    let (alice, bob) = (one.register("alice").await, one.register("bob").await);
    let carol = two.register("carol").await;
    let body = json!({ "preset": "public_chat", "room_version": "11", "name": "Hall" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    bob.post(&format!("/_matrix/client/v3/join/{room}"), json!({})).await.ok();
    carol.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    World { network, one, gate, two, engine, alice, bob, carol, room }
}

async fn send(client: &Client, room: &str, text: &str) -> String {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{text}");
    let sent = client.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn sync(client: &Client, filter: &str, since: Option<&str>) -> Value {
    let filter: String = filter.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    client.get(&format!("/_matrix/client/v3/sync?filter={filter}{since}")).await.ok()
}

/// Syncs until the room's timeline has an event; the room's part of that response.
async fn until_seen(client: &Client, room: &str, event: &str) -> Value {
    for _ in 0..100 {
        let synced = sync(client, LAZY, None).await;
        let room = &synced["rooms"]["join"][room];
        let events = room["timeline"]["events"].as_array();
        if events.is_some_and(|events| events.iter().any(|seen| seen["event_id"] == event)) {
            return room.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{event} does not come");
}

fn members(events: &Value) -> Vec<&str> {
    let events = events.as_array().unwrap();
    let mut members: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .map(|event| event["state_key"].as_str().unwrap())
        .collect();
    members.sort_unstable();
    members
}

async fn is_partial(server: &TestServer, room: &str) -> bool {
    let room = RoomId::parse(room).unwrap();
    let head = server.env.store.snapshot().get(&ROOM_HEAD, &room, ()).await.unwrap();
    head.unwrap().partial.is_some()
}

async fn all_members(client: &Client, room: &str) -> Answer {
    client.get(&format!("/_matrix/client/v3/rooms/{room}/members")).await
}

const ALL: [&str; 3] = ["@alice:one", "@bob:one", "@carol:two"];

#[tokio::test]
async fn a_room_is_used_before_its_members_are_known_and_whole_afterwards() {
    let World { one, gate, two, alice, bob, carol, room, .. } = world(Gate::Shut).await;
    assert!(is_partial(&two, &room).await);
    let hidden = sync(&carol, "{}", None).await;
    assert!(hidden["rooms"]["join"][&room].is_null(), "not to who wants all members");
    let since = hidden["next_batch"].as_str().unwrap();
    let shown = sync(&carol, LAZY, None).await;
    assert!(shown["rooms"]["join"][&room].is_object());
    let sent = send(&carol, &room, "hello").await;
    until_seen(&alice, &room, &sent).await;
    let answered = send(&bob, &room, "welcome").await;
    let seen = until_seen(&carol, &room, &answered).await;
    assert_eq!(members(&seen["state"]["events"]), ["@bob:one"], "as his event names him");
    let still = sync(&carol, "{}", Some(since)).await;
    assert!(still["rooms"]["join"][&room].is_null());

    let mut asking = std::pin::pin!(all_members(&carol, &room));
    assert!(timeout(Duration::from_millis(300), &mut asking).await.is_err(), "it waits");
    gate.send_replace(Gate::Open);
    let told = timeout(Duration::from_secs(20), asking).await.unwrap().ok();
    assert_eq!(members(&told["chunk"]), ALL);
    assert!(!is_partial(&two, &room).await);
    let whole = sync(&carol, "{}", Some(since)).await;
    let whole = &whole["rooms"]["join"][&room];
    let mut there = members(&whole["state"]["events"]);
    there.extend(members(&whole["timeline"]["events"]));
    there.sort_unstable();
    assert_eq!(there, ALL);
    for event in [sent, answered] {
        let path = format!("/_matrix/client/v3/rooms/{room}/event/{event}");
        carol.get(&path).await.ok();
    }
    drop(one);
}

#[tokio::test]
async fn completing_a_room_goes_on_after_a_restart() {
    let World { one, network, gate, two, engine, carol, room, .. } = world(Gate::Shut).await;
    let sent = send(&carol, &room, "before").await;
    two.stop().await;
    let two = start(&network, "two", &engine).await;
    let carol = carol.on(&two);
    assert!(is_partial(&two, &room).await);
    gate.send_replace(Gate::Open);
    let told = timeout(Duration::from_secs(20), all_members(&carol, &room)).await.unwrap().ok();
    assert_eq!(members(&told["chunk"]), ALL);
    until_seen(&carol, &room, &sent).await;
    drop(one);
}

#[tokio::test]
async fn another_server_is_asked_where_the_first_fails() {
    let network = Network::default();
    let (one, gate) = gated(&network, "one", Gate::Broken).await;
    let three = TestServer::start_in(&network, "three").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, dave) = (one.register("alice").await, three.register("dave").await);
    let carol = two.register("carol").await;
    let body = json!({ "preset": "public_chat", "room_version": "11", "name": "Hall" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let room = room["room_id"].as_str().unwrap();
    gate.send_replace(Gate::Open);
    dave.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    all_members(&dave, room).await.ok();
    gate.send_replace(Gate::Broken);
    carol.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    let told = timeout(Duration::from_secs(20), all_members(&carol, room)).await.unwrap().ok();
    assert_eq!(members(&told["chunk"]), ["@alice:one", "@carol:two", "@dave:three"]);
}

#[tokio::test]
async fn nobody_is_let_in_or_told_states_by_a_server_that_does_not_know_the_members() {
    let World { network, gate, two, carol, room, .. } = world(Gate::Shut).await;
    let three = TestServer::start_in(&network, "three").await;
    let dave = three.register("dave").await;
    let path = format!("/_matrix/client/v3/join/{room}?via=two");
    dave.post(&path, json!({})).await.refused(404, "M_NOT_FOUND");
    // The user is one of the server in the middle of joining: another server admits them.
    let erin = two.register("erin").await;
    erin.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    assert!(is_partial(&two, &room).await);
    gate.send_replace(Gate::Open);
    let told = timeout(Duration::from_secs(20), all_members(&carol, &room)).await.unwrap().ok();
    assert_eq!(members(&told["chunk"]), ["@alice:one", "@bob:one", "@carol:two", "@erin:two"]);
    dave.post(&path, json!({})).await.ok();
}

#[tokio::test]
async fn whose_devices_are_new_is_told_with_the_room_and_once() {
    let World { gate, two, room, .. } = world(Gate::Shut).await;
    let dave = two.register("dave").await;
    let before = sync(&dave, "{}", None).await;
    dave.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    assert!(is_partial(&two, &room).await);
    let hidden = sync(&dave, "{}", before["next_batch"].as_str()).await;
    assert!(hidden["rooms"]["join"][&room].is_null() && hidden["device_lists"].is_null());
    gate.send_replace(Gate::Open);
    timeout(Duration::from_secs(20), all_members(&dave, &room)).await.unwrap().ok();
    let shown = sync(&dave, "{}", hidden["next_batch"].as_str()).await;
    assert!(shown["rooms"]["join"][&room].is_object());
    let everybody = json!(["@alice:one", "@bob:one", "@carol:two", "@dave:two"]);
    assert_eq!(shown["device_lists"]["changed"], everybody);
    let later = sync(&dave, "{}", shown["next_batch"].as_str()).await;
    assert!(later["device_lists"].is_null());
}

#[tokio::test]
async fn who_leaves_a_partial_room_can_join_it_again() {
    let World { gate, two, carol, room, .. } = world(Gate::Shut).await;
    carol.post(&format!("/_matrix/client/v3/rooms/{room}/leave"), json!({})).await.ok();
    carol.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    assert!(is_partial(&two, &room).await);
    gate.send_replace(Gate::Open);
    let told = timeout(Duration::from_secs(30), all_members(&carol, &room)).await.unwrap().ok();
    assert_eq!(members(&told["chunk"]), ALL);
    assert!(!is_partial(&two, &room).await);
}

#[tokio::test]
async fn a_room_is_upgraded_once_it_is_known_who_is_banned() {
    let World { one, gate, two, alice, carol, room, .. } = world(Gate::Shut).await;
    let levels = json!({ "users": { "@alice:one": 100, "@carol:two": 100 } });
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
    let sent = alice.put(&path, levels).await.ok();
    until_seen(&carol, &room, sent["event_id"].as_str().unwrap()).await;
    carol.post(&format!("/_matrix/client/v3/rooms/{room}/leave"), json!({})).await.ok();
    let there = format!("/_matrix/client/v3/rooms/{room}/joined_members");
    while alice.get(&there).await.ok()["joined"]["@carol:two"].is_object() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ban = format!("/_matrix/client/v3/rooms/{room}/ban");
    alice.post(&ban, json!({ "user_id": "@bob:one" })).await.ok();
    carol.post(&format!("/_matrix/client/v3/join/{room}?via=one"), json!({})).await.ok();
    assert!(is_partial(&two, &room).await, "carol's server has not heard of the ban");
    let path = format!("/_matrix/client/v3/rooms/{room}/upgrade");
    let mut upgrading = std::pin::pin!(carol.post(&path, json!({ "new_version": "11" })));
    assert!(timeout(Duration::from_millis(300), &mut upgrading).await.is_err(), "it waits");
    gate.send_replace(Gate::Open);
    let upgraded = timeout(Duration::from_secs(20), upgrading).await.unwrap().ok();
    let new = upgraded["replacement_room"].as_str().unwrap();
    let told = all_members(&carol, new).await.ok();
    let banned = told["chunk"].as_array().unwrap().iter();
    let banned = banned.filter(|event| event["content"]["membership"] == "ban");
    assert_eq!(banned.map(|event| &event["state_key"]).collect::<Vec<_>>(), ["@bob:one"]);
    drop(one);
}

#[tokio::test]
async fn a_change_of_the_devices_of_a_member_who_is_not_known_yet_is_told_afterwards() {
    let World { one, gate, bob, carol, room, .. } = world(Gate::Shut).await;
    let since = sync(&carol, LAZY, None).await;
    let since = since["next_batch"].as_str().unwrap();
    let device = bob.get("/_matrix/client/v3/account/whoami").await.ok();
    let device = device["device_id"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/devices/{device}");
    bob.put(&path, json!({ "display_name": "A new name" })).await.ok();
    let sent = send(&bob, &room, "after").await;
    until_seen(&carol, &room, &sent).await;
    gate.send_replace(Gate::Open);
    timeout(Duration::from_secs(20), all_members(&carol, &room)).await.unwrap().ok();
    let synced = sync(&carol, LAZY, Some(since)).await;
    assert_eq!(synced["device_lists"]["changed"], json!(["@bob:one"]));
    drop(one);
}
