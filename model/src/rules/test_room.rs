//! A room for the tests of rules: its version and creator, and events made without a server.

use std::{
    collections::HashMap,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use ruma::{EventId, RoomVersionId, events::StateEventType, room_version_rules::RoomVersionRules};
use serde_json::{Value, json};

use super::{power_levels::PowerLevels, room_version};
use crate::pdu::Pdu;

pub(crate) const CREATOR: &str = "@creator:one";

pub(crate) fn rules(version: &str) -> &'static RoomVersionRules {
    room_version::rules(&RoomVersionId::try_from(version).unwrap()).unwrap()
}

/// A room and its current state. Users without a server in their name belong to server `one`.
pub(crate) struct TestRoom {
    pub(crate) version: String,
    pub(crate) create: Arc<Pdu>,
    pub(crate) current: HashMap<(String, String), Arc<Pdu>>,
    clock: AtomicU64,
}

impl TestRoom {
    /// A room of `version` made by [`CREATOR`], with `@second:one` as additional creator in 12.
    pub(crate) fn new(version: &str) -> Self {
        let mut event = json!({
            "type": "m.room.create", "state_key": "", "sender": CREATOR, "origin_server_ts": 0,
            "depth": 1, "prev_events": [], "auth_events": [], "room_id": "!r:one",
            "content": {"room_version": version, "creator": CREATOR}, "event_id": "$create:one",
        });
        if version == "12" {
            event.as_object_mut().unwrap().remove("room_id");
            event["content"]["additional_creators"] = json!(["@second:one"]);
        }
        let create = Arc::new(Pdu::parse(&event.to_string(), rules(version)).unwrap());
        let current = HashMap::from([(("m.room.create".into(), String::new()), create.clone())]);
        Self { version: version.to_owned(), create, current, clock: AtomicU64::new(1) }
    }

    pub(crate) fn event(&self, mut fields: Value) -> Pdu {
        let n = self.clock.fetch_add(1, Ordering::Relaxed);
        let defaults = json!({
            "room_id": self.create.room_id, "origin_server_ts": n, "depth": n + 1,
            "prev_events": [], "auth_events": [], "content": {},
            "event_id": format!("${n}:one"),
        });
        for (key, value) in defaults.as_object().unwrap() {
            if fields.get(key).is_none() {
                fields[key] = value.clone();
            }
        }
        Pdu::parse(&fields.to_string(), rules(&self.version)).unwrap()
    }

    pub(crate) fn state(&self, kind: &str, key: &str, sender: &str, content: Value) -> Pdu {
        self.event(json!({"type": kind, "state_key": key, "sender": sender, "content": content}))
    }

    pub(crate) fn message(&self, sender: &str, content: Value) -> Pdu {
        self.event(json!({"type": "m.room.message", "sender": sender, "content": content}))
    }

    pub(crate) fn member(&self, user: &str, sender: &str, membership: &str) -> Pdu {
        self.state("m.room.member", user, sender, json!({"membership": membership}))
    }

    pub(crate) fn redaction(&self, sender: &str, target: &EventId) -> Pdu {
        self.event(json!({
            "type": "m.room.redaction", "sender": sender, "redacts": target,
            "content": {"redacts": target},
        }))
    }

    /// Sets state without asking the auth rules.
    pub(crate) fn set(&mut self, event: Pdu) -> Arc<Pdu> {
        let event = Arc::new(event);
        let key = (event.kind.to_string(), event.state_key.as_deref().unwrap().to_owned());
        self.current.insert(key, event.clone());
        event
    }

    pub(crate) fn set_member(&mut self, user: &str, membership: &str) -> Arc<Pdu> {
        self.set(self.member(user, user, membership))
    }

    pub(crate) fn lookup(&self, kind: &StateEventType, key: &str) -> Option<Arc<Pdu>> {
        self.current.get(&(kind.to_string(), key.to_owned())).cloned()
    }

    pub(crate) fn levels(&self, content: Value) -> PowerLevels {
        let event = self.state("m.room.power_levels", "", CREATOR, content);
        PowerLevels::new(&*self.create, Some(&event), &rules(&self.version).authorization)
    }

    pub(crate) fn levels_without_event(&self) -> PowerLevels {
        PowerLevels::new(&*self.create, None, &rules(&self.version).authorization)
    }
}
