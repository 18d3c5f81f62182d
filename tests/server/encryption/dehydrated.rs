//! Dehydrated devices (MSC3814).

use millrace_test_support::TestServer;
use serde_json::{Value, json};
use vodozemac::olm::Account;

use super::device::{Device, signable};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// A device that is put away.
fn asleep(user: &str, id: &str) -> Value {
    let mut account = Account::new();
    account.generate_one_time_keys(1);
    let signed = |mut object: Value| {
        let signature = account.sign(signable(&object)).to_base64();
        object["signatures"][user][format!("ed25519:{id}")] = signature.into();
        object
    };
    let one_time = account.one_time_keys().into_values().next().unwrap();
    json!({
        "device_id": id,
        "initial_device_display_name": "asleep",
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "abc", "nonce": "def" },
        "device_keys": signed(json!({
            "user_id": user,
            "device_id": id,
            "algorithms": [],
            "dehydrated": true,
            "keys": {
                format!("ed25519:{id}"): account.ed25519_key().to_base64(),
                format!("curve25519:{id}"): account.curve25519_key().to_base64(),
            },
        })),
        "one_time_keys": {
            "signed_curve25519:A": signed(json!({ "key": one_time.to_base64() })),
        },
    })
}

#[tokio::test]
async fn a_device_sleeps_is_sent_messages_and_is_taken_over() {
    let server = TestServer::start().await;
    let alice = Device::new(server.register("alice").await, 0).await;
    let bob = Device::new(server.register("bob").await, 0).await;
    alice.client.get(PATH).await.refused(404, "M_NOT_FOUND");
    let first = asleep("@alice:test", "ASLEEP1");
    alice.client.put(PATH, first.clone()).await.ok();
    let kept = alice.client.get(PATH).await.ok();
    assert_eq!(kept, json!({ "device_id": "ASLEEP1", "device_data": first["device_data"] }));
    let seen = bob.query(&["@alice:test"]).await;
    assert_eq!(seen["device_keys"]["@alice:test"]["ASLEEP1"]["dehydrated"], true);
    let claimed = bob.claim("@alice:test", "ASLEEP1").await;
    assert!(claimed["one_time_keys"]["@alice:test"]["ASLEEP1"].is_object());
    for n in 0..3 {
        let path = format!("/_matrix/client/v3/sendToDevice/m.test/{n}");
        let body = json!({ "messages": { "@alice:test": { "ASLEEP1": { "n": n } } } });
        bob.client.put(&path, body).await.ok();
    }
    let events = format!("{PATH}/ASLEEP1/events");
    for _ in 0..2 {
        let answer = alice.client.post(&events, json!({})).await.ok();
        let found: Vec<_> = answer["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["content"]["n"])
            .collect();
        assert_eq!(found, [0, 1, 2], "they stay until the device is gone");
        let more = json!({ "next_batch": answer["next_batch"] });
        let answer = alice.client.post(&events, more).await.ok();
        assert_eq!(answer["events"], json!([]));
    }
    let other = format!("{PATH}/OTHER/events");
    alice.client.post(&other, json!({})).await.refused(403, "M_FORBIDDEN");
    alice.client.put(PATH, asleep("@alice:test", "ASLEEP2")).await.ok();
    let seen = bob.query(&["@alice:test"]).await;
    let devices = seen["device_keys"]["@alice:test"].as_object().unwrap();
    assert!(!devices.contains_key("ASLEEP1") && devices.contains_key("ASLEEP2"));
    let deleted = alice.client.delete(PATH, json!({})).await.ok();
    assert_eq!(deleted, json!({ "device_id": "ASLEEP2" }));
    alice.client.get(PATH).await.refused(404, "M_NOT_FOUND");
    let mut in_use = asleep("@alice:test", alice.id());
    alice.client.put(PATH, in_use.clone()).await.refused(400, "M_INVALID_PARAM");
    in_use["device_id"] = "ASLEEP3".into();
    alice.client.put(PATH, in_use).await.refused(400, "M_INVALID_PARAM");
    let versions = alice.client.get("/_matrix/client/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc3814"], true);
}
