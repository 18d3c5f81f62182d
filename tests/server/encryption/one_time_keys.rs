//! One-time keys: each given once; and what is refused.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{TestClock, TestServer};
use serde_json::{Value, json};

use super::device::Device;

/// The IDs of the keys in the answer to a claim.
fn claimed(answer: &Value) -> Vec<String> {
    let devices = answer["one_time_keys"].as_object().unwrap().values();
    let keys = devices.flat_map(|devices| devices.as_object().unwrap().values());
    keys.flat_map(|keys| keys.as_object().unwrap().keys().cloned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_is_given_once_to_many_who_claim_at_once_and_across_a_restart() {
    let engine = MemoryEngine::new();
    let start = || {
        let engine = Arc::new(engine.clone());
        async { TestServer::start_on(engine, &TestServer::config(), TestClock::default()).await }
    };
    let server = start().await;
    let mut alice = Device::new(server.register("alice").await, 0).await;
    let keys = alice.new_one_time_keys(40);
    let answer = alice.upload(json!({ "one_time_keys": keys })).await;
    assert_eq!(answer["one_time_key_counts"]["signed_curve25519"], 40);
    let bob = Device::new(server.register("bob").await, 0).await;
    let claims = (0..30).map(|_| bob.claim("@alice:test", alice.id()));
    let mut given: BTreeSet<String> = BTreeSet::new();
    for answer in join_all(claims).await {
        for id in claimed(&answer) {
            assert!(given.insert(id), "given twice");
        }
    }
    assert_eq!(given.len(), 30);
    server.stop().await;
    let server = start().await;
    let (alice, bob) = (alice.client.on(&server), bob.client.on(&server));
    let body =
        json!({ "one_time_keys": { "@alice:test": { alice.device(): "signed_curve25519" } } });
    for _ in 0..10 {
        let answer = bob.post("/_matrix/client/v3/keys/claim", body.clone()).await.ok();
        assert!(claimed(&answer).into_iter().all(|id| given.insert(id)), "given twice");
    }
    assert_eq!(given.len(), 40);
    let answer = bob.post("/_matrix/client/v3/keys/claim", body.clone()).await.ok();
    assert_eq!(answer["one_time_keys"], json!({}), "none is left");
    // The client did not hear that its upload arrived, and repeats it.
    let upload = json!({ "one_time_keys": keys });
    let answer = alice.post("/_matrix/client/v3/keys/upload", upload).await.ok();
    assert_eq!(answer["one_time_key_counts"], json!({}), "what was given is not taken again");
}

#[tokio::test]
async fn sync_tells_how_many_are_left_and_the_fallback_key_is_given_when_none_is() {
    let server = TestServer::start().await;
    let mut alice = Device::new(server.register("alice").await, 1).await;
    let fallback = alice.new_fallback_key();
    let bob = Device::new(server.register("bob").await, 0).await;
    let answer = alice.sync().await;
    assert_eq!(answer["device_one_time_keys_count"]["signed_curve25519"], 1);
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
    alice.upload(json!({ "fallback_keys": fallback })).await;
    let now = "/_matrix/client/v3/sync";
    let answer = alice.client.get(now).await.ok();
    assert_eq!(answer["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
    let one_time = bob.claim("@alice:test", alice.id()).await;
    assert_eq!(claimed(&one_time).len(), 1);
    let answer = alice.client.get(now).await.ok();
    assert_eq!(answer["device_one_time_keys_count"], json!({}));
    assert_eq!(answer["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
    for _ in 0..2 {
        let again = bob.claim("@alice:test", alice.id()).await;
        assert_eq!(again["one_time_keys"]["@alice:test"][alice.id()], fallback);
        assert_ne!(again, one_time);
    }
    let answer = alice.client.get(now).await.ok();
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
}

#[tokio::test]
async fn bad_keys_are_refused_with_the_right_errcode_and_nothing_of_them_is_kept() {
    let server = TestServer::start().await;
    let mut alice = Device::new(server.register("alice").await, 0).await;
    let bob = Device::new(server.register("bob").await, 0).await;
    let path = "/_matrix/client/v3/keys/upload";
    let good = alice.new_one_time_keys(1);
    let (id, key) = good.as_object().unwrap().iter().next().unwrap();
    let mut forged = key.clone();
    forged["key"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
    let mut signed_wrongly = alice.device_keys();
    signed_wrongly["algorithms"] = json!(["other"]);
    let mut incomplete = alice.device_keys();
    incomplete.as_object_mut().unwrap().remove("keys");
    for (body, errcode) in [
        (json!({ "one_time_keys": { id: forged } }), "M_INVALID_SIGNATURE"),
        (json!({ "one_time_keys": { id: key, "curve25519:A": "text" } }), "M_BAD_JSON"),
        (json!({ "one_time_keys": { id: key, "ed25519:A": key } }), "M_INVALID_PARAM"),
        (json!({ "one_time_keys": { id: { "key": "AAAA" } } }), "M_BAD_JSON"),
        (json!({ "fallback_keys": { id: forged } }), "M_INVALID_SIGNATURE"),
        (json!({ "device_keys": signed_wrongly }), "M_INVALID_SIGNATURE"),
        (json!({ "device_keys": incomplete }), "M_BAD_JSON"),
        (json!({ "device_keys": bob.device_keys() }), "M_INVALID_PARAM"),
    ] {
        alice.client.post(path, body).await.refused(400, errcode);
    }
    let answer = alice.upload(json!({})).await;
    assert_eq!(answer["one_time_key_counts"], json!({}));
    alice.upload(json!({ "one_time_keys": good })).await;
    alice.upload(json!({ "one_time_keys": good })).await;
    let other = alice.signed(json!({ "key": alice.account.curve25519_key().to_base64() }));
    let refused = alice.client.post(path, json!({ "one_time_keys": { id: other } })).await;
    refused.refused(400, "M_INVALID_PARAM");
    assert!(refused.body["error"].as_str().unwrap().starts_with("One time key "));
    let fresh = server.register("carol").await;
    let upload = fresh.post(path, json!({ "one_time_keys": good })).await;
    upload.refused(400, "M_INVALID_PARAM");
}
