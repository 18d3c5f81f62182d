//! Events of other servers, in every room version: parsing and limits, hashes, redaction, the form
//! for clients, and the auth rules on whatever was parsed.

use std::sync::Arc;

use millrace_federation::check::check_form;
use millrace_model::{
    ClientForm, Pdu,
    client_event::RoomIdField,
    rules::{auth, power_levels::PowerLevels, redaction, room_version},
};
use ruma::{RoomVersionId, room_version_rules::RoomVersionRules, signatures};
use serde_json::{Value, json, value::RawValue};

const VERSIONS: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

fn of(kind: &str, state_key: Option<&str>, content: Value) -> Value {
    let mut event = json!({
        "type": kind, "sender": "@a:one", "room_id": "!room:one", "depth": 12, "content": content,
        "origin_server_ts": 1_700_000_000_000_u64, "hashes": {"sha256": "aGFzaA"},
        "signatures": {"one": {"ed25519:1": "c2lnbmF0dXJl"}}, "unsigned": {"age": 5},
    });
    if let Some(key) = state_key {
        event["state_key"] = json!(key);
    }
    event
}

/// Events of the kinds that rules look at, in the formats of old and of new room versions.
pub fn samples() -> Vec<Vec<u8>> {
    let levels = json!({
        "users": {"@a:one": 100, "@b:two": "50"}, "events": {"m.room.name": 50}, "ban": 50,
        "users_default": 0, "state_default": 50, "notifications": {"room": 50},
    });
    let join = json!({"membership": "join", "join_authorised_via_users_server": "@c:three"});
    let invite = json!({"membership": "invite", "third_party_invite": {"display_name": "x",
        "signed": {"mxid": "@b:two", "token": "t", "signatures": {"i": {"ed25519:0": "x"}}}}});
    let token = json!({"display_name": "x", "public_key": "eA", "key_validity_url": "https://i",
        "public_keys": [{"public_key": "eA"}]});
    let rule = json!({"join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": "!other:one"}]});
    let edit = json!({"body": "* x", "m.new_content": {"body": "x"}, "m.mentions": {},
        "m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}});
    let create = json!({"room_version": "12", "creator": "@a:one",
        "additional_creators": ["@b:two"], "m.federate": true});
    let events = [
        of("m.room.create", Some(""), create),
        of("m.room.member", Some("@a:one"), join),
        of("m.room.member", Some("@b:two"), invite),
        of("m.room.power_levels", Some(""), levels),
        of("m.room.join_rules", Some(""), rule),
        of("m.room.third_party_invite", Some("t"), token),
        of("m.room.aliases", Some("one"), json!({"aliases": ["#x:one"]})),
        of("m.room.redaction", None, json!({"redacts": "$old", "reason": "x"})),
        of("m.room.message", None, edit),
    ];
    let mut samples = Vec::new();
    for event in events {
        let (mut old, mut new) = (event.clone(), event);
        old["event_id"] = json!("$event:one");
        old["redacts"] = json!("$old:one");
        old["prev_events"] = json!([["$prev:one", {"sha256": "eA"}]]);
        old["auth_events"] = json!([["$auth:one", {"sha256": "eA"}]]);
        new["prev_events"] = json!(["$BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"]);
        new["auth_events"] = json!(["$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]);
        samples.extend([old, new].map(|event| event.to_string().into_bytes()));
    }
    samples
}

/// Whatever any room version accepts can be stored, loaded, hashed, redacted, judged and shown.
pub fn run(input: &[u8]) -> bool {
    let Ok(raw) = serde_json::from_slice::<Box<RawValue>>(input) else { return false };
    let mut accepted = false;
    for version in &VERSIONS {
        let rules = room_version::rules(version).expect("a known version");
        // Before anything is checked, to name what is refused.
        let _ = Pdu::parse(raw.get(), rules);
        if let Ok(pdu) = check_form(&raw, rules) {
            accepted = true;
            use_event(&pdu, rules);
        }
    }
    accepted
}

fn use_event(pdu: &Pdu, rules: &RoomVersionRules) {
    let (id, room) = (pdu.event_id.clone(), pdu.room_id.clone());
    let stored = Pdu::from_stored(Arc::clone(pdu.json()), id, room, rules);
    assert_eq!(stored.expect("what is stored can be loaded").json(), pdu.json());
    let object = pdu.to_canonical().expect("an event is canonical");
    assert_eq!(serde_json::to_string(&object).ok().as_deref(), Some(&**pdu.json()));
    let _ = signatures::content_hash(&object);
    pdu.reference(rules).expect("an event has a reference");
    let redacted = redaction::redacted(pdu, rules).expect("an event can be redacted");
    assert_eq!(redacted.event_id, pdu.event_id, "redaction changes no ID");
    let twice = redaction::redacted(&redacted, rules).expect("and again");
    assert_eq!(twice.json(), redacted.json(), "what is redacted stays as it is");
    for event in [pdu, &redacted] {
        let shown = ClientForm::new(event, rules).render(Some("{\"age\":1}"), RoomIdField::Present);
        serde_json::from_str::<Value>(shown.get()).expect("clients are sent JSON");
    }
    let _ = auth::check_auth_events(pdu, rules, |_| None::<Arc<Pdu>>);
    let _ = auth::check(pdu, rules, |_, _| None::<Arc<Pdu>>);
    // The event in every place that the rules may look at.
    let event = Arc::new(pdu.clone());
    let _ = auth::check(pdu, rules, |_, _| Some(Arc::clone(&event)));
    let levels = PowerLevels::new(pdu, Some(pdu), &rules.authorization);
    let _ = (levels.user(&pdu.sender), levels.for_state(&pdu.kind), levels.named_users().count());
    let key = pdu.state_key.as_deref();
    let _ = auth::auth_types_for_event(&pdu.kind, &pdu.sender, key, &pdu.content, rules);
}
