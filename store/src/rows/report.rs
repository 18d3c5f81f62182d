//! Rows of reports.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// Something that a user reports to the people who run the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who reports it.
    pub reporter: OwnedUserId,
    /// What is reported.
    pub subject: Subject,
    /// Why, in the reporter's words; may be empty.
    pub reason: String,
}

/// What a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// An event.
    Event {
        /// Its room.
        room: OwnedRoomId,
        /// The event.
        event: OwnedEventId,
    },
    /// A room.
    Room {
        /// The room.
        room: OwnedRoomId,
    },
    /// A user.
    User {
        /// The user.
        user: OwnedUserId,
    },
}

serde_value!(Report);
