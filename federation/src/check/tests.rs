use millrace_model::rules::signing_key::ServerSigningKey;
use proptest::prelude::*;
use ruma::signatures::hash_and_sign_event;
use serde_json::{Value, json, value::to_raw_value};

use super::*;
use crate::{
    Settings,
    testing::{DAY_MS, START_MS, World, key, published},
};

fn message(sender: &str) -> Value {
    json!({
        "type": "m.room.message", "room_id": "!r:one", "sender": sender, "depth": 3,
        "origin_server_ts": START_MS, "content": { "body": "hello" },
        "prev_events": ["$p"], "auth_events": ["$a"],
    })
}

fn signed_with(version: &str, server: &str, key: &ServerSigningKey, event: Value) -> Value {
    let rules = room_version::rules(&version.try_into().unwrap()).unwrap();
    let mut object: CanonicalJsonObject = serde_json::from_value(event).unwrap();
    hash_and_sign_event(server, key, &mut object, &rules.redaction).unwrap();
    serde_json::to_value(object).unwrap()
}

fn signed(version: &str, server: &str, event: Value) -> Value {
    signed_with(version, server, &key(server), event)
}

async fn check(world: &World, version: &str, event: &Value) -> Result<Pdu, Refusal> {
    let version = version.try_into().unwrap();
    let raw = to_raw_value(event).unwrap();
    world.federation.check_pdus(&version, vec![raw]).await.pop().unwrap()
}

async fn world() -> World {
    let world = World::new(Settings::default()).await;
    world.publish("one");
    world.publish("two");
    world
}

#[tokio::test]
async fn a_signed_event_of_every_room_version_is_taken() {
    let world = world().await;
    for version in 1..=12 {
        let version = version.to_string();
        let mut event = message("@a:one");
        if version == "1" || version == "2" {
            event["event_id"] = json!("$e:one");
            event["prev_events"] = json!([["$p:one", { "sha256": "x" }]]);
            event["auth_events"] = json!([]);
        }
        let mut event = signed(&version, "one", event);
        event["unsigned"] = json!({ "redacted_because": "lies" });
        let taken = check(&world, &version, &event).await.unwrap();
        assert_eq!(taken.content.get(), r#"{"body":"hello"}"#, "{version}");
        assert!(!taken.json().contains("lies"));
    }
    assert_eq!(world.peers.asked("one"), 1);
    assert!(matches!(check(&world, "99", &message("@a:one")).await, Err(Refusal::RoomVersion(_))));
}

#[tokio::test]
async fn a_changed_event_is_taken_redacted_and_a_forged_one_not_at_all() {
    let world = world().await;
    let event = signed("11", "one", message("@a:one"));
    let mut changed = event.clone();
    changed["content"]["body"] = json!("goodbye");
    let taken = check(&world, "11", &changed).await.unwrap();
    assert_eq!(taken.content.get(), "{}");
    let original = check(&world, "11", &event).await.unwrap();
    assert_eq!(taken.event_id, original.event_id);
    let mut forged = event.clone();
    forged["sender"] = json!("@b:one");
    assert!(matches!(check(&world, "11", &forged).await, Err(Refusal::Signature { .. })));
    let other_server = signed("11", "two", message("@a:one"));
    assert!(matches!(check(&world, "11", &other_server).await, Err(Refusal::Unsigned(_))));
    let wrong_key = signed_with("11", "one", &key("two"), message("@a:one"));
    assert!(matches!(check(&world, "11", &wrong_key).await, Err(Refusal::Signature { .. })));
    let mut unhashed = event.clone();
    unhashed.as_object_mut().unwrap().remove("hashes");
    assert!(matches!(check(&world, "11", &unhashed).await, Err(Refusal::Signature { .. })));
}

#[tokio::test]
async fn all_servers_whose_word_an_event_needs_must_have_signed() {
    let world = world().await;
    let join = |by: &str| {
        let mut event = message("@a:one");
        event["type"] = json!("m.room.member");
        event["state_key"] = json!("@a:one");
        event["content"] =
            json!({ "membership": by, "join_authorised_via_users_server": "@b:two" });
        event
    };
    let half = signed("10", "one", join("join"));
    assert!(
        matches!(check(&world, "10", &half).await, Err(Refusal::Unsigned(server)) if server == "two")
    );
    let whole = signed("10", "two", half);
    check(&world, "10", &whole).await.unwrap();
    check(&world, "7", &signed("7", "one", join("join"))).await.unwrap();
    check(&world, "10", &signed("10", "one", join("leave"))).await.unwrap();
    let mut invite = join("invite");
    invite["content"]["third_party_invite"] = json!({ "signed": {} });
    check(&world, "10", &signed("10", "two", invite.clone())).await.unwrap();
    let mut old = message("@a:one");
    old["event_id"] = json!("$e:two");
    (old["prev_events"], old["auth_events"]) = (json!([]), json!([]));
    let half = signed("2", "one", old);
    assert!(matches!(check(&world, "2", &half).await, Err(Refusal::Unsigned(_))));
    check(&world, "2", &signed("2", "two", half)).await.unwrap();
}

#[tokio::test]
async fn a_key_is_good_for_what_was_sent_while_it_was_valid() {
    let world = World::new(Settings::default()).await;
    let until = START_MS - 10 * DAY_MS;
    world.peers.answer("one", move |_| published("one", &key("one"), until));
    for (version, sent, good) in [
        ("5", until, true),
        ("5", until + 1, false),
        ("4", until + 1, true),
        ("11", START_MS + 400 * DAY_MS, false),
    ] {
        let mut event = message("@a:one");
        event["origin_server_ts"] = json!(sent);
        let checked = check(&world, version, &signed(version, "one", event)).await;
        assert_eq!(checked.is_ok(), good, "{version} {sent}");
        if let Err(refusal) = checked {
            assert!(refusal.may_pass());
        }
    }
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused() {
    let world = world().await;
    let with = |field: &str, value: Value| {
        let mut event = message("@a:one");
        event[field] = value;
        signed("11", "one", event)
    };
    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
    check(&world, "11", &with("type", json!("t".repeat(255)))).await.unwrap();
    check(&world, "11", &with("prev_events", json!(vec!["$p"; 20]))).await.unwrap();
    for (field, value) in [("type", json!("t".repeat(256))), ("state_key", json!("t".repeat(256)))]
    {
        let refused = check(&world, "11", &with(field, value)).await;
        assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{field}");
    }
    // Before version 11 what counts are code points.
    for (version, count, taken) in [("10", 255, true), ("10", 256, false), ("11", 70, false)] {
        let mut event = message("@a:one");
        event["state_key"] = json!("💥".repeat(count));
        let checked = check(&world, version, &signed(version, "one", event)).await;
        assert_eq!(checked.is_ok(), taken, "{version} {count}: {checked:?}");
    }
    let refused = check(&world, "11", &with("prev_events", json!(vec!["$p"; 21]))).await;
    assert!(matches!(refused, Err(Refusal::TooManyReferences { count: 21, .. })));
    let refused = check(&world, "11", &with("auth_events", json!(vec!["$p"; 11]))).await;
    assert!(matches!(refused, Err(Refusal::TooManyReferences { count: 11, .. })));
    let deep = with("content", json!({ "x": nested(120) }));
    assert!(matches!(check(&world, "11", &deep).await, Err(Refusal::NotCanonical(_))));
    let mut float = message("@a:one");
    float["content"]["x"] = json!(1.5);
    assert!(matches!(check(&world, "11", &float).await, Err(Refusal::NotCanonical(_))));
    let mut large = with("content", json!({ "x": "x".repeat(65_000) }));
    large["signatures"]["more"] = json!({ "ed25519:x": "x".repeat(1000) });
    assert!(matches!(check(&world, "11", &large).await, Err(Refusal::TooLarge { .. })));
    let mut huge = message("@a:one");
    huge["unsigned"] = json!("x".repeat(300_000));
    assert!(matches!(check(&world, "11", &huge).await, Err(Refusal::TooLarge { .. })));
}

#[tokio::test]
async fn many_events_are_checked_in_their_order_with_one_request_for_each_server() {
    let world = world().await;
    let mut raw = Vec::new();
    for n in 0..100 {
        let server = if n % 2 == 0 { "one" } else { "two" };
        let mut event = message(&format!("@a:{server}"));
        event["content"]["n"] = json!(n);
        let signer = if n % 10 == 0 { "two" } else { server };
        raw.push(to_raw_value(&signed("12", signer, event)).unwrap());
    }
    let checked = world.federation.check_pdus(&RoomVersionId::V12, raw).await;
    for (n, checked) in checked.into_iter().enumerate() {
        assert_eq!(checked.is_ok(), n % 10 != 0);
        if let Ok(pdu) = checked {
            assert!(pdu.content.get().contains(&format!("\"n\":{n}}}")));
        }
    }
    assert_eq!((world.peers.asked("one"), world.peers.asked("two")), (1, 1));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        r#"[@!$a-z:."\\]{0,12}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_:@]{0,8}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_event_makes_the_check_panic(
        version in 0_usize..12,
        field in 0_usize..12,
        value in any_value(),
        text in any::<String>(),
    ) {
        let rules = room_version::rules(&room_version::SUPPORTED[version]).unwrap();
        let mut event = signed("11", "one", message("@a:one"));
        let fields = [
            "type", "room_id", "sender", "depth", "origin_server_ts", "content", "prev_events",
            "auth_events", "hashes", "signatures", "event_id", "state_key",
        ];
        event[fields[field]] = value;
        for raw in [event.to_string(), text] {
            let Ok(raw) = RawValue::from_string(raw) else { continue };
            if let Ok(candidate) = read(&raw, rules) {
                let _ = candidate.verify(&KeySet::default(), rules);
            }
        }
    }
}
