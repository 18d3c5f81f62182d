//! Rows of what belongs to users.

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// A message from one device to another, waiting to be synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDevice {
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The `type`.
    pub kind: String,
    /// The content, the text of a JSON object.
    pub content: String,
}

/// Which messages wait for a device: those of `first` up to `last`, none where `first > last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDeviceHead {
    /// Number of the oldest that was not yet deleted.
    pub first: u64,
    /// Number of the newest; the first ever is 1.
    pub last: u64,
}

impl Default for ToDeviceHead {
    fn default() -> Self {
        Self { first: 1, last: 0 }
    }
}

/// Where to send notifications of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pusher {
    /// The pusher as the client gave it, the text of a JSON object (spec: `Pusher`).
    pub json: String,
    /// The device that made it: the pusher ends with the device's session.
    pub device: OwnedDeviceId,
    /// When it was set, in milliseconds since 1970.
    pub set_ms: u64,
}

/// Whose notifications go to one pushkey of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushkeyUsers {
    /// Sorted.
    pub users: Vec<OwnedUserId>,
}

serde_value!(ToDevice, ToDeviceHead, Pusher, PushkeyUsers);
