//! Keys for cross-signing, who may replace them, and which signatures are seen by whom.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use millrace_test_support::{Network, TestServer};
use serde_json::{Value, json};

use super::{
    device::{Device, signable},
    join, lists, room,
};

const UPLOAD: &str = "/_matrix/client/v3/keys/device_signing/upload";
const SIGN: &str = "/_matrix/client/v3/keys/signatures/upload";

/// A user's three keys.
struct Keys {
    user: String,
    master: SigningKey,
    self_signing: SigningKey,
    user_signing: SigningKey,
}

fn name(key: &SigningKey) -> String {
    BASE64_STANDARD_NO_PAD.encode(key.verifying_key().as_bytes())
}

impl Keys {
    fn new(user: &str, seed: u8) -> Self {
        let key = |n| SigningKey::from_bytes(&[seed + n; 32]);
        let user = user.to_owned();
        Self { user, master: key(0), self_signing: key(1), user_signing: key(2) }
    }

    fn object(&self, usage: &str, key: &SigningKey) -> Value {
        let name = name(key);
        json!({
            "user_id": self.user,
            "usage": [usage],
            "keys": { format!("ed25519:{name}"): name },
        })
    }

    fn signed(&self, mut object: Value, key: &SigningKey) -> Value {
        let signature = key.sign(signable(&object).as_bytes()).to_bytes();
        let signature = BASE64_STANDARD_NO_PAD.encode(signature);
        object["signatures"][&self.user][format!("ed25519:{}", name(key))] = signature.into();
        object
    }

    fn upload(&self) -> Value {
        json!({
            "master_key": self.object("master", &self.master),
            "self_signing_key":
                self.signed(self.object("self_signing", &self.self_signing), &self.master),
            "user_signing_key":
                self.signed(self.object("user_signing", &self.user_signing), &self.master),
        })
    }
}

#[tokio::test]
async fn the_first_keys_and_the_same_ones_need_no_password_but_others_do() {
    let server = TestServer::start().await;
    let alice = Device::new(server.register("alice").await, 0).await;
    let keys = Keys::new("@alice:test", 10);
    for _ in 0..2 {
        alice.client.post(UPLOAD, keys.upload()).await.ok();
    }
    let queried = alice.query(&["@alice:test"]).await;
    assert_eq!(queried["master_keys"]["@alice:test"], keys.upload()["master_key"]);
    assert_eq!(queried["self_signing_keys"]["@alice:test"], keys.upload()["self_signing_key"]);
    assert_eq!(queried["user_signing_keys"]["@alice:test"], keys.upload()["user_signing_key"]);
    let others = Keys::new("@alice:test", 20);
    let mut upload = others.upload();
    let asked = alice.client.post(UPLOAD, upload.clone()).await;
    assert_eq!(asked.status, 401);
    upload["auth"] = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "password",
        "session": asked.body["session"],
    });
    alice.client.post(UPLOAD, upload).await.ok();
    let queried = alice.query(&["@alice:test"]).await;
    assert_eq!(queried["master_keys"]["@alice:test"], others.upload()["master_key"]);
}

#[tokio::test]
async fn bad_keys_for_cross_signing_are_refused() {
    let server = TestServer::start().await;
    let alice = Device::new(server.register("alice").await, 0).await;
    let keys = Keys::new("@alice:test", 10);
    let other = Keys::new("@alice:test", 20);
    let mut upload = keys.upload();
    upload.as_object_mut().unwrap().remove("master_key");
    alice.client.post(UPLOAD, upload).await.refused(400, "M_MISSING_PARAM");
    let mut upload = keys.upload();
    upload["self_signing_key"] = other.upload()["self_signing_key"].clone();
    alice.client.post(UPLOAD, upload).await.refused(400, "M_INVALID_SIGNATURE");
    let mut upload = keys.upload();
    upload["master_key"]["user_id"] = "@bob:test".into();
    alice.client.post(UPLOAD, upload).await.refused(400, "M_INVALID_PARAM");
    let mut upload = keys.upload();
    upload["master_key"]["keys"] = json!({ "ed25519:x": "x" });
    alice.client.post(UPLOAD, upload).await.refused(400, "M_BAD_JSON");
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "password",
        "device_id": name(&keys.master),
    });
    server.client().post("/_matrix/client/v3/login", body).await.ok();
    alice.client.post(UPLOAD, keys.upload()).await.refused(403, "M_FORBIDDEN");
    let queried = alice.query(&["@alice:test"]).await;
    assert!(queried["master_keys"]["@alice:test"].is_null());
    alice.client.post(UPLOAD, other.upload()).await.ok();
    let body = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "password",
        "device_id": name(&other.master),
    });
    let answer = server.client().post("/_matrix/client/v3/login", body).await.ok();
    assert_ne!(answer["device_id"], name(&other.master), "a device is not named like a key");
}

#[tokio::test]
async fn signatures_on_own_keys_are_seen_by_all_and_those_on_others_by_their_maker_only() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let mut alice = Device::new(one.register("alice").await, 0).await;
    let bob = Device::new(two.register("bob").await, 0).await;
    let room = room(&alice.client).await;
    join(&bob.client, &room, "one").await;
    let (hers, his) = (Keys::new("@alice:one", 10), Keys::new("@bob:two", 20));
    alice.client.post(UPLOAD, hers.upload()).await.ok();
    alice.sync().await; // the first one tells no changes
    bob.client.post(UPLOAD, his.upload()).await.ok();
    alice.sync_until(|_, answer| lists(answer, "changed", "@bob:two")).await;

    let own_device = hers.signed(alice.device_keys(), &hers.self_signing);
    let own_master = alice.signed(hers.object("master", &hers.master));
    let his_master = hers.signed(his.object("master", &his.master), &hers.user_signing);
    let forged = his.signed(alice.device_keys(), &his.self_signing);
    let wrong = hers.signed(his.object("master", &his.self_signing), &hers.user_signing);
    let body = json!({
        "@alice:one": {
            alice.id(): own_device,
            name(&hers.master): own_master,
            "UNKNOWN": own_device,
        },
        "@bob:two": {
            name(&his.master): his_master,
            name(&his.self_signing): wrong,
        },
    });
    let answer = alice.client.post(SIGN, body).await.ok();
    assert_eq!(answer["failures"]["@alice:one"]["UNKNOWN"]["errcode"], "M_NOT_FOUND");
    assert_eq!(answer["failures"]["@alice:one"].as_object().unwrap().len(), 1);
    let failed = &answer["failures"]["@bob:two"][name(&his.self_signing)];
    assert_eq!(failed["errcode"], "M_NOT_FOUND");
    assert_eq!(answer["failures"]["@bob:two"].as_object().unwrap().len(), 1);
    let mut tampered = own_device.clone();
    tampered["algorithms"] = json!([]);
    let mut unsigned = own_device.clone();
    let key_id = format!("ed25519:{}", name(&hers.self_signing));
    unsigned["signatures"]["@alice:one"][&key_id] =
        forged["signatures"]["@bob:two"][format!("ed25519:{}", name(&his.self_signing))].clone();
    for (object, errcode) in [(tampered, "M_INVALID_PARAM"), (unsigned, "M_INVALID_SIGNATURE")] {
        let body = json!({ "@alice:one": { alice.id(): object } });
        let answer = alice.client.post(SIGN, body).await.ok();
        assert_eq!(answer["failures"]["@alice:one"][alice.id()]["errcode"], errcode);
    }

    let by_hers = format!("ed25519:{}", name(&hers.user_signing));
    let answer = alice.sync_until(|_, answer| lists(answer, "changed", "@bob:two")).await;
    assert!(lists(&answer, "changed", "@alice:one"), "her other devices look again");
    let seen = alice.query(&["@bob:two", "@alice:one"]).await;
    let signature = &seen["master_keys"]["@bob:two"]["signatures"]["@alice:one"][&by_hers];
    assert!(signature.is_string(), "{seen}");
    let seen = bob.query(&["@bob:two", "@alice:one"]).await;
    assert!(seen["master_keys"]["@bob:two"]["signatures"]["@alice:one"].is_null());
    assert!(seen["user_signing_keys"]["@alice:one"].is_null());
    let signed = &seen["device_keys"]["@alice:one"][alice.id()]["signatures"]["@alice:one"];
    assert!(signed[&key_id].is_string(), "{seen}");
    let by_device = format!("ed25519:{}", alice.id());
    assert!(seen["master_keys"]["@alice:one"]["signatures"]["@alice:one"][&by_device].is_string());
    // The device uploads its keys again, without the signature.
    alice.upload(json!({ "device_keys": alice.device_keys() })).await;
    let seen = alice.query(&["@alice:one"]).await;
    let signed = &seen["device_keys"]["@alice:one"][alice.id()]["signatures"]["@alice:one"];
    assert!(signed[&key_id].is_string(), "it is not lost");
}
