//! What clients keep for their user, of the account and of its rooms (spec: Client-Server API,
//! Client Config), and what the server itself keeps there: push rules and read markers.

mod ignored;
mod invite_permission;
mod set;
mod tags;

pub use self::{
    ignored::ignored,
    invite_permission::{InvitePermission, InvitePermissions},
    set::{FULLY_READ, PUSH_RULES, SetError, delete, set},
    tags::{delete_tag, set_tag, tags},
};

use millrace_store::{Read, tables::ACCOUNT_DATA};
use ruma::{RoomId, UserId};

/// The content of one type of account data as JSON text, of a room or (`None`) of the account.
/// Push rules, which everybody has, are read by [`crate::push_rules::account_data`].
///
/// # Errors
/// Where the store cannot be read.
pub async fn get(
    read: &impl Read,
    user: &UserId,
    room: Option<&RoomId>,
    kind: &str,
) -> millrace_store::Result<Option<String>> {
    read.get(&ACCOUNT_DATA, user, (room_key(room), kind)).await
}

/// The first part of the key: empty for the account's own data.
pub(crate) fn room_key(room: Option<&RoomId>) -> &str {
    room.map_or("", RoomId::as_str)
}
