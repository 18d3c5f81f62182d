//! An event in the form that push rules look at: dot-separated paths to its values.

use std::{collections::BTreeMap, sync::OnceLock};

use ruma::{Int, OwnedRoomId, OwnedUserId, RoomId, UserId, push::ScalarJsonValue};
use serde_json::Value;

use crate::pdu::Pdu;

/// A value that a condition can look at.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Flat {
    Scalar(ScalarJsonValue),
    /// The scalars of an array; others in it are never looked at.
    Array(Vec<ScalarJsonValue>),
}

/// An event flattened for push rules, once for all its recipients.
#[derive(Debug)]
pub struct PushEvent {
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    values: BTreeMap<String, Flat>,
    body_lower: OnceLock<Option<String>>,
    says_mentions: bool,
}

impl PushEvent {
    /// Flattens the client form of `event` (spec: Appendices, Dot-separated property paths).
    pub fn new(event: &Pdu) -> Self {
        let mut values = BTreeMap::new();
        let mut put = |path: &str, text: &str| {
            values.insert(path.to_owned(), Flat::Scalar(ScalarJsonValue::String(text.to_owned())));
        };
        put("type", &event.kind.to_string());
        put("sender", event.sender.as_str());
        put("room_id", event.room_id.as_str());
        put("event_id", event.event_id.as_str());
        if let Some(state_key) = &event.state_key {
            put("state_key", state_key);
        }
        if let Some(redacts) = &event.redacts {
            put("redacts", redacts.as_str());
        }
        let mut says_mentions = false;
        if let Ok(content) = event.content_as::<Value>() {
            says_mentions = content.get("m.mentions").is_some();
            flatten(&mut values, "content".to_owned(), content);
        }
        Self {
            room_id: event.room_id.clone(),
            sender: event.sender.clone(),
            values,
            body_lower: OnceLock::new(),
            says_mentions,
        }
    }

    /// Whether the event says whom it mentions, if anybody (`m.mentions`).
    pub(super) fn says_mentions(&self) -> bool {
        self.says_mentions
    }

    pub(super) fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    pub(super) fn sender(&self) -> &UserId {
        &self.sender
    }

    pub(super) fn get(&self, path: &str) -> Option<&Flat> {
        self.values.get(path)
    }

    pub(super) fn get_str(&self, path: &str) -> Option<&str> {
        match self.get(path)? {
            Flat::Scalar(value) => value.as_str(),
            Flat::Array(_) => None,
        }
    }

    /// `content.body` in lower case, made when first needed.
    pub(super) fn body_lower(&self) -> Option<&str> {
        let make = || self.get_str("content.body").map(str::to_lowercase);
        self.body_lower.get_or_init(make).as_deref()
    }
}

/// Events are nested no deeper than their parser allows, which bounds this recursion.
fn flatten(values: &mut BTreeMap<String, Flat>, path: String, value: Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('\\', "\\\\").replace('.', "\\.");
                flatten(values, format!("{path}.{key}"), value);
            }
        }
        Value::Array(items) => {
            let items = items.into_iter().filter_map(scalar).collect();
            values.insert(path, Flat::Array(items));
        }
        value => {
            if let Some(value) = scalar(value) {
                values.insert(path, Flat::Scalar(value));
            }
        }
    }
}

fn scalar(value: Value) -> Option<ScalarJsonValue> {
    match value {
        Value::Null => Some(ScalarJsonValue::Null),
        Value::Bool(value) => Some(ScalarJsonValue::Bool(value)),
        Value::String(value) => Some(ScalarJsonValue::String(value)),
        Value::Number(value) => {
            Some(ScalarJsonValue::Integer(value.as_i64().and_then(|n| Int::try_from(n).ok())?))
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}
