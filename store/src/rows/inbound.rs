//! Rows of what other servers sent and is still to be worked on.

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// An event of another server that waits to be received into its room. Its form, signatures and
/// hash have been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedPdu {
    /// The server that sent it to us.
    pub origin: OwnedServerName,
    /// The event's ID.
    pub event_id: OwnedEventId,
    /// The event, canonical JSON.
    pub json: String,
    /// How often it was tried in vain because other servers could not be asked.
    #[serde(default)]
    pub attempts: u32,
}

/// What waits for a room: the events of `first` up to `last`, and those put off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundHead {
    /// Number of the oldest that was not yet worked on.
    pub first: u64,
    /// Number of the newest; the first ever is 1.
    pub last: u64,
    /// Bytes of the events in the queue.
    pub bytes: u64,
    /// How many events are put off.
    #[serde(default)]
    pub put_off: u64,
    /// When the first of them is due, in milliseconds since 1970.
    #[serde(default)]
    pub due_ms: u64,
}

impl Default for InboundHead {
    fn default() -> Self {
        Self { first: 1, last: 0, bytes: 0, put_off: 0, due_ms: 0 }
    }
}

impl InboundHead {
    /// How many events are in the queue; those put off are not.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.queued() == 0 && self.put_off == 0
    }
}

/// How far we know the devices of a user of another server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDevices {
    /// The newest `stream_id` that we know all of; none where the list was never fetched.
    pub stream_id: Option<u64>,
    /// Something was missed: the list is to be fetched again.
    pub stale: bool,
    /// The master key, JSON text, as its server publishes it.
    #[serde(default)]
    pub master_key: Option<String>,
    /// The self-signing key, JSON text.
    #[serde(default)]
    pub self_signing_key: Option<String>,
    /// The newest `stream_id` that was heard of, also while the list was not known.
    #[serde(default)]
    pub heard: u64,
    /// Why their server tells us of changes; without it, or when it has changed, what is here may be
    /// outdated.
    #[serde(default)]
    pub anchor: Option<Anchor>,
}

/// A room that we have shared with a user of another server without a break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The room.
    pub room: OwnedRoomId,
    /// Number of the user's member event.
    pub member: u64,
    /// `n` in the room's timeline from which on we have been in it.
    pub since: i64,
}

/// A device of a user of another server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDevice {
    /// Its public name.
    pub name: Option<String>,
    /// Its `DeviceKeys`, JSON text; none where it does not encrypt.
    pub keys: Option<String>,
}

serde_value!(QueuedPdu, InboundHead, RemoteDevices, RemoteDevice);
