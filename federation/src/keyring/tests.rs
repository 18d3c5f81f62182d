use std::time::Duration;

use bytes::Bytes;
use ruma::{OwnedServerName, owned_server_name, server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    Settings,
    testing::{DAY_MS, START_MS, World, key, published, signed},
};

const HOUR: Duration = Duration::from_secs(3600);

fn k() -> OwnedServerSigningKeyId {
    "ed25519:k".try_into().unwrap()
}

async fn has(world: &World, server: &str) -> bool {
    let server: OwnedServerName = server.try_into().unwrap();
    world.federation.keyring.key(&server, &k()).await.is_ok()
}

fn at(ms: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(ruma::UInt::new(ms).unwrap())
}

async fn until(world: &World, server: &ServerName, key: &str, wanted_at: u64) -> Option<u64> {
    let mut wanted = WantedKeys::default();
    let key = OwnedServerSigningKeyId::try_from(key).unwrap();
    wanted.add(server, &key, at(wanted_at));
    let keys = world.federation.keyring.keys(&wanted).await;
    keys.find(server, &key).map(|key| key.until.0.into())
}

#[tokio::test]
async fn those_who_wait_for_the_same_server_share_one_request() {
    let world = World::new(Settings::default()).await;
    world.publish("one");
    let waiting = (0..50).map(|_| has(&world, "one"));
    assert!(futures::future::join_all(waiting).await.into_iter().all(|has| has));
    assert_eq!(world.peers.asked("one"), 1);
}

#[tokio::test]
async fn keys_outlive_a_restart_and_are_asked_for_again_when_half_their_time_is_over() {
    let world = World::new(Settings::default()).await;
    world.publish("one");
    assert!(has(&world, "one").await);
    let world = world.restarted().await;
    assert!(has(&world, "one").await);
    assert_eq!(world.peers.asked("one"), 1);
    world.peers.answer("one", |_| published("one", &key("one"), START_MS + 3 * DAY_MS));
    world.clock.advance(13 * HOUR);
    assert!(has(&world, "one").await);
    while world.peers.asked("one") < 2 {
        tokio::task::yield_now().await;
    }
    world.clock.advance(HOUR * 24);
    assert!(has(&world, "one").await);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone_for_a_while() {
    let world = World::new(Settings::default()).await;
    assert!(!has(&world, "one").await);
    assert!(!has(&world, "one").await);
    assert_eq!(world.peers.asked("one"), 1);
    world.clock.advance(Duration::from_secs(3));
    assert!(!has(&world, "one").await);
    world.clock.advance(Duration::from_secs(3));
    assert!(!has(&world, "one").await);
    assert_eq!(world.peers.asked("one"), 2);
    world.publish("one");
    world.clock.advance(Duration::from_secs(120));
    assert!(has(&world, "one").await);
}

#[tokio::test]
async fn naming_keys_that_do_not_exist_does_not_make_us_ask_again_and_again() {
    let world = World::new(Settings::default()).await;
    world.publish("one");
    for n in 0..20 {
        assert_eq!(until(&world, server_name!("one"), &format!("ed25519:x{n}"), 0).await, None);
    }
    assert_eq!(world.peers.asked("one"), 1);
}

#[tokio::test]
async fn keys_that_do_not_name_their_server_or_are_not_signed_are_no_keys() {
    let good = published("one", &key("one"), START_MS + DAY_MS);
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    let mut changed = good.clone();
    changed["valid_until_ts"] = json!(START_MS + 5 * DAY_MS);
    let foreign = published("two", &key("two"), START_MS + DAY_MS);
    let huge = signed("one", &key("one"), {
        let mut huge = good.clone();
        huge["x"] = json!("x".repeat(70_000));
        huge
    });
    for bad in [unsigned, changed, foreign, huge, json!([]), json!({ "server_name": "one" })] {
        let world = World::new(Settings::default()).await;
        let answer = bad.clone();
        world.peers.answer("one", move |_| answer.clone());
        assert!(!has(&world, "one").await, "{bad}");
    }
}

#[tokio::test]
async fn old_keys_are_good_up_to_their_end_and_new_ones_for_a_week_at_most() {
    let world = World::new(Settings::default()).await;
    let (new, old) = (key("new"), key("old"));
    let said = signed(
        "one",
        &new,
        json!({
            "server_name": "one", "valid_until_ts": START_MS + 400 * DAY_MS,
            "verify_keys": { "ed25519:k": { "key": new.public_base64() }, "rsa:x": { "key": "AAAA" } },
            "old_verify_keys": { "ed25519:old": { "key": old.public_base64(), "expired_ts": 1000 } },
        }),
    );
    world.peers.answer("one", move |_| said.clone());
    let one = server_name!("one");
    assert_eq!(until(&world, one, "ed25519:old", 500).await, Some(1000));
    assert_eq!(until(&world, one, "ed25519:k", 500).await, Some(START_MS + 7 * DAY_MS));
    let old = "ed25519:old".try_into().unwrap();
    assert!(world.federation.keyring.key(one, &old).await.is_err());
}

fn notary_answers(request: &http::Request<Bytes>) -> Value {
    let asked: Value = serde_json::from_slice(request.body()).unwrap();
    let servers = asked["server_keys"].as_object().unwrap().keys();
    let told: Vec<_> = servers
        .filter(|server| *server != "three")
        .map(|server| {
            let said = published(server, &key(server), START_MS + DAY_MS);
            signed("notary", &key("notary"), said)
        })
        .collect();
    json!({ "server_keys": told })
}

#[tokio::test]
async fn a_notary_is_asked_for_those_who_do_not_answer_and_first_for_many() {
    let notaries = vec![owned_server_name!("absent"), owned_server_name!("notary")];
    let world = World::new(Settings { notaries, ..Settings::default() }).await;
    world.peers.answer("notary", notary_answers);
    assert!(has(&world, "one").await);
    assert!(!has(&world, "three").await);
    let asked = world.peers.asked("notary");
    let mut wanted = WantedKeys::default();
    for n in 0..150 {
        wanted.add(&OwnedServerName::try_from(format!("s{n}")).unwrap(), &k(), at(0));
    }
    let keys = world.federation.keyring.keys(&wanted).await;
    assert!((0..150).all(|n| {
        keys.find(&OwnedServerName::try_from(format!("s{n}")).unwrap(), &k()).is_some()
    }));
    assert_eq!(world.peers.asked("notary"), asked + 2, "150 servers are two questions");
    assert_eq!(world.peers.asked("s1"), 0);
}

#[tokio::test]
async fn a_notary_cannot_change_a_key_or_tell_one_that_its_server_has_not_signed() {
    let notaries = vec![owned_server_name!("notary")];
    let world = World::new(Settings { notaries, ..Settings::default() }).await;
    world.publish("one");
    assert!(has(&world, "one").await);
    let lie = published("one", &key("liar"), START_MS + 6 * DAY_MS);
    let mut unsigned = published("two", &key("two"), START_MS + DAY_MS);
    unsigned["signatures"] = signed("two", &key("liar"), unsigned.clone())["signatures"].clone();
    world.peers.answer("notary", move |_| json!({ "server_keys": [lie, unsigned, 3] }));
    world.peers.leave("one");
    world.clock.advance(HOUR * 30);
    assert!(!has(&world, "one").await);
    let known = world.federation.keyring.0.known.find(server_name!("one")).unwrap();
    assert_eq!(known.keys[&k()].key.encode(), key("one").public_base64());
    assert!(!has(&world, "two").await);
}

fn signers(keys: &ruma::serde::Raw<impl Sized>) -> Vec<String> {
    let keys: Value = serde_json::from_str(keys.json().get()).unwrap();
    keys["signatures"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn as_a_notary_we_sign_what_others_publish_and_keep_it_for_when_they_are_gone() {
    let world = World::new(Settings::default()).await;
    world.publish("one");
    let keyring = &world.federation.keyring;
    let wanted = |until: u64| {
        let servers = ["one", "absent", "us"].map(|name| (name.try_into().unwrap(), at(until)));
        servers.into_iter().collect::<BTreeMap<OwnedServerName, _>>()
    };
    let told = keyring.tell(wanted(START_MS)).await.unwrap();
    assert_eq!(told.iter().map(signers).collect::<Vec<_>>(), [vec!["us"], vec!["one", "us"]]);
    keyring.tell(wanted(START_MS)).await.unwrap();
    assert_eq!(world.peers.asked("one"), 1, "they are valid for long enough");
    world.peers.leave("one");
    world.clock.advance(HOUR * 48);
    let told = keyring.tell(wanted(START_MS + 2 * DAY_MS)).await.unwrap();
    assert_eq!((told.len(), world.peers.asked("one")), (2, 2));
}

#[tokio::test]
async fn our_old_keys_are_published_as_such_and_still_hold_for_what_they_signed() {
    let old = OldKey {
        id: "ed25519:old".try_into().unwrap(),
        key: Base64::new(key("old").public_bytes().to_vec()),
        expired: at(5000),
    };
    let world = World::new(Settings { old_keys: vec![old], ..Settings::default() }).await;
    let ours = world.federation.keyring.ours().unwrap();
    let ours: Value = serde_json::from_str(ours.json().get()).unwrap();
    assert_eq!(ours["old_verify_keys"]["ed25519:old"]["expired_ts"], 5000);
    assert_eq!(ours["verify_keys"].as_object().unwrap().len(), 1);
    published::Published::read(&ours.to_string(), server_name!("us"), at(START_MS)).unwrap();
    assert_eq!(until(&world, server_name!("us"), "ed25519:old", 1).await, Some(5000));
    assert!(has(&world, "us").await);
}
