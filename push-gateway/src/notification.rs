//! What homeservers send: see the push gateway API of the specification.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The body of `POST /_matrix/push/v1/notify`.
#[derive(Debug, Deserialize)]
pub struct NotifyRequest {
    /// The only part.
    pub notification: Notification,
}

/// One event, or only counts, for some devices of one user. What is `null` is as if it were absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Notification {
    /// Absent in a notification that has only counts. The empty string counts as absent.
    #[serde(deserialize_with = "filled")]
    pub event_id: Option<String>,
    /// The room of the event.
    #[serde(deserialize_with = "filled")]
    pub room_id: Option<String>,
    /// The type of the event.
    #[serde(rename = "type", deserialize_with = "filled")]
    pub kind: Option<String>,
    /// Who sent the event.
    #[serde(deserialize_with = "filled")]
    pub sender: Option<String>,
    /// The sender's name in the room.
    #[serde(deserialize_with = "filled")]
    pub sender_display_name: Option<String>,
    /// The room's name.
    #[serde(deserialize_with = "filled")]
    pub room_name: Option<String>,
    /// The room's main alias.
    #[serde(deserialize_with = "filled")]
    pub room_alias: Option<String>,
    /// Whether the event is about the membership of the user.
    #[serde(deserialize_with = "nullable")]
    pub user_is_target: bool,
    /// The membership that an event of `m.room.member` says. Not in the specification; Synapse and
    /// Millrace send it.
    #[serde(deserialize_with = "filled")]
    pub membership: Option<String>,
    /// How urgent it is.
    #[serde(deserialize_with = "nullable")]
    pub prio: Priority,
    /// The content of the event.
    #[serde(deserialize_with = "nullable")]
    pub content: Map<String, Value>,
    /// What is unread.
    #[serde(deserialize_with = "nullable")]
    pub counts: Counts,
    /// Where it goes.
    #[serde(deserialize_with = "nullable")]
    pub devices: Vec<Device>,
}

/// How urgent a notification is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Wakes a device.
    #[default]
    High,
    /// May wait until the device is awake.
    Low,
}

/// What is unread.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Messages.
    pub unread: Option<u64>,
    /// Calls.
    pub missed_calls: Option<u64>,
}

/// One device.
#[derive(Debug, Clone, Deserialize)]
pub struct Device {
    /// Whose vendor and keys it has.
    pub app_id: String,
    /// Its address with the vendor.
    pub pushkey: String,
    /// When the address was last confirmed by the app, in seconds.
    #[serde(default)]
    pub pushkey_ts: Option<u64>,
    /// What the app said when it made the pusher.
    #[serde(default, deserialize_with = "nullable")]
    pub data: Map<String, Value>,
    /// What push rules said of the presentation.
    #[serde(default, deserialize_with = "nullable")]
    pub tweaks: Map<String, Value>,
}

impl Notification {
    /// Who sent it, as people know them.
    #[must_use]
    pub fn from_display(&self) -> Option<&str> {
        self.sender_display_name.as_deref().or(self.sender.as_deref())
    }

    /// The room, as people know it.
    #[must_use]
    pub fn room_display(&self) -> Option<&str> {
        self.room_name.as_deref().or(self.room_alias.as_deref())
    }
}

impl Device {
    /// Whether the app wants nothing but the IDs of the event.
    #[must_use]
    pub fn wants_event_id_only(&self) -> bool {
        self.data.get("format").and_then(Value::as_str) == Some("event_id_only")
    }

    /// What the app wants every payload to begin with.
    #[must_use]
    pub fn default_payload(&self) -> Option<&Map<String, Value>> {
        self.data.get("default_payload").and_then(Value::as_object)
    }

    /// The sound that push rules chose.
    #[must_use]
    pub fn sound(&self) -> Option<&str> {
        self.tweaks.get("sound").and_then(Value::as_str)
    }
}

fn nullable<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn filled<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}
