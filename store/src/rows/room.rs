//! Rows of rooms.

use millrace_model::pdu::EventReference;
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};

use crate::{
    serde_value,
    state_tree::{StateRoot, layout::HASH_LEN},
    value::Value,
};

/// The newest of a room: one read tells all that the next event needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomHead {
    /// The room's version.
    pub version: RoomVersionId,
    /// Number of the create event.
    pub create: u64,
    /// `n` of the newest live event; the first is 1.
    pub last: i64,
    /// Accepted events that no accepted event refers to yet.
    pub extremities: Vec<Extremity>,
    /// Root of the current state: that of the states after all extremities, resolved.
    pub root: StateRoot,
    /// How many users are joined.
    pub joined: u64,
    /// How many of those are users of this server; with none, we are not in the room.
    #[serde(default)]
    pub joined_here: u64,
    /// How many users are invited.
    pub invited: u64,
    /// How often the header of an event that was stored before has changed. Two snapshots in which
    /// it is the same have the same headers, as far as both have them.
    #[serde(default)]
    pub amended: u64,
    /// Place of the newest row of the room's outbox; the first is 1.
    #[serde(default)]
    pub outbox: u64,
    /// How many other servers have joined users.
    #[serde(default)]
    pub remote_servers: u64,
    /// Number of the `m.room.policy` event of the current state, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<u64>,
    /// Place of the next row of the room's log of events (`PARTIAL_EVENTS`), where only a part of the
    /// state is known: members are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<u64>,
    /// Whether the room was partial at any time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_partial: bool,
}

impl RoomHead {
    /// The head of a room without events.
    #[must_use]
    pub const fn new(version: RoomVersionId) -> Self {
        Self {
            version,
            create: 0,
            last: 0,
            extremities: Vec::new(),
            root: StateRoot::EMPTY,
            joined: 0,
            joined_here: 0,
            invited: 0,
            amended: 0,
            outbox: 0,
            remote_servers: 0,
            policy: None,
            partial: None,
            was_partial: false,
        }
    }
}

/// An end of the room's graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extremity {
    /// The event, as the next one refers to it.
    pub event: EventReference,
    /// The room's state after it.
    pub after: StateRoot,
}

/// One place of a room's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineRow {
    /// Number of the event.
    pub event: u64,
    /// The room's state before the event, by which its visibility is judged.
    pub before: StateRoot,
    /// The room's current state after it.
    pub after: StateRoot,
}

impl Value for TimelineRow {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.event.to_be_bytes());
        out.extend_from_slice(&self.before.to_bytes());
        out.extend_from_slice(&self.after.to_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let wrong = || format!("{} bytes", bytes.len());
        let (event, rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let (before, rest) = rest.split_first_chunk::<HASH_LEN>().ok_or_else(wrong)?;
        let after: [u8; HASH_LEN] = rest.try_into().map_err(|_| wrong())?;
        Ok(Self {
            event: u64::from_be_bytes(*event),
            before: StateRoot::from_bytes(*before),
            after: StateRoot::from_bytes(after),
        })
    }
}

/// What authorises a state event, as walks over auth chains want it: without parsing the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthLinks {
    /// One more than the greatest height of its auth events; 0 where it has none. Every event lies
    /// higher than all that authorise it, whatever `depth` its sender gave it.
    pub height: u32,
    /// The event's `type`.
    pub kind: String,
    /// The event's `state_key`.
    pub state_key: String,
    /// Numbers of its auth events, in the order in which it names them.
    pub auth: Vec<u64>,
}

impl Value for AuthLinks {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&(self.auth.len() as u32).to_be_bytes());
        out.extend(self.auth.iter().flat_map(|number| number.to_be_bytes()));
        out.extend_from_slice(&(self.kind.len() as u32).to_be_bytes());
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(self.state_key.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let wrong = || format!("{} bytes", bytes.len());
        let (height, rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let (count, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
        let auth_len = (u32::from_be_bytes(*count) as usize).saturating_mul(8);
        let (auth, rest) = rest.split_at_checked(auth_len).ok_or_else(wrong)?;
        let (kind_len, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
        let kind_len = u32::from_be_bytes(*kind_len) as usize;
        let (kind, state_key) = rest.split_at_checked(kind_len).ok_or_else(wrong)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string());
        Ok(Self {
            height: u32::from_be_bytes(*height),
            kind: text(kind)?,
            state_key: text(state_key)?,
            auth: auth.as_chunks().0.iter().map(|number| u64::from_be_bytes(*number)).collect(),
        })
    }
}

/// What is known of an event beside its body. The part of it that changes is small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventHeader {
    /// The event's ID.
    pub event_id: OwnedEventId,
    /// Its place in the timeline, `(n, k)`; none for outliers and rejected events.
    pub place: Option<(i64, i32)>,
    /// The room's state before it; none for outliers.
    pub before: Option<StateRoot>,
    /// Not part of the room's graph as we have it.
    #[serde(default)]
    pub outlier: bool,
    /// Refused by the auth rules.
    #[serde(default)]
    pub rejected: bool,
    /// Allowed at its place in the graph, but not by the current state when it arrived.
    #[serde(default)]
    pub soft_failed: bool,
    /// Number of the event that redacted it.
    #[serde(default)]
    pub redacted_by: Option<u64>,
    /// Whether other events relate to it, so that a reader looks for them.
    #[serde(default)]
    pub related: bool,
    /// Whether any of those is told of at this event.
    #[serde(default)]
    pub aggregated: bool,
    /// Number of the state event that it took the place of, in the state before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
}

/// Somebody's membership of a room, as the current state has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Their membership.
    pub membership: MembershipState,
    /// Number of the member event.
    pub event: u64,
}

/// A room as one local user has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRoom {
    /// The user's membership.
    pub membership: MembershipState,
    /// Number of the member event; 0 where it came while we were not in the room, and is not kept.
    pub event: u64,
    /// Who sent the member event.
    pub sender: OwnedUserId,
    /// `n` of the member event in the room's timeline; 0 where we do not have the room.
    pub n: i64,
    /// Whether the user was ever joined: then they may read up to their leaving.
    #[serde(default)]
    pub was_joined: bool,
    /// `n` of the member event that last ended their being joined; what they see ends there
    /// until they join again.
    #[serde(default)]
    pub left: Option<i64>,
    /// Left and forgotten: neither listed nor readable.
    #[serde(default)]
    pub forgotten: bool,
    /// For invites and knocks: the stripped state (JSON texts) that the user is shown. Where one ended
    /// while we were not in the room: the event that ended it, as clients see it.
    #[serde(default)]
    pub stripped: Vec<String>,
}

/// An event that relates to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// The `rel_type`.
    pub rel_type: String,
    /// The relating event's type.
    pub kind: String,
    /// The relating event's sender.
    pub sender: OwnedUserId,
    /// Number of the relating event.
    pub event: u64,
    /// The `key` of an annotation.
    #[serde(default)]
    pub key: Option<String>,
}

/// An alias of a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alias {
    /// The room it leads to.
    pub room: ruma::OwnedRoomId,
    /// Who made it.
    pub creator: OwnedUserId,
}

/// A thread, as far as all viewers have it in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRow {
    /// `n` of its newest event.
    pub newest: i64,
    /// Number of its newest event.
    pub event: u64,
    /// How many events it has, the root aside.
    pub count: u64,
}

/// A hole in a room's timeline, just before the events filled in before a live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Events that are known to be there: predecessors of those after the hole.
    pub missing: Vec<OwnedEventId>,
    /// `k` of the oldest event after the hole: 0, or that of the last one filled in.
    pub filled_to: i32,
}

/// The place `(n, k)` of a timeline up to which no expired message says anything any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpiredUpTo {
    /// `n` of the place.
    pub n: i64,
    /// `k` of the place.
    pub k: i32,
}

impl ExpiredUpTo {
    /// Before all places.
    pub const START: Self = Self { n: i64::MIN, k: i32::MIN };
}

/// Under which transaction ID an event was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTransaction {
    /// The device that sent it.
    pub device: ruma::OwnedDeviceId,
    /// The client's transaction ID.
    pub id: String,
}

serde_value!(
    RoomHead,
    EventHeader,
    Member,
    UserRoom,
    Relation,
    Alias,
    EventTransaction,
    ThreadRow,
    Gap,
    ExpiredUpTo
);
