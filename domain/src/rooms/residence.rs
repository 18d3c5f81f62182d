//! Whether this server is in a room: only then does it hear what happens there.

use millrace_store::{Read, tables::ROOM_HEAD};
use ruma::RoomId;

/// Whether any user of this server is joined to the room.
///
/// # Errors
/// Where the store cannot be read.
pub async fn is_resident(read: &impl Read, room: &RoomId) -> millrace_store::Result<bool> {
    let head = read.get(&ROOM_HEAD, room, ()).await?;
    Ok(head.is_some_and(|head| head.joined_here > 0))
}
