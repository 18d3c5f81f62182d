//! How far users have read (spec: Client-Server API, Receipts; Read and unread markers). What has come to
//! them is in [`crate::deliveries`].

mod advance;
mod receive;
mod thread;

pub use self::{
    advance::{Advance, AdvanceError, NewReceipt, ReadMarkers, Scope, advance, set_markers},
    receive::{RemoteReceipt, receive},
    thread::{MAIN, thread_of},
};

use millrace_store::{Read, rows::receipt::ReadUpTo, tables::READ_UP_TO};
use ruma::{RoomId, UserId};

/// The newest receipts of a user in a room, public or private.
///
/// # Errors
/// Where the store cannot be read.
pub async fn read_up_to(
    read: &impl Read,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<ReadUpTo> {
    Ok(read.get(&READ_UP_TO, room, user).await?.unwrap_or_default())
}
