use proptest::prelude::*;
use ruma::{RoomVersionId, event_id, room_id, state_res::Event};
use serde_json::{Value, json};

use super::*;
use crate::{
    client_event::{ClientForm, RoomIdField},
    rules::{redaction, room_version},
};

fn rules(version: &str) -> &'static RoomVersionRules {
    room_version::rules(&RoomVersionId::try_from(version).unwrap()).unwrap()
}

fn event(extra: Value) -> String {
    let mut event = json!({
        "room_id": "!r:example.org", "sender": "@a:example.org", "type": "m.room.message",
        "content": {"body": "hello", "msgtype": "m.text"}, "origin_server_ts": 1, "depth": 7,
        "prev_events": ["$p"], "auth_events": ["$x", "$y"], "hashes": {"sha256": "abc"},
        "signatures": {},
    });
    for (key, value) in extra.as_object().unwrap() {
        event[key] = value.clone();
        if value.is_null() {
            event.as_object_mut().unwrap().remove(key);
        }
    }
    event.to_string()
}

#[test]
fn a_message_of_room_version_ten_is_named_by_its_reference_hash() {
    let pdu = Pdu::parse(&event(json!({})), rules("10")).unwrap();
    assert_eq!(pdu.event_id.as_str().len(), 44);
    assert!(pdu.event_id.server_name().is_none());
    assert_eq!(pdu.prev_events, [event_id!("$p").to_owned()]);
    assert_eq!(pdu.auth_events.len(), 2);
    assert_eq!((pdu.depth, pdu.is_state()), (7, false));
    assert!(pdu.json().starts_with(r#"{"auth_events":["$x","$y"],"content":{"body":"#));
}

#[test]
fn parsing_again_from_the_store_gives_the_same_event() {
    let pdu = Pdu::parse(&event(json!({"state_key": "k"})), rules("11")).unwrap();
    let again = Pdu::from_stored(
        pdu.json().clone(),
        pdu.event_id.clone(),
        pdu.room_id.clone(),
        rules("11"),
    )
    .unwrap();
    assert_eq!(format!("{pdu:?}"), format!("{again:?}"));
}

#[test]
fn room_version_one_keeps_its_id_inside_and_refers_by_id_and_hash() {
    let text = event(json!({
        "event_id": "$1:example.org",
        "prev_events": [["$0:example.org", {"sha256": "x"}]],
        "auth_events": [],
    }));
    let pdu = Pdu::parse(&text, rules("1")).unwrap();
    assert_eq!(pdu.event_id, "$1:example.org");
    assert_eq!(pdu.prev_events, [event_id!("$0:example.org").to_owned()]);
    assert_eq!(pdu.reference(rules("1")).unwrap().sha256.unwrap().len(), 43);
    let without = event(json!({"prev_events": [], "auth_events": []}));
    assert!(matches!(Pdu::parse(&without, rules("1")), Err(InvalidPdu::NoEventId)));
}

#[test]
fn a_create_event_of_room_version_twelve_names_its_room() {
    let create = json!({
        "type": "m.room.create", "state_key": "", "room_id": null, "prev_events": [],
        "auth_events": [], "content": {"room_version": "12"},
    });
    let pdu = Pdu::parse(&event(create.clone()), rules("12")).unwrap();
    assert_eq!(pdu.room_id.as_str()[1..], pdu.event_id.as_str()[1..]);
    assert_eq!(Event::room_id(&pdu), None);
    assert!(matches!(Pdu::parse(&event(create), rules("11")), Err(InvalidPdu::NoRoomId)));
    let message = event(json!({"room_id": null}));
    assert!(matches!(Pdu::parse(&message, rules("12")), Err(InvalidPdu::NoRoomId)));
}

#[test]
fn what_is_redacted_is_found_where_the_room_version_keeps_it() {
    let both = event(json!({
        "type": "m.room.redaction", "redacts": "$top", "content": {"redacts": "$inside"},
    }));
    let redacts = |version| Pdu::parse(&both, rules(version)).unwrap().redacts.unwrap();
    assert_eq!(redacts("10"), "$top");
    assert_eq!(redacts("11"), "$inside");
    let message = event(json!({"redacts": "$top"}));
    assert_eq!(Pdu::parse(&message, rules("10")).unwrap().redacts, None);
}

#[test]
fn wrong_types_and_missing_fields_are_errors() {
    for extra in [
        json!({"sender": 1}),
        json!({"sender": "nobody"}),
        json!({"type": null}),
        json!({"content": null}),
        json!({"content": []}),
        json!({"prev_events": "x"}),
        json!({"prev_events": [["$1", {}]]}),
        json!({"depth": -1}),
        json!({"depth": 1.5}),
        json!({"origin_server_ts": "1"}),
        json!({"room_id": "r"}),
    ] {
        assert!(Pdu::parse(&event(extra.clone()), rules("10")).is_err(), "{extra}");
    }
}

#[test]
fn the_state_place_of_a_state_event_is_its_type_and_key() {
    let pdu = Pdu::parse(
        &event(json!({"type": "m.room.member", "state_key": "@a:example.org"})),
        rules("10"),
    )
    .unwrap();
    assert_eq!(pdu.state_place(), Some((StateEventType::RoomMember, "@a:example.org")));
    assert_eq!(pdu.room_id, room_id!("!r:example.org"));
}

/// Values that are right for some field, and wrong for most.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::sample::select(vec![
            json!("@a:one"),
            json!("!r:one"),
            json!("$x"),
            json!("$x:one"),
            json!(""),
            json!({}),
            json!([]),
            json!(["$x"]),
            json!([["$x:one", {}]]),
            json!({"redacts": "$x", "a": [1]}),
            json!("m.room.create"),
            json!("m.room.redaction"),
            json!("m.room.member"),
        ]),
    ]
}

proptest! {
    #[test]
    fn no_event_makes_parsing_or_what_follows_panic(
        fields in proptest::collection::btree_map(
            proptest::sample::select(vec![
                "room_id", "sender", "type", "content", "origin_server_ts", "depth", "prev_events",
                "auth_events", "redacts", "event_id", "state_key", "hashes", "signatures",
            ]),
            any_value(),
            0..4,
        ),
        version in 1..=12_u8,
    ) {
        let rules = rules(&version.to_string());
        let references = if version < 3 { json!([["$p:one", {"sha256": "x"}]]) } else { json!(["$p"]) };
        let mut extra = json!({
            "event_id": "$e:one", "prev_events": references, "auth_events": references,
        });
        for (key, value) in fields {
            extra[key] = value;
        }
        if let Ok(pdu) = Pdu::parse(&event(extra), rules) {
            let left = redaction::redacted(&pdu, rules).unwrap();
            for pdu in [&pdu, &left] {
                pdu.reference(rules).unwrap();
                let seen = ClientForm::new(pdu, rules).render(None, RoomIdField::Present);
                prop_assert!(serde_json::from_str::<Value>(seen.get()).unwrap().is_object());
            }
        }
    }
}

#[test]
fn a_type_keeps_its_name_also_where_it_is_an_older_one_of_another() {
    let names = [
        "m.call.sdp_stream_metadata_changed",
        "org.matrix.call.sdp_stream_metadata_changed",
        "m.beacon_info",
        "org.matrix.msc3672.beacon_info",
        "m.call.member",
        "org.matrix.msc3401.call.member",
        "io.element.functional_members",
        "m.member_hints",
        "m.room.retention",
        "org.matrix.msc1763.retention",
        "m.room.language",
        "org.matrix.msc4334.room.language",
        "m.room.member",
        "m.room.power_levels",
    ];
    let mut kinds = std::collections::HashSet::new();
    for name in names {
        let text = event(json!({ "type": name, "state_key": "" }));
        let pdu = Pdu::parse(&text, rules("11")).unwrap();
        assert_eq!(pdu.kind.to_string(), name);
        assert_eq!(pdu.state_place().unwrap().0.to_string(), name);
        assert!(kinds.insert(pdu.kind), "two types would share a place of the state");
    }
}
