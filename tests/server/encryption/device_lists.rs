//! Whose devices changed, and who is gone.

use millrace_test_support::TestServer;
use serde_json::{Value, json};

use super::{device::Device, join, leave, lists, room};

#[tokio::test]
async fn who_shares_a_room_hears_of_changes_and_nobody_else_is_woken() {
    let server = TestServer::start().await;
    let mut alice = Device::new(server.register("alice").await, 0).await;
    let mut bob = Device::new(server.register("bob").await, 0).await;
    let mut carol = Device::new(server.register("carol").await, 0).await;
    let shared = room(&alice.client).await;
    room(&carol.client).await;
    join(&bob.client, &shared, "test").await;
    for device in [&mut alice, &mut bob, &mut carol] {
        device.sync().await;
    }
    let second = Device::log_in(&server, "bob", 0).await;
    let changed = |_: &Device, answer: &Value| lists(answer, "changed", "@bob:test");
    let answer = alice.sync_until(changed).await;
    assert!(answer["rooms"]["join"].is_null(), "the room itself has no news: {answer}");
    bob.sync_until(changed).await;
    let path = format!("/_matrix/client/v3/devices/{}", second.id());
    second.client.put(&path, json!({ "display_name": "phone" })).await.ok();
    alice.sync_until(changed).await;
    let queried = alice.query(&["@bob:test"]).await;
    let device = &queried["device_keys"]["@bob:test"][second.id()];
    assert_eq!(device["unsigned"]["device_display_name"], "phone");
    assert_eq!(device["signatures"], second.device_keys()["signatures"]);
    second.client.post("/_matrix/client/v3/logout", json!({})).await.ok();
    alice.sync_until(changed).await;
    let queried = alice.query(&["@bob:test"]).await;
    assert!(queried["device_keys"]["@bob:test"][second.id()].is_null(), "its keys are gone");
    let answer = carol.client.get(&carol.path_without_waiting()).await.ok();
    assert!(answer["device_lists"].is_null(), "{answer}");
}

#[tokio::test]
async fn who_comes_is_changed_and_who_shares_no_room_any_more_has_left() {
    let server = TestServer::start().await;
    let mut alice = Device::new(server.register("alice").await, 0).await;
    let mut bob = Device::new(server.register("bob").await, 0).await;
    let (first, second) = (room(&alice.client).await, room(&alice.client).await);
    alice.sync().await;
    bob.sync().await;
    let from = alice.path_without_waiting();
    join(&bob.client, &first, "test").await;
    let answer = alice.sync().await;
    assert_eq!(answer["device_lists"], json!({ "changed": ["@bob:test"], "left": [] }));
    let answer = bob.sync().await;
    let both = json!({ "changed": ["@alice:test", "@bob:test"], "left": [] });
    assert_eq!(answer["device_lists"], both, "all who are in the room, for other devices too");
    join(&bob.client, &second, "test").await;
    alice.sync().await;
    bob.sync().await;
    leave(&bob.client, &first).await;
    let answer = alice.sync().await;
    assert!(answer["device_lists"].is_null(), "they share another room: {answer}");
    bob.sync().await;
    leave(&bob.client, &second).await;
    let left = |list: &str| json!({ "changed": [], "left": [list] });
    assert_eq!(alice.sync().await["device_lists"], left("@bob:test"));
    assert_eq!(bob.sync().await["device_lists"], left("@alice:test"));
    Device::log_in(&server, "bob", 0).await;
    let answer = alice.client.get(&alice.path_without_waiting()).await.ok();
    assert!(answer["device_lists"].is_null(), "bob is a stranger now: {answer}");
    join(&bob.client, &first, "test").await;
    assert!(lists(&alice.sync().await, "changed", "@bob:test"));
    let since = from.rsplit_once("since=").unwrap().1;
    let to = alice.path_without_waiting();
    let to = to.rsplit_once("since=").unwrap().1.to_owned();
    let path = format!("/_matrix/client/v3/keys/changes?from={since}&to={to}");
    let changes = alice.client.get(&path).await.ok();
    assert_eq!(changes, json!({ "changed": ["@bob:test"], "left": [] }));
    let path = "/_matrix/client/v3/keys/changes?from=nonsense&to=nonsense";
    alice.client.get(path).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn lists_are_right_for_who_loads_members_lazily_and_filters_rooms() {
    let server = TestServer::start().await;
    let alice = Device::new(server.register("alice").await, 0).await;
    let bob = Device::new(server.register("bob").await, 0).await;
    let shared = room(&alice.client).await;
    let filter = r#"{"room":{"rooms":[],"state":{"lazy_load_members":true}}}"#;
    let filter: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = |since: &str| format!("/_matrix/client/v3/sync?filter={filter}&since={since}");
    let since = |answer: &Value| answer["next_batch"].as_str().unwrap().to_owned();
    let start = since(&alice.client.get(&path("")).await.ok());
    join(&bob.client, &shared, "test").await;
    let answer = alice.client.get(&path(&start)).await.ok();
    assert!(lists(&answer, "changed", "@bob:test"));
    let middle = since(&answer);
    leave(&bob.client, &shared).await;
    for _ in 0..2 {
        let answer = alice.client.get(&path(&middle)).await.ok();
        assert!(lists(&answer, "left", "@bob:test"), "also when it is asked twice");
    }
}
