//! Rows of receipts.

use ruma::OwnedEventId;
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// How far somebody has read: of a room, its main timeline or one of its threads. Or how far what one
/// of its members sends has come to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The newest event that was read, or has come.
    pub event_id: OwnedEventId,
    /// When the receipt was sent, or the event came, in milliseconds since 1970.
    pub ts: u64,
    /// `n` of the event in the room's timeline.
    pub n: i64,
}

/// Whether a receipt is shown to others; the second part of the key of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ReceiptKind {
    /// `m.read`.
    Public = 0,
    /// `m.read.private`: only for the one who sent it.
    Private = 1,
}

impl ReceiptKind {
    /// The number in the key.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Reads the number in a key back.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Public),
            1 => Some(Self::Private),
            _ => None,
        }
    }
}

/// How far a message has come on its way to somebody; the last part of the key of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reach {
    /// Their server has taken it.
    Server = 0,
    /// One of their devices has it.
    Device = 1,
}

impl Reach {
    /// The number in the key.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Reads the number in a key back.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::Server),
            1 => Some(Self::Device),
            _ => None,
        }
    }
}

/// What a user has not read of a room, as counted up to some event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// `n` of the newest event that was counted.
    pub up_to: i64,
    /// The receipts from which it was counted.
    pub read: ReadUpTo,
    /// Events outside of threads.
    pub main: UnreadCount,
    /// Events in threads that have any, by the root of the thread.
    pub threads: Vec<(OwnedEventId, UnreadCount)>,
}

/// The newest receipts of a user in a room, public or private, as `n` of the events read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadUpTo {
    /// Of everything.
    pub all: i64,
    /// Of the main timeline.
    pub main: i64,
    /// Of threads, by the root of the thread; not those that are read as far as `all` anyway.
    pub threads: Vec<(OwnedEventId, i64)>,
}

/// How many events notify somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadCount {
    /// Events that notify.
    pub notify: u64,
    /// Those of them that are highlighted.
    pub highlight: u64,
}

serde_value!(Receipt, ReadUpTo, Unread);
