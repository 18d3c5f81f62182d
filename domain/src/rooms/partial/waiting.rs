//! Waiting until all members of a room are known (spec: Client-Server API, Getting events for a room:
//! what is answered is the whole of it).

use std::time::Duration;

use millrace_store::{PartitionId, Read, tables::ROOM_HEAD};
use ruma::{OwnedRoomId, RoomId};
use tokio::time::{Instant, timeout_at};

use super::is_awaited;
use crate::rooms::Rooms;

/// What is missing of a small room is here in no time: who can do without waits only so long for it.
pub const MOMENT: Duration = Duration::from_millis(500);

/// Why somebody did not wait any longer.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// It takes too long.
    #[error("the members of {0} are still being fetched from other servers")]
    StillPartial(OwnedRoomId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Returns when all members of a room are known, or will not be: at once in a room that is not
/// partial, and where nobody of ours is in it any more.
///
/// # Errors
/// [`WaitError::StillPartial`] after `patience`.
pub async fn completed(rooms: &Rooms, room: &RoomId, patience: Duration) -> Result<(), WaitError> {
    let deadline = Instant::now() + patience;
    let store = &rooms.env.store;
    loop {
        // Watch first, then look: what is committed in between is seen by the look.
        let watch = store.watch(vec![PartitionId::of::<OwnedRoomId>(&room.to_owned())]);
        let head = store.snapshot().get(&ROOM_HEAD, room, ()).await?;
        if !head.is_some_and(|head| is_awaited(&head)) {
            return Ok(());
        }
        if timeout_at(deadline, watch.changed()).await.is_err() {
            return Err(WaitError::StillPartial(room.to_owned()));
        }
    }
}
