//! Backups of room keys, over HTTP.

use millrace_test_support::TestServer;
use serde_json::{Value, json};

const VERSION: &str = "/_matrix/client/v3/room_keys/version";
const KEYS: &str = "/_matrix/client/v3/room_keys/keys";

fn key(index: u64) -> Value {
    json!({
        "first_message_index": index,
        "forwarded_count": 0,
        "is_verified": true,
        "session_data": { "ciphertext": "abc", "ephemeral": "def", "mac": "ghi" },
    })
}

fn backup() -> Value {
    json!({
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": { "public_key": "abcdefg", "signatures": {} },
    })
}

#[tokio::test]
async fn keys_are_stored_read_and_deleted_by_session_by_room_and_all_at_once() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    alice.get(VERSION).await.refused(404, "M_NOT_FOUND");
    let version = alice.post(VERSION, backup()).await.ok()["version"].clone();
    let version = version.as_str().unwrap();
    let at = |place: &str| format!("{KEYS}{place}?version={version}");
    let state = alice.put(&at("/!a:x/s1"), key(1)).await.ok();
    assert_eq!(state["count"], 1);
    let info = alice.get(VERSION).await.ok();
    assert_eq!(info["etag"], state["etag"]);
    assert_eq!((&info["count"], &info["auth_data"]), (&json!(1), &backup()["auth_data"]));
    alice.put(&at("/!a:x"), json!({ "sessions": { "s2": key(2) } })).await.ok();
    let rooms = json!({ "rooms": { "!b:x": { "sessions": { "s3": key(3) } } } });
    let state = alice.put(&at(""), rooms).await.ok();
    assert_eq!(state["count"], 3);
    assert_eq!(alice.get(&at("/!a:x/s1")).await.ok(), key(1));
    let room = alice.get(&at("/!a:x")).await.ok();
    assert_eq!(room, json!({ "sessions": { "s1": key(1), "s2": key(2) } }));
    let all = alice.get(&at("")).await.ok();
    assert_eq!(all["rooms"]["!b:x"]["sessions"]["s3"], key(3));
    alice.get(&at("/!a:x/unknown")).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get(&at("/!unknown:x")).await.ok(), json!({ "sessions": {} }));
    assert_eq!(alice.delete(&at("/!a:x/s1"), json!({})).await.ok()["count"], 2);
    assert_eq!(alice.delete(&at("/!a:x"), json!({})).await.ok()["count"], 1);
    assert_eq!(alice.delete(&at(""), json!({})).await.ok()["count"], 0);
    assert_eq!(alice.get(&at("")).await.ok(), json!({ "rooms": {} }));
    let bob = server.register("bob").await;
    bob.get(&at("")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn versions_are_updated_replaced_and_deleted() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let first = alice.post(VERSION, backup()).await.ok()["version"].clone();
    let first = format!("{VERSION}/{}", first.as_str().unwrap());
    let mut changed = backup();
    changed["auth_data"]["public_key"] = "other".into();
    alice.put(&first, changed.clone()).await.ok();
    assert_eq!(alice.get(&first).await.ok()["auth_data"], changed["auth_data"]);
    changed["algorithm"] = "other".into();
    alice.put(&first, changed.clone()).await.refused(400, "M_INVALID_PARAM");
    changed["version"] = "99".into();
    alice.put(&first, changed).await.refused(400, "M_INVALID_PARAM");
    let second = alice.post(VERSION, backup()).await.ok()["version"].clone();
    let old = format!("{KEYS}/!a:x/s?version={}", first.rsplit_once('/').unwrap().1);
    let refused = alice.put(&old, key(1)).await;
    refused.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(refused.body["current_version"], second);
    alice.put(&format!("{KEYS}/!a:x/s?version=99"), key(1)).await.refused(404, "M_NOT_FOUND");
    let second = format!("{VERSION}/{}", second.as_str().unwrap());
    for _ in 0..2 {
        alice.delete(&second, json!({})).await.ok();
    }
    alice.get(&second).await.refused(404, "M_NOT_FOUND");
    alice.delete(&format!("{VERSION}/99"), json!({})).await.refused(404, "M_NOT_FOUND");
    assert!(alice.get(VERSION).await.ok()["version"].is_string(), "the one before is left");
    let wrong = json!({ "algorithm": "a", "auth_data": "text" });
    alice.post(VERSION, wrong).await.refused(400, "M_BAD_JSON");
    alice.put(&old, json!({ "is_verified": true })).await.refused(400, "M_BAD_JSON");
}
