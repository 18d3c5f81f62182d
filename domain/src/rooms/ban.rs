//! Banning somebody from a room, and lifting the ban (spec: Client-Server API, Banning users in a
//! room).

use ruma::{CanonicalJsonObject, RoomId, UserId, events::room::member::MembershipState};

use super::{
    Rooms,
    membership::{self, Action, Change, MembershipError},
};

/// Bans `target`, whether or not they are in the room.
///
/// # Errors
/// Where the sender may not.
pub async fn ban(
    rooms: &Rooms,
    room: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    let change = Change::of(sender, target, Action::Ban, reason);
    membership::change(rooms, room, &change).await
}

/// Lifts the ban of `target`, who is then outside of the room.
///
/// # Errors
/// Where the target is not banned, or the sender may not.
pub async fn unban(
    rooms: &Rooms,
    room: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    let change = Change::of(sender, target, Action::Unban, reason);
    membership::change(rooms, room, &change).await
}

pub(super) fn prepare(change: &Change<'_>) -> CanonicalJsonObject {
    change.bare(MembershipState::Ban)
}

pub(super) fn prepare_unban(
    change: &Change<'_>,
    current: &MembershipState,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    match current {
        MembershipState::Ban => Ok(Some(change.bare(MembershipState::Leave))),
        _ => Err(MembershipError::NotBanned(change.target.to_owned())),
    }
}
