use std::collections::BTreeMap;

use ruma::{event_id, room_id, serde::Base64, server_name, signatures::Verified, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    json::canonical_object,
    rules::{room_version, test_room::rules},
};

fn key() -> ServerSigningKey {
    ServerSigningKey::new("a_test", &[9; 32]).unwrap()
}

fn new<'a>(kind: &'a TimelineEventType, content: &Value) -> NewEvent<'a> {
    NewEvent {
        room_id: Some(room_id!("!r:one")),
        sender: user_id!("@a:one"),
        kind,
        state_key: None,
        content: canonical_object(&content.to_string()).unwrap(),
        redacts: None,
        origin_server_ts: MilliSecondsSinceUnixEpoch(5_u32.into()),
        prev_events: &[],
        auth_events: &[],
        local_id: "abc",
    }
}

fn make(event: NewEvent<'_>, version: &str) -> Result<Pdu, BuildError> {
    build(event, rules(version), server_name!("one"), &key())
}

#[test]
fn events_of_every_room_version_are_validly_hashed_and_signed() {
    let keys = BTreeMap::from([(
        "one".to_owned(),
        BTreeMap::from([("ed25519:a_test".to_owned(), Base64::new(key().public_bytes().to_vec()))]),
    )]);
    for version in &room_version::SUPPORTED {
        let rules = room_version::rules(version).unwrap();
        let kind = TimelineEventType::RoomMessage;
        let pdu = make(new(&kind, &json!({"body": "hello"})), version.as_str()).unwrap();
        let verified =
            signatures::verify_event(&keys, &pdu.to_canonical().unwrap(), rules).unwrap();
        assert_eq!(verified, Verified::All, "{version}");
        let again = Pdu::parse(pdu.json(), rules).unwrap();
        assert_eq!(again.event_id, pdu.event_id, "{version}");
    }
}

#[test]
fn event_ids_have_the_form_of_their_room_version() {
    let kind = TimelineEventType::RoomMessage;
    let id = |version| make(new(&kind, &json!({"x": 6})), version).unwrap().event_id;
    assert_eq!(id("1"), "$abc:one");
    assert_eq!(id("2"), "$abc:one");
    let (three, four) = (id("3"), id("4"));
    // The same hash, in standard and in URL-safe base64.
    assert_eq!(three.as_str().replace('+', "-").replace('/', "_"), four.as_str());
    assert_eq!(four.as_str().len(), 44);
}

#[test]
fn a_create_event_of_version_twelve_is_built_without_a_room_and_names_it() {
    let kind = TimelineEventType::RoomCreate;
    let mut create = new(&kind, &json!({"room_version": "12"}));
    create.room_id = None;
    create.state_key = Some("");
    let pdu = make(create, "12").unwrap();
    assert_eq!(&pdu.room_id.as_str()[1..], &pdu.event_id.as_str()[1..]);
    assert!(!pdu.json().contains("room_id"));
}

#[test]
fn an_event_lies_one_deeper_than_its_deepest_predecessor() {
    let kind = TimelineEventType::RoomMessage;
    for (depths, expected) in [(vec![], 1), (vec![4, 9, 2], 10), (vec![u64::MAX], (1 << 53) - 1)] {
        let prev: Vec<EventReference> = depths
            .into_iter()
            .map(|depth| EventReference { event_id: event_id!("$p").into(), depth, sha256: None })
            .collect();
        let mut event = new(&kind, &json!({}));
        event.prev_events = &prev;
        assert_eq!(make(event, "11").unwrap().depth, expected);
    }
}

#[test]
fn references_carry_hashes_in_room_versions_one_and_two_only() {
    let kind = TimelineEventType::RoomMessage;
    for (version, prev) in
        [("2", json!([["$abc:one", {"sha256": "HASH"}]])), ("3", json!(["$abc:one"]))]
    {
        let first = make(new(&kind, &json!({})), version).unwrap();
        let mut reference = first.reference(rules(version)).unwrap();
        assert_eq!(reference.sha256.is_some(), version == "2");
        reference.event_id = event_id!("$abc:one").into();
        reference.sha256 = reference.sha256.map(|_| "HASH".into());
        let mut event = new(&kind, &json!({}));
        let references = [reference];
        event.prev_events = &references;
        let built: Value = serde_json::from_str(make(event, version).unwrap().json()).unwrap();
        assert_eq!(built["prev_events"], prev);
    }
}

#[test]
fn a_redaction_names_its_target_where_the_room_version_keeps_it() {
    let kind = TimelineEventType::RoomRedaction;
    for (version, at) in [("10", "/redacts"), ("11", "/content/redacts")] {
        let mut event = new(&kind, &json!({"reason": "spam"}));
        event.redacts = Some(event_id!("$target"));
        let pdu = make(event, version).unwrap();
        let built: Value = serde_json::from_str(pdu.json()).unwrap();
        assert_eq!(built.pointer(at), Some(&json!("$target")));
        assert_eq!(pdu.redacts.as_deref(), Some(event_id!("$target")));
    }
}

#[test]
fn what_is_too_long_is_refused_and_what_just_fits_is_not() {
    let message = TimelineEventType::RoomMessage;
    let body = |len: usize| json!({"body": "x".repeat(len)});
    let small = make(new(&message, &body(0)), "11").unwrap().json().len();
    assert!(make(new(&message, &body(EVENT_BYTES_MAX - small)), "11").is_ok());
    for len in [EVENT_BYTES_MAX - small + 1, EVENT_BYTES_MAX * 2] {
        let error = make(new(&message, &body(len)), "11").unwrap_err();
        assert!(matches!(error, BuildError::TooLarge { field: "event", .. }), "{error}");
    }
    for (len, fits) in [(255, true), (256, false)] {
        let text = "k".repeat(len);
        let mut event = new(&message, &json!({}));
        event.state_key = Some(&text);
        assert_eq!(make(event, "11").is_ok(), fits);
        let kind = TimelineEventType::from(text.as_str());
        assert_eq!(make(new(&kind, &json!({})), "11").is_ok(), fits);
    }
}

#[test]
fn too_many_references_are_refused() {
    let kind = TimelineEventType::RoomMessage;
    let one = EventReference { event_id: event_id!("$p").into(), depth: 1, sha256: None };
    let prev = vec![one; PREV_EVENTS_MAX + 1];
    for (count, fits) in [(PREV_EVENTS_MAX, true), (PREV_EVENTS_MAX + 1, false)] {
        let mut event = new(&kind, &json!({}));
        event.prev_events = &prev[..count];
        assert_eq!(make(event, "11").is_ok(), fits);
    }
    let mut event = new(&kind, &json!({}));
    event.auth_events = &prev[..=AUTH_EVENTS_MAX];
    assert!(make(event, "11").is_err());
}
