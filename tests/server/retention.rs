//! Message expiry, from a room's policy to the disk.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::time::Duration;

use millrace_domain::rooms::retention;
use millrace_store::{Read, Scan, tables::EVENTS};
use millrace_test_support::{Client, TestServer};
use ruma::OwnedRoomId;
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const DAY: Duration = Duration::from_hours(24);

async fn room(client: &Client, policy: Value) -> String {
    let made = client.post(&format!("{V3}/createRoom"), json!({})).await.ok();
    let room = made["room_id"].as_str().unwrap().to_owned();
    if !policy.is_null() {
        client.put(&format!("{V3}/rooms/{room}/state/m.room.retention"), policy).await.ok();
    }
    room
}

async fn say(client: &Client, room: &str, text: &str) -> String {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{text}");
    let sent = client.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
    sent["event_id"].as_str().unwrap().to_owned()
}

async fn bodies(client: &Client, room: &str) -> Vec<String> {
    let page = client.get(&format!("{V3}/rooms/{room}/messages?dir=b&limit=100")).await.ok();
    let bodies = page["chunk"].as_array().unwrap().iter();
    bodies.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

async fn on_disk(server: &TestServer, room: &str, text: &str) -> bool {
    let room = OwnedRoomId::try_from(room).unwrap();
    let rows = server.env.store.snapshot().scan(&EVENTS, &room, Scan::all()).await.unwrap();
    rows.iter().any(|(_, json)| json.contains(text))
}

#[tokio::test]
async fn messages_expire_by_the_rooms_policy_for_readers_at_once_and_on_disk_by_the_purge() {
    let mut config = TestServer::config();
    config.retention.enabled = true;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let week = u64::try_from((7 * DAY).as_millis()).unwrap();
    let short = room(&alice, json!({ "max_lifetime": week })).await;
    let long = room(&alice, Value::Null).await;
    let old = say(&alice, &short, "oldword").await;
    say(&alice, &long, "keptword").await;
    server.clock.advance(5 * DAY);
    say(&alice, &short, "midword").await;
    server.clock.advance(3 * DAY);
    say(&alice, &short, "newword").await;

    assert_eq!(bodies(&alice, &short).await, ["newword", "midword"]);
    alice.get(&format!("{V3}/rooms/{short}/event/{old}")).await.refused(404, "M_NOT_FOUND");
    let search = json!({ "search_categories": { "room_events": { "search_term": "oldword" } } });
    let found = alice.post(&format!("{V3}/search"), search).await.ok();
    assert_eq!(found["search_categories"]["room_events"]["results"], json!([]));
    let synced = alice.get(&format!("{V3}/sync")).await.ok().to_string();
    assert!(synced.contains("newword") && !synced.contains("oldword"), "{synced}");

    assert!(on_disk(&server, &short, "oldword").await);
    assert_eq!(retention::purge_all(&server.federation.rooms).await.unwrap(), 1);
    assert!(!on_disk(&server, &short, "oldword").await);
    assert!(on_disk(&server, &short, "midword").await);
    assert!(on_disk(&server, &long, "keptword").await);
    assert_eq!(retention::purge_all(&server.federation.rooms).await.unwrap(), 0, "once");

    server.clock.advance(30 * DAY);
    assert_eq!(bodies(&alice, &short).await, Vec::<String>::new());
    assert_eq!(bodies(&alice, &long).await, ["keptword"]);
    // The newest of a room stays on the disk.
    assert_eq!(retention::purge_all(&server.federation.rooms).await.unwrap(), 1);
    assert!(on_disk(&server, &short, "newword").await);
    let name = format!("{V3}/rooms/{short}/state/m.room.name");
    alice.put(&name, json!({ "name": "still usable" })).await.ok();
}

#[tokio::test]
async fn nothing_expires_where_the_administrator_has_not_said_so() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = room(&alice, json!({ "max_lifetime": 1000 })).await;
    say(&alice, &room, "word").await;
    server.clock.advance(5 * DAY);
    assert_eq!(bodies(&alice, &room).await, ["word"]);
    assert_eq!(retention::purge_all(&server.federation.rooms).await.unwrap(), 0);
}
