//! Leaving a room, rejecting an invitation to it, or taking back a knock (spec: Client-Server API,
//! `POST /rooms/{roomId}/leave`).

use millrace_model::rules::join::Refusal;
use millrace_store::{Read, Scan, tables::USER_ROOMS};
use ruma::{CanonicalJsonObject, RoomId, UserId, events::room::member::MembershipState};

use super::{
    RoomTx, Rooms,
    membership::{self, Action, Change, MembershipError},
    server_notices::is_notices_room,
};

/// Takes `user` out of a room. Who has left already stays so, without an event.
///
/// # Errors
/// Where the user was never in the room, or is banned from it.
pub async fn leave(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    membership::change(rooms, room, &Change::own(user, Action::Leave, reason)).await
}

/// Takes `user` out of every room, and rejects all invitations; for accounts that are given up.
/// Repeating it is harmless. A room that refuses is skipped.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn leave_all_rooms(rooms: &Rooms, user: &UserId) -> millrace_store::Result<()> {
    let snapshot = rooms.env.store.snapshot();
    for (room, row) in snapshot.scan(&USER_ROOMS, user, Scan::all()).await? {
        if matches!(row.membership, MembershipState::Leave | MembershipState::Ban) {
            continue;
        }
        match leave(rooms, &room, user, None).await {
            Err(MembershipError::Append(super::AppendError::Store(error))) => return Err(error),
            Err(error) => tracing::warn!(%user, %room, %error, "could not leave a room"),
            Ok(()) => {}
        }
    }
    Ok(())
}

pub(super) async fn prepare(
    room: &RoomTx<'_>,
    change: &Change<'_>,
    current: &MembershipState,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    let invited = *current == MembershipState::Invite;
    if invited && is_notices_room(room.tx, change.target, &room.room_id).await? {
        return Err(MembershipError::ServerNotices);
    }
    match current {
        MembershipState::Join | MembershipState::Invite | MembershipState::Knock => {
            Ok(Some(change.bare(MembershipState::Leave)))
        }
        MembershipState::Ban => Err(Refusal::Banned.into()),
        _ if room.member(change.target).await?.is_some() => Ok(None),
        _ => Err(MembershipError::NotInRoom(change.target.to_owned())),
    }
}
