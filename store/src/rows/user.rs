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
    /// Since when it waits, in milliseconds since 1970; 0 in rows from before this was noted.
    #[serde(default)]
    pub sent_ms: u64,
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

/// A pusher that has not got everything: its gateway fails, or its mails wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherBehind {
    /// The commit up to which it has got everything.
    pub since: u64,
    /// How often in a row it was tried in vain.
    pub failures: u32,
    /// When it is tried next, in milliseconds since 1970.
    pub due_ms: u64,
}

/// Whose notifications go to one pushkey of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushkeyUsers {
    /// Sorted.
    pub users: Vec<OwnedUserId>,
}

/// What a user has said about a thread (MSC4306).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThreadSubscription {
    /// They want to be notified of what is said there.
    Subscribed {
        /// Whether their client said so by itself.
        automatic: bool,
    },
    /// They do not, and no client says otherwise by itself for what was said before.
    Unsubscribed {
        /// `n` of the room's newest event when they said so.
        at: i64,
    },
}

serde_value!(ToDevice, ToDeviceHead, Pusher, PusherBehind, PushkeyUsers, ThreadSubscription);
