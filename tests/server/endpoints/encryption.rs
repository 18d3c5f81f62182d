//! Keys of devices and users, their signatures, and the backup of room keys.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use ruma::{CanonicalJsonObject, signatures::to_canonical_json_string_for_signing};
use serde_json::{Value, json};

use super::{
    cases,
    world::{User, World, auth, text},
};

cases! {
    uploadKeys(w) {
        let counts = w.alice.post("keys/upload", keys_of(&w.alice)).await.ok();
        assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 1);
        let found = query(w, &w.alice).await;
        assert_eq!(found["user_id"], w.alice.id());
        let stolen = w.bob.post("keys/upload", keys_of(&w.alice)).await;
        assert!(stolen.status.is_client_error() && !stolen.body["errcode"].is_null());
    }
    queryKeys(w) {
        w.alice.post("keys/upload", keys_of(&w.alice)).await.ok();
        assert_eq!(query(w, &w.alice).await["device_id"], w.alice.device());
        w.alice.post("keys/query", json!({"device_keys": 5})).await.refused(400, "M_BAD_JSON");
    }
    claimKeys(w) {
        w.alice.post("keys/upload", keys_of(&w.alice)).await.ok();
        let wanted = json!({w.alice.id(): {w.alice.device(): "signed_curve25519"}});
        let body = json!({"one_time_keys": wanted});
        let claimed = w.bob.post("keys/claim", body.clone()).await.ok();
        let of_device = |answer: &Value| {
            answer["one_time_keys"][w.alice.id()][w.alice.device()].clone()
        };
        assert!(of_device(&claimed).is_object(), "{claimed}");
        assert!(of_device(&w.bob.post("keys/claim", body).await.ok()).is_null(), "once");
        w.bob.post("keys/claim", json!({})).await.refused(400, "M_BAD_JSON");
    }
    getKeysChanges(w) {
        let from = w.synced(&w.bob).await["next_batch"].clone();
        w.alice.post("keys/upload", keys_of(&w.alice)).await.ok();
        let to = w.synced(&w.bob).await["next_batch"].clone();
        let path = format!("keys/changes?from={}&to={}", text(&from), text(&to));
        assert_eq!(w.bob.get(&path).await.ok()["changed"], json!([w.alice.id()]));
        w.bob.get("keys/changes?from=x&to=y").await.refused(400, "M_INVALID_PARAM");
    }
    uploadCrossSigningKeys(w) {
        w.alice.post("keys/device_signing/upload", cross_signing(&w.alice)).await.ok();
        let body = json!({"device_keys": {w.alice.id(): []}});
        let found = w.bob.post("keys/query", body).await.ok();
        let master = cross_signing(&w.alice)["master_key"].clone();
        assert_eq!(found["master_keys"][w.alice.id()]["keys"], master["keys"]);
        let stolen = w.bob.post("keys/device_signing/upload", cross_signing(&w.alice)).await;
        stolen.refused(400, "M_INVALID_PARAM");
    }
    uploadCrossSigningSignatures(w) {
        w.alice.post("keys/upload", keys_of(&w.alice)).await.ok();
        w.alice.post("keys/device_signing/upload", cross_signing(&w.alice)).await.ok();
        let device = keys_of(&w.alice)["device_keys"].clone();
        let signed = signed(device, w.alice.id(), &public(&key(2)), &key(2));
        let path = "keys/signatures/upload";
        let body = json!({w.alice.id(): {w.alice.device(): signed}});
        assert_eq!(w.alice.post(path, body).await.ok()["failures"], json!({}));
        let found = query(w, &w.alice).await;
        let signatures = found["signatures"][w.alice.id()].as_object().map(serde_json::Map::len);
        assert_eq!(signatures, Some(2), "{found}");
        w.nobody.post(path, json!({})).await.refused(401, "M_MISSING_TOKEN");
    }
    postRoomKeysVersion(w) {
        let version = backup(w).await;
        assert_eq!(w.alice.get("room_keys/version").await.ok()["version"], version.as_str());
        w.nobody.post("room_keys/version", about()).await.refused(401, "M_MISSING_TOKEN");
    }
    getRoomKeysVersionCurrent(w) {
        w.alice.get("room_keys/version").await.refused(404, "M_NOT_FOUND");
        let version = backup(w).await;
        assert_eq!(w.alice.get("room_keys/version").await.ok()["version"], version.as_str());
    }
    getRoomKeysVersion(w) {
        w.alice.get("room_keys/version/9").await.refused(404, "M_NOT_FOUND");
        let version = backup(w).await;
        let found = w.alice.get(&format!("room_keys/version/{version}")).await.ok();
        assert_eq!(found["auth_data"], about()["auth_data"]);
    }
    putRoomKeysVersion(w) {
        let version = backup(w).await;
        let path = format!("room_keys/version/{version}");
        let mut changed = about();
        changed["auth_data"]["more"] = "x".into();
        changed["version"] = version.as_str().into();
        w.alice.put(&path, changed.clone()).await.ok();
        assert_eq!(w.alice.get(&path).await.ok()["auth_data"]["more"], "x");
        w.bob.put(&path, changed).await.refused(404, "M_NOT_FOUND");
    }
    deleteRoomKeysVersion(w) {
        let version = backup(w).await;
        let path = format!("room_keys/version/{version}");
        w.alice.delete(&path, json!({})).await.ok();
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
        w.bob.delete(&path, json!({})).await.refused(404, "M_NOT_FOUND");
    }
    putRoomKeyBySessionId(w) { put_keys(w, "/!r:test/s", room_key()).await; }
    putRoomKeysByRoomId(w) { put_keys(w, "/!r:test", json!({"sessions": {"s": room_key()}})).await; }
    putRoomKeys(w) {
        put_keys(w, "", json!({"rooms": {"!r:test": {"sessions": {"s": room_key()}}}})).await;
    }
    getRoomKeyBySessionId(w) {
        let version = with_key(w).await;
        let found = w.alice.get(&format!("room_keys/keys/!r:test/s?version={version}")).await.ok();
        assert_eq!(found, room_key());
        let path = format!("room_keys/keys/!r:test/none?version={version}");
        w.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
    getRoomKeysByRoomId(w) {
        let version = with_key(w).await;
        let found = w.alice.get(&format!("room_keys/keys/!r:test?version={version}")).await.ok();
        assert_eq!(found, json!({"sessions": {"s": room_key()}}));
        w.bob.get("room_keys/keys/!r:test?version=9").await.refused(404, "M_NOT_FOUND");
    }
    getRoomKeys(w) {
        let version = with_key(w).await;
        let found = w.alice.get(&format!("room_keys/keys?version={version}")).await.ok();
        assert_eq!(found, json!({"rooms": {"!r:test": {"sessions": {"s": room_key()}}}}));
        w.bob.get("room_keys/keys?version=9").await.refused(404, "M_NOT_FOUND");
    }
    deleteRoomKeyBySessionId(w) { delete_keys(w, "/!r:test/s").await; }
    deleteRoomKeysByRoomId(w) { delete_keys(w, "/!r:test").await; }
    deleteRoomKeys(w) { delete_keys(w, "").await; }
}

/// Publishes nothing by itself: what alice's device says of itself, with a key for one session.
fn keys_of(user: &User) -> Value {
    let (id, device) = (user.id(), user.device());
    let keys = json!({
        "user_id": id, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): public(&key(9)),
            format!("curve25519:{device}"): public(&key(8)),
        },
    });
    let one_time = signed(json!({"key": public(&key(7))}), id, device, &key(9));
    json!({
        "device_keys": signed(keys, id, device, &key(9)),
        "one_time_keys": {"signed_curve25519:AAAA": one_time},
    })
}

/// A user's three keys.
fn cross_signing(user: &User) -> Value {
    let (id, master) = (user.id(), key(1));
    let object = |usage: &str, key: &SigningKey| {
        let name = public(key);
        json!({"user_id": id, "usage": [usage], "keys": {format!("ed25519:{name}"): name}})
    };
    let below =
        |usage: &str, key: &SigningKey| signed(object(usage, key), id, &public(&master), &master);
    json!({
        "master_key": object("master", &master),
        "self_signing_key": below("self_signing", &key(2)),
        "user_signing_key": below("user_signing", &key(3)),
        "auth": auth("alice", "password"),
    })
}

/// `object` with a signature, by the key of this name.
fn signed(mut object: Value, user: &str, name: &str, by: &SigningKey) -> Value {
    let canonical: CanonicalJsonObject = serde_json::from_value(object.clone()).expect("an object");
    let signable = to_canonical_json_string_for_signing(&canonical).expect("an object");
    let signature = BASE64_STANDARD_NO_PAD.encode(by.sign(signable.as_bytes()).to_bytes());
    object["signatures"][user][format!("ed25519:{name}")] = signature.into();
    object
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> String {
    BASE64_STANDARD_NO_PAD.encode(key.verifying_key().as_bytes())
}

/// What bob is told of a user's device.
async fn query(w: &World, user: &User) -> Value {
    let body = json!({"device_keys": {user.id(): []}});
    let found = w.bob.post("keys/query", body).await.ok();
    found["device_keys"][user.id()][user.device()].clone()
}

fn about() -> Value {
    json!({
        "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
        "auth_data": {"public_key": "abcdefg", "signatures": {}},
    })
}

fn room_key() -> Value {
    json!({
        "first_message_index": 1, "forwarded_count": 0, "is_verified": true,
        "session_data": {"ciphertext": "abc", "ephemeral": "def", "mac": "ghi"},
    })
}

/// A new backup of alice's, and its version.
async fn backup(w: &World) -> String {
    let made = w.alice.post("room_keys/version", about()).await.ok();
    text(&made["version"]).to_owned()
}

/// A backup that holds one key.
async fn with_key(w: &World) -> String {
    let version = backup(w).await;
    let path = format!("room_keys/keys/!r:test/s?version={version}");
    w.alice.put(&path, room_key()).await.ok();
    version
}

/// Stores one key at a place, and finds it.
async fn put_keys(w: &World, place: &str, body: Value) {
    let version = backup(w).await;
    let path = format!("room_keys/keys{place}?version={version}");
    assert_eq!(w.alice.put(&path, body.clone()).await.ok()["count"], 1);
    let found = w.alice.get(&format!("room_keys/keys/!r:test/s?version={version}")).await.ok();
    assert_eq!(found, room_key());
    w.bob.put(&path, body).await.refused(404, "M_NOT_FOUND");
}

/// Deletes one key at a place, and finds it no more.
async fn delete_keys(w: &World, place: &str) {
    let version = with_key(w).await;
    let path = format!("room_keys/keys{place}?version={version}");
    assert_eq!(w.alice.delete(&path, json!({})).await.ok()["count"], 0);
    let found = w.alice.get(&format!("room_keys/keys/!r:test/s?version={version}")).await;
    found.refused(404, "M_NOT_FOUND");
    w.bob.delete(&path, json!({})).await.refused(404, "M_NOT_FOUND");
}
