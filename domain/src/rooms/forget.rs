//! Forgetting a room that one has left (spec: Client-Server API, Leaving rooms).

use futures::FutureExt;
use millrace_store::{Read, Tx, tables::USER_ROOMS};
use ruma::{OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};

use super::Rooms;

/// Why a room was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The user is in the room, or invited to it.
    #[error("you have to leave {0} before you can forget it")]
    StillIn(OwnedRoomId),
    /// The store failed.
    #[error("could not forget the room")]
    Store(#[from] millrace_store::Error),
}

/// Forgets a room: it is neither listed nor readable until the user is invited or joins again.
///
/// # Errors
/// Where the user has not left it.
pub async fn forget(rooms: &Rooms, room: &RoomId, user: &UserId) -> Result<(), ForgetError> {
    let body = |tx: Tx| {
        async move {
            let Some(mut row) = tx.get(&USER_ROOMS, user, room).await? else { return Ok(()) };
            if !matches!(row.membership, MembershipState::Leave | MembershipState::Ban) {
                return Err(ForgetError::StillIn(room.to_owned()));
            }
            if !row.forgotten {
                row.forgotten = true;
                tx.put(&USER_ROOMS, user, room, &row);
            }
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}
