//! Rows of application services: what waits for one, and how far it was told.

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// What waits for an application service: rows of `first` up to `last`, none where `first > last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceQueue {
    /// Number of the oldest row that was not dropped, as too many waited or they did for too long. Those
    /// of a transaction that is under way stay all the same.
    pub first: u64,
    /// Number of the newest; the first ever is 1.
    pub last: u64,
    /// The newest day on which rows came, counted from 1970.
    #[serde(default)]
    pub day: u32,
}

impl Default for ServiceQueue {
    fn default() -> Self {
        Self { first: 1, last: 0, day: 0 }
    }
}

/// One thing that a service is to be told, durably and in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Queued {
    /// An event of a room.
    Event {
        /// The room.
        room: OwnedRoomId,
        /// The event's number.
        number: u64,
    },
    /// An event of a room that this server is not in: the text of a JSON object.
    Outside(String),
    /// A message to a device.
    ToDevice {
        /// The user whose device it is.
        user: OwnedUserId,
        /// The device.
        device: OwnedDeviceId,
        /// The message's place in the device's queue.
        n: u64,
    },
    /// Devices or keys of a user changed whom the service follows.
    DevicesChanged(OwnedUserId),
    /// The service shares no encrypted room with a user any more.
    DevicesLeft(OwnedUserId),
    /// How many one-time keys a device has left changed.
    KeyCounts {
        /// The user whose device it is.
        user: OwnedUserId,
        /// The device.
        device: OwnedDeviceId,
    },
}

/// How far a service was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProgress {
    /// It has acknowledged everything up to this row of its queue.
    pub sent: u64,
    /// What is on its way: repeated under the same ID until it is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<ServiceBatch>,
    /// How often in a row it did not take a transaction.
    #[serde(default)]
    pub failures: u32,
    /// When it is tried again, in milliseconds since 1970.
    #[serde(default)]
    pub due_ms: u64,
}

impl ServiceProgress {
    /// The last row that the service has or is being sent: it may have it already.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.batch.as_ref().map_or(self.sent, |batch| batch.end)
    }
}

/// One transaction on its way to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceBatch {
    /// Its transaction ID.
    pub id: String,
    /// The last row of the queue that it holds.
    pub end: u64,
}

serde_value!(ServiceQueue, Queued, ServiceProgress);
