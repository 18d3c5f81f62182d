//! Two users with two devices each, one user here and one on another server.

use millrace_test_support::{Network, TestServer};
use serde_json::Value;
use vodozemac::megolm::{self, GroupSession};

use super::{device::Device, join, lists, room};

#[tokio::test]
async fn a_message_is_read_by_all_devices_of_both_users_on_two_servers() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let alice = Device::new(one.register("alice").await, 5).await;
    let alice_2 = Device::log_in(&one, "alice", 5).await;
    let bob = Device::new(two.register("bob").await, 5).await;
    let bob_2 = Device::log_in(&two, "bob", 5).await;
    let room = room(&alice.client).await;
    join(&bob.client, &room, "one").await;

    for (sender, others) in
        [(&alice, ["@alice:one", "@bob:two"]), (&bob, ["@bob:two", "@alice:one"])]
    {
        let queried = sender.query(&others).await;
        for user in others {
            let devices = queried["device_keys"][user].as_object().unwrap();
            assert_eq!(devices.len(), 2, "{user} has two devices");
        }
    }

    let mut session = GroupSession::new(megolm::SessionConfig::version_1());
    let queried = alice.query(&["@alice:one", "@bob:two"]).await;
    let devices = queried["device_keys"].as_object().unwrap().values();
    for keys in devices.flat_map(|devices| devices.as_object().unwrap().values()) {
        if keys["device_id"] != alice.id() || keys["user_id"] != "@alice:one" {
            alice.share(&session, keys).await;
        }
    }
    alice.say(&room, &mut session, "secret").await;
    for mut device in [alice_2, bob, bob_2] {
        device.sync_until(|device, _| device.can_read()).await;
        let mut received = device.received_session();
        assert_eq!(device.read(&mut received), "secret", "{} {}", device.user(), device.id());
    }
}

#[tokio::test]
async fn a_new_device_on_another_server_is_told_of_and_its_keys_are_had_without_asking_again() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let mut alice = Device::new(one.register("alice").await, 1).await;
    let bob = Device::new(two.register("bob").await, 1).await;
    let room = room(&alice.client).await;
    join(&bob.client, &room, "one").await;
    alice.sync().await;
    let devices = |answer: &Value| answer["device_keys"]["@bob:two"].as_object().unwrap().len();
    assert_eq!(devices(&alice.query(&["@bob:two"]).await), 1);
    let second = Device::log_in(&two, "bob", 1).await;
    let told = |_: &Device, answer: &Value| lists(answer, "changed", "@bob:two");
    alice.sync_until(told).await;
    for _ in 0..50 {
        if devices(&alice.query(&["@bob:two"]).await) == 2 {
            break;
        }
        alice.sync().await;
    }
    // Both came with their updates: their server is not needed.
    network.cut("one", "two");
    let queried = alice.query(&["@bob:two"]).await;
    assert_eq!(devices(&queried), 2);
    assert!(queried["failures"].as_object().is_none_or(serde_json::Map::is_empty));
    network.mend("one", "two");
    second.client.post("/_matrix/client/v3/logout", serde_json::json!({})).await.ok();
    alice.sync_until(told).await;
    network.cut("one", "two");
    assert_eq!(devices(&alice.query(&["@bob:two"]).await), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_failure_and_holds_up_no_other_user() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let alice = Device::new(one.register("alice").await, 1).await;
    let bob = Device::new(two.register("bob").await, 1).await;
    network.cut("one", "two");
    let queried = alice.query(&["@alice:one", "@bob:two"]).await;
    assert!(queried["failures"]["two"].is_object());
    assert!(queried["device_keys"]["@bob:two"].is_null());
    assert_eq!(queried["device_keys"]["@alice:one"].as_object().unwrap().len(), 1);
    let claimed = alice.claim("@bob:two", bob.id()).await;
    assert!(claimed["failures"]["two"].is_object());
}
