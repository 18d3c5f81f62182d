//! What a client asks of a sliding sync: the body as it comes, and what is made of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;

use super::{pos::Pos, required_state::RequiredState};

/// Lists in one request at most.
const LISTS_MAX: usize = 100;
/// Subscriptions in one request at most.
const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Events of a room's timeline at most.
const TIMELINE_LIMIT_MAX: usize = 100;
/// Pairs of type and state key in one list or subscription at most.
const REQUIRED_STATE_MAX: usize = 500;
/// Bytes of a connection's name at most.
const CONN_ID_BYTES_MAX: usize = 255;

/// The body of a request (MSC4186, in the form that its unstable endpoint has).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Body {
    /// The name of the connection, among those of the device.
    pub conn_id: Option<String>,
    /// Said again in the response.
    pub txn_id: Option<String>,
    /// The position, for clients that do not send it in the query.
    pub pos: Option<String>,
    /// Milliseconds to wait for news, likewise.
    pub timeout: Option<u64>,
    lists: BTreeMap<String, ListBody>,
    room_subscriptions: BTreeMap<OwnedRoomId, RoomConfigBody>,
    extensions: Extensions,
}

#[derive(Debug, Clone, Deserialize)]
struct ListBody {
    /// Pairs of the first and the last index, inclusive.
    ranges: Option<Vec<(u64, u64)>>,
    range: Option<(u64, u64)>,
    #[serde(flatten)]
    config: RoomConfigBody,
    #[serde(default)]
    filters: Option<Filters>,
}

#[derive(Debug, Clone, Deserialize)]
struct RoomConfigBody {
    #[serde(default)]
    required_state: Vec<(String, String)>,
    #[serde(default)]
    timeline_limit: u64,
}

/// Which rooms a list has; what is absent decides nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filters {
    /// Direct messages or none.
    pub is_dm: Option<bool>,
    /// Encrypted rooms or none.
    pub is_encrypted: Option<bool>,
    /// Invitations or none.
    #[serde(alias = "is_invited")]
    pub is_invite: Option<bool>,
    /// Rooms that one of these spaces names as its own.
    pub spaces: Option<Vec<OwnedRoomId>>,
    /// Rooms of one of these types; `None` is that of a room without type.
    pub room_types: Option<Vec<Option<String>>>,
    /// Rooms of none of these types.
    pub not_room_types: Option<Vec<Option<String>>>,
    /// Rooms with one of these tags.
    pub tags: Option<Vec<String>>,
    /// Rooms with none of these tags.
    pub not_tags: Option<Vec<String>>,
}

/// What is wanted beside rooms.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Extensions {
    /// Messages to the device.
    pub to_device: Option<ToDevice>,
    /// Device lists and counts of keys.
    pub e2ee: Option<Enabled>,
    /// Account data.
    pub account_data: Option<OfRooms>,
    /// Receipts.
    pub receipts: Option<OfRooms>,
    /// Who types.
    pub typing: Option<OfRooms>,
    /// Threads that the user follows (MSC4308).
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    pub thread_subscriptions: Option<ThreadSubscriptions>,
}

/// An extension that is only switched on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Enabled {
    pub enabled: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToDevice {
    pub enabled: bool,
    /// Messages in one response at most.
    pub limit: Option<u64>,
    /// The `next_batch` of what the client has.
    pub since: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ThreadSubscriptions {
    pub enabled: bool,
    /// Threads in one response at most.
    pub limit: Option<u64>,
}

/// An extension that is wanted of some rooms: those of all lists and subscriptions where it does not
/// say which.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct OfRooms {
    pub enabled: bool,
    /// Names of lists; `*` is all of them.
    pub lists: Option<Vec<String>>,
    /// Rooms subscribed to; `*` is all of them.
    pub rooms: Option<Vec<String>>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// There are too many lists.
    #[error("there may be {LISTS_MAX} lists at most")]
    Lists,
    /// There are too many subscriptions.
    #[error("there may be {SUBSCRIPTIONS_MAX} room_subscriptions at most")]
    Subscriptions,
    /// A list or subscription wants too many pieces of state.
    #[error("there may be {REQUIRED_STATE_MAX} pairs in a required_state at most")]
    RequiredState,
    /// A range ends before it begins.
    #[error("a range of a list ends before it begins")]
    Range,
    /// The connection's name is too long.
    #[error("conn_id may have {CONN_ID_BYTES_MAX} bytes at most")]
    ConnId,
    /// The place in the queue of messages to the device is none.
    #[error("since of the to_device extension is not a next_batch of this server")]
    ToDeviceSince,
}

/// A sliding sync.
#[derive(Debug, Clone)]
pub struct SlidingRequest {
    /// Who asks.
    pub user: OwnedUserId,
    /// With which device.
    pub device: OwnedDeviceId,
    /// On which connection.
    pub(super) conn_id: String,
    /// Said again in the response.
    pub(super) txn_id: Option<String>,
    /// Where the connection is; `None` where it begins.
    pub(super) pos: Option<Pos>,
    /// How long they wait for news.
    pub(super) timeout: Duration,
    /// The lists by name.
    pub(super) lists: BTreeMap<String, List>,
    /// The rooms that are wanted whatever lists say.
    pub(super) subscriptions: BTreeMap<OwnedRoomId, Arc<RoomConfig>>,
    /// What else is wanted.
    pub(super) extensions: Extensions,
    /// The place in the queue of messages to the device up to which the client has them.
    pub(super) messages_seen: Option<u64>,
}

/// A window on the user's rooms.
#[derive(Debug, Clone)]
pub(super) struct List {
    /// First and last index of the filtered rooms, inclusive; all where `None`.
    pub ranges: Option<Vec<(usize, usize)>>,
    /// Which rooms.
    pub filters: Option<Filters>,
    /// What of them.
    pub config: Arc<RoomConfig>,
}

/// What is wanted of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoomConfig {
    /// Events of the timeline at most.
    pub timeline_limit: usize,
    /// Which state.
    pub required_state: RequiredState,
}

impl SlidingRequest {
    /// Makes a request of what came.
    ///
    /// # Errors
    /// As [`InvalidRequest`] says.
    pub fn new(
        (user, device): (OwnedUserId, OwnedDeviceId),
        pos: Option<Pos>,
        timeout: Duration,
        body: Body,
    ) -> Result<Self, InvalidRequest> {
        let Body { conn_id, txn_id, lists, room_subscriptions, extensions, .. } = body;
        let conn_id = conn_id.unwrap_or_default();
        if conn_id.len() > CONN_ID_BYTES_MAX {
            return Err(InvalidRequest::ConnId);
        }
        if lists.len() > LISTS_MAX {
            return Err(InvalidRequest::Lists);
        }
        if room_subscriptions.len() > SUBSCRIPTIONS_MAX {
            return Err(InvalidRequest::Subscriptions);
        }
        let seen = extensions.to_device.as_ref().and_then(|wanted| wanted.since.as_deref());
        let messages_seen = seen.map(str::parse).transpose();
        let messages_seen = messages_seen.map_err(|_| InvalidRequest::ToDeviceSince)?;
        let lists = lists.into_iter().map(|(name, list)| Ok((name, List::new(&user, list)?)));
        let lists = lists.collect::<Result<_, _>>()?;
        let subscriptions = room_subscriptions.into_iter();
        let subscriptions =
            subscriptions.map(|(room, body)| Ok((room, Arc::new(RoomConfig::new(&user, body)?))));
        let subscriptions = subscriptions.collect::<Result<_, _>>()?;
        Ok(Self {
            user,
            device,
            conn_id,
            txn_id,
            pos,
            timeout,
            lists,
            subscriptions,
            extensions,
            messages_seen,
        })
    }
}

impl List {
    fn new(user: &UserId, body: ListBody) -> Result<Self, InvalidRequest> {
        let ListBody { ranges, range, config, filters } = body;
        let ranges = ranges.or_else(|| range.map(|range| vec![range]));
        if ranges.iter().flatten().any(|(first, last)| first > last) {
            return Err(InvalidRequest::Range);
        }
        let index = |index: u64| usize::try_from(index).unwrap_or(usize::MAX);
        let ranges = ranges.map(|ranges| {
            ranges.into_iter().map(|(first, last)| (index(first), index(last))).collect()
        });
        Ok(Self { ranges, filters, config: Arc::new(RoomConfig::new(user, config)?) })
    }

    /// Whether the list shows the room at an index of it.
    pub fn shows(&self, index: usize) -> bool {
        let Some(ranges) = &self.ranges else { return true };
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&index))
    }
}

impl RoomConfig {
    fn new(user: &UserId, body: RoomConfigBody) -> Result<Self, InvalidRequest> {
        if body.required_state.len() > REQUIRED_STATE_MAX {
            return Err(InvalidRequest::RequiredState);
        }
        let limit = usize::try_from(body.timeline_limit).unwrap_or(TIMELINE_LIMIT_MAX);
        Ok(Self {
            timeline_limit: limit.min(TIMELINE_LIMIT_MAX),
            required_state: RequiredState::new(user, body.required_state),
        })
    }

    /// What is wanted of a room by any of two.
    pub fn join(&self, other: &Self) -> Self {
        Self {
            timeline_limit: self.timeline_limit.max(other.timeline_limit),
            required_state: self.required_state.join(&other.required_state),
        }
    }
}
