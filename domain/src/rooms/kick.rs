//! Removing somebody from a room (spec: Client-Server API, `POST /rooms/{roomId}/kick`).

use ruma::{CanonicalJsonObject, RoomId, UserId, events::room::member::MembershipState};

use super::{
    Rooms,
    membership::{self, Action, Change, MembershipError},
};

/// Takes `target` out of a room, or takes back their invitation, or turns down their knock.
///
/// # Errors
/// Where the target is not in the room, or the sender may not.
pub async fn kick(
    rooms: &Rooms,
    room: &RoomId,
    sender: &UserId,
    target: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    let change = Change::of(sender, target, Action::Kick, reason);
    membership::change(rooms, room, &change).await
}

pub(super) fn prepare(
    change: &Change<'_>,
    current: &MembershipState,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    match current {
        MembershipState::Join | MembershipState::Invite | MembershipState::Knock => {
            Ok(Some(change.bare(MembershipState::Leave)))
        }
        // Kicking whom one has banned would lift the ban.
        _ => Err(MembershipError::NotInRoom(change.target.to_owned())),
    }
}
