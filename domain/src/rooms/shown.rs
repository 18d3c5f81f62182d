//! What somebody outside of a room is shown of it (spec: Client-Server API, Stripped state).

use std::sync::Arc;

use millrace_store::{
    Read,
    tables::{CURRENT_STATE, ROOM_HEAD},
};
use ruma::{RoomId, UserId};

use super::{Event, Rooms, events::LoadError};

/// The types that the specification lists.
pub(super) const SHOWN: [&str; 8] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.history_visibility",
];

/// The current state that who is invited by `inviter`, or knocks, is shown; none of a room that is
/// not here.
///
/// # Errors
/// Where the room cannot be read.
pub async fn shown_state(
    rooms: &Rooms,
    read: &impl Read,
    room: &RoomId,
    inviter: Option<&UserId>,
) -> Result<Vec<Arc<Event>>, LoadError> {
    let Some(head) = read.get(&ROOM_HEAD, room, ()).await? else { return Ok(Vec::new()) };
    let inviter = inviter.map(|inviter| ("m.room.member", inviter.as_str()));
    let places = SHOWN.iter().map(|kind| (*kind, "")).chain(inviter);
    let numbers = read.get_many(&CURRENT_STATE, room, places).await?;
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    rooms.events.load(read, room, &head.version, &numbers).await
}
