//! Rows of what leaves the server: who is in which room, what is to be sent, how far it was.

use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// So many stays of a server in a room are remembered: as many as unsent events may need.
const STAYS_KEPT: usize = 8;

/// A server in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInRoom {
    /// How many of its users are joined.
    pub joined: u64,
    /// When it had joined users: from `n` of the join in the room's timeline until `n` of the event
    /// that ended it, both included. The newest is last.
    pub stays: Vec<(i64, Option<i64>)>,
}

impl ServerInRoom {
    /// Counts one membership that changed by the event at `n`.
    pub fn count(&mut self, joins: i64, n: i64) {
        let before = self.joined;
        self.joined = self.joined.saturating_add_signed(joins);
        if before == 0 && self.joined > 0 {
            match self.stays.last_mut() {
                // Ended and begun by the same event, as the resolution of forks may have it.
                Some((_, until)) if *until == Some(n) => *until = None,
                _ => self.stays.push((n, None)),
            }
        }
        if before > 0
            && self.joined == 0
            && let Some((_, until)) = self.stays.last_mut()
        {
            *until = Some(n);
        }
        let excess = self.stays.len().saturating_sub(STAYS_KEPT);
        self.stays.drain(..excess);
    }

    /// Whether it was in the room when the event at `n` came, or left by that event.
    #[must_use]
    pub fn sees(&self, n: i64) -> bool {
        self.stays.iter().any(|(since, until)| *since <= n && until.is_none_or(|until| n <= until))
    }
}

/// An event that we tell the other servers of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Number of the event.
    pub event: u64,
    /// Its `n` in the room's timeline, by which it is judged who may see it.
    pub n: i64,
    /// The server that it is from, where that is another: it has it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OwnedServerName>,
    /// A server that is told though it has nobody in the room: that of a user whose invitation is
    /// taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<OwnedServerName>,
}

/// A message to devices of another server's users, waiting to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteToDevice {
    /// Names it for the other server, which ignores a repeated one.
    pub id: String,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The `type`.
    pub kind: String,
    /// Contents by user and device, the text of a JSON object.
    pub messages: String,
    /// Since when it waits, in milliseconds since 1970; 0 in rows from before this was noted.
    #[serde(default)]
    pub sent_ms: u64,
}

/// How far another server was told what happened here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// What it has acknowledged.
    pub sent: Reached,
    /// What is on its way: repeated under the same ID until it is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// A point up to which everything was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Own events of commits up to this.
    pub seq: u64,
    /// And so many of the events of the next commit that has any.
    #[serde(default)]
    pub skip: u32,
    /// Changes of device lists of commits up to this.
    #[serde(default)]
    pub devices: u64,
    /// Messages to devices up to this one.
    #[serde(default)]
    pub to_device: u64,
    /// A walk through the shared rooms that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
}

/// After an outage: a walk through the rooms that are shared with a server, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// What was committed later is told afterwards.
    pub until: u64,
    /// The last room that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<OwnedRoomId>,
}

/// One transaction on its way to another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its transaction ID.
    pub id: String,
    /// The rooms whose events it holds.
    pub rooms: Vec<OwnedRoomId>,
    /// What will have been told once it is acknowledged.
    pub end: Reached,
}

/// How a user's device changed, for other servers that follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChange {
    /// The stream ID of the user's change before; 0 where there was none.
    pub previous: u64,
    /// Whether the device is gone.
    #[serde(default)]
    pub deleted: bool,
}

/// A server that did not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// How often in a row.
    pub failures: u32,
    /// When it is tried again, in milliseconds since 1970.
    pub due_ms: u64,
}

serde_value!(Failing, ServerInRoom, OutboxRow, RemoteToDevice, Outgoing, DeviceChange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_sees_from_its_join_to_its_leaving() {
        let mut server = ServerInRoom::default();
        for (joins, n) in [(1, 3), (1, 4), (-1, 6), (-1, 7), (1, 10)] {
            server.count(joins, n);
        }
        let seen: Vec<i64> = (1..=12).filter(|n| server.sees(*n)).collect();
        assert_eq!(seen, [3, 4, 5, 6, 7, 10, 11, 12]);
        assert_eq!(server.joined, 1);
    }

    #[test]
    fn an_event_that_ends_and_begins_a_stay_leaves_one() {
        let mut server = ServerInRoom::default();
        for (joins, n) in [(1, 3), (-1, 5), (1, 5)] {
            server.count(joins, n);
        }
        assert_eq!(server.stays, [(3, None)]);
    }
}
