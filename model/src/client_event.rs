//! The form of an event that clients see (spec: Client-Server API, Room event format).

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, events::TimelineEventType, room_version_rules::RoomVersionRules};
use serde_json::value::{RawValue, to_raw_value};

use crate::pdu::Pdu;

/// An event's client form, serialised once and shared by every response that holds it. What differs
/// between responses, `unsigned` and whether `room_id` is said, is added when it is rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientForm {
    /// The object without its closing brace, `room_id` and `unsigned`.
    open: Box<str>,
    room_id: OwnedRoomId,
}

/// Whether a rendered event says which room it is in: `/sync` leaves that out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomIdField {
    /// With `room_id`.
    Present,
    /// Without `room_id`, where the place in the response tells the room.
    Absent,
}

impl ClientForm {
    /// Serialises the client form of `pdu`. A redaction names what it redacts both at the top level
    /// and in its content, whatever its room version does, as the specification asks for the sake of
    /// clients.
    pub fn new(pdu: &Pdu, rules: &RoomVersionRules) -> Self {
        let mut open = String::with_capacity(pdu.json().len());
        open.push_str("{\"content\":");
        push_content(&mut open, pdu, rules);
        open.push_str(",\"event_id\":");
        push_json_str(&mut open, pdu.event_id.as_str());
        open.push_str(",\"origin_server_ts\":");
        open.push_str(&pdu.origin_server_ts.0.to_string());
        if let Some(redacts) = &pdu.redacts {
            open.push_str(",\"redacts\":");
            push_json_str(&mut open, redacts.as_str());
        }
        open.push_str(",\"sender\":");
        push_json_str(&mut open, pdu.sender.as_str());
        if let Some(state_key) = &pdu.state_key {
            open.push_str(",\"state_key\":");
            push_json_str(&mut open, state_key);
        }
        open.push_str(",\"type\":");
        push_json_str(&mut open, &pdu.kind.to_string());
        Self { open: open.into_boxed_str(), room_id: pdu.room_id.clone() }
    }

    /// How many bytes it takes in memory, for caches with a budget.
    pub fn size_bytes(&self) -> usize {
        self.open.len() + self.room_id.as_str().len() + size_of::<Self>()
    }

    /// Appends the event to `out`, but for its closing brace: more fields, such as `unsigned`, may
    /// follow, each with a comma in front.
    pub fn write_open(&self, out: &mut String, room_id: RoomIdField) {
        out.push_str(&self.open);
        if room_id == RoomIdField::Present {
            out.push_str(",\"room_id\":");
            push_json_str(out, self.room_id.as_str());
        }
    }

    /// The event as raw JSON, with `unsigned` (the text of a JSON object) where there is any.
    pub fn render(&self, unsigned: Option<&str>, room_id: RoomIdField) -> Box<RawValue> {
        let mut text = String::new();
        self.write_open(&mut text, room_id);
        if let Some(unsigned) = unsigned {
            text.push_str(",\"unsigned\":");
            text.push_str(unsigned);
        }
        text.push('}');
        RawValue::from_string(text).expect("assembled from valid JSON")
    }
}

/// An event as servers exchange it, with its ID and the viewer's own `unsigned` (the text of a JSON
/// object), for clients whose filter asks for that (`event_format`).
pub fn federation_form(pdu: &Pdu, unsigned: &str) -> Box<RawValue> {
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(pdu.json()).expect("an event is a JSON object");
    let unsigned = serde_json::from_str(unsigned).expect("assembled from valid JSON");
    let event_id = to_raw_value(&pdu.event_id).expect("an ID has a JSON form");
    fields.insert("unsigned".to_owned(), unsigned);
    fields.insert("event_id".to_owned(), &event_id);
    to_raw_value(&fields).expect("a map of texts to JSON has a JSON form")
}

fn push_content(open: &mut String, pdu: &Pdu, rules: &RoomVersionRules) {
    let content = pdu.content.get();
    match &pdu.redacts {
        Some(redacts)
            if pdu.kind == TimelineEventType::RoomRedaction
                && !rules.redaction.content_field_redacts =>
        {
            let mut fields: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(content).unwrap_or_default();
            fields.insert("redacts".to_owned(), redacts.as_str().into());
            open.push_str(&serde_json::Value::Object(fields).to_string());
        }
        _ => open.push_str(content),
    }
}

/// Appends `text` as a JSON string; most identifiers need no escape and are copied.
pub fn push_json_str(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::RoomVersionRules;
    use serde_json::{Value, json};

    use super::*;

    fn pdu(mut extra: Value, rules: &RoomVersionRules) -> Pdu {
        let base = json!({
            "room_id": "!r:example.org", "sender": "@a:example.org", "type": "m.room.message",
            "content": {"body": "hello"}, "origin_server_ts": 1, "depth": 7, "prev_events": [],
            "auth_events": [], "hashes": {"sha256": "abc"}, "signatures": {"x": {}},
            "unsigned": {"age": 3}, "origin": "example.org",
        });
        for (key, value) in base.as_object().unwrap() {
            if extra.get(key).is_none() {
                extra[key] = value.clone();
            }
        }
        Pdu::parse(&extra.to_string(), rules).unwrap()
    }

    fn render(
        pdu: &Pdu,
        rules: &RoomVersionRules,
        unsigned: Option<Value>,
        room: RoomIdField,
    ) -> Value {
        let unsigned = unsigned.map(|value| value.to_string());
        let raw = ClientForm::new(pdu, rules).render(unsigned.as_deref(), room);
        serde_json::from_str(raw.get()).unwrap()
    }

    #[test]
    fn a_client_sees_neither_the_graph_nor_the_hashes_nor_the_senders_unsigned() {
        let rules = RoomVersionRules::V11;
        let pdu = pdu(json!({}), &rules);
        let seen = render(&pdu, &rules, None, RoomIdField::Present);
        assert_eq!(
            seen,
            json!({
                "content": {"body": "hello"}, "event_id": pdu.event_id, "origin_server_ts": 1,
                "room_id": "!r:example.org", "sender": "@a:example.org", "type": "m.room.message",
            })
        );
    }

    #[test]
    fn the_federation_form_has_all_that_was_signed_its_id_and_the_viewers_unsigned() {
        let rules = RoomVersionRules::V11;
        let pdu = pdu(json!({}), &rules);
        let form = federation_form(&pdu, r#"{"age":9}"#);
        let mut wanted: Value = serde_json::from_str(pdu.json()).unwrap();
        assert_eq!(wanted["hashes"], json!({"sha256": "abc"}));
        wanted["event_id"] = json!(pdu.event_id);
        wanted["unsigned"] = json!({"age": 9});
        assert_eq!(serde_json::from_str::<Value>(form.get()).unwrap(), wanted);
    }

    #[test]
    fn unsigned_is_added_and_the_room_left_out_as_asked() {
        let rules = RoomVersionRules::V11;
        let pdu = pdu(json!({"state_key": "a \"key\"\n"}), &rules);
        let unsigned = json!({"age": 5, "transaction_id": "x"});
        let seen = render(&pdu, &rules, Some(unsigned.clone()), RoomIdField::Absent);
        assert_eq!(seen["unsigned"], unsigned);
        assert_eq!(seen["state_key"], "a \"key\"\n");
        assert!(seen.get("room_id").is_none());
    }

    #[test]
    fn a_redaction_names_its_target_in_both_places_in_every_room_version() {
        for (rules, extra) in [
            (RoomVersionRules::V10, json!({"redacts": "$t", "content": {"reason": "spam"}})),
            (RoomVersionRules::V11, json!({"content": {"reason": "spam", "redacts": "$t"}})),
        ] {
            let mut extra = extra;
            extra["type"] = "m.room.redaction".into();
            let seen = render(&pdu(extra, &rules), &rules, None, RoomIdField::Absent);
            assert_eq!(seen["redacts"], "$t");
            assert_eq!(seen["content"], json!({"reason": "spam", "redacts": "$t"}));
        }
    }
}
