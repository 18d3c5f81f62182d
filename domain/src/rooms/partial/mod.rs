//! Rooms of which only a part of the state is known, as we joined them by a server that left out the
//! members (spec: Server-Server API, `send_join` with `omit_members`).
//!
//! Such a room is used at once. What comes meanwhile is judged by what is known ([`known`]) and
//! noted in a log ([`log`]). When the complete state before our join is here ([`settle`]), the log is
//! played again on complete states, members are added to the current state in small steps, and then
//! the room is what it would be had it been joined whole ([`complete`]). Whoever needs all members
//! waits ([`waiting`]).

pub mod complete;
mod devices;
mod finish;
mod grow;
mod known;
mod log;
mod replay;
pub mod settle;
pub mod waiting;

#[cfg(test)]
mod tests;

use millrace_store::{Node, Read, Scan, rows::room::RoomHead, tables::PARTIAL_ROOMS};
use ruma::OwnedRoomId;

pub(crate) use self::devices::EARLY_MAX;
pub(in crate::rooms) use self::known::Members;
pub use self::known::{is_partial, may_be_excluded, may_be_member};
use super::{AppendError, ReceiveError};

/// Why a partial room is not completed.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// What was told as a room's state is none of it.
    #[error("the state that was told of {0} is not one of the room")]
    OtherState(OwnedRoomId),
    /// Events cannot be judged again.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

impl From<AppendError> for CompleteError {
    fn from(error: AppendError) -> Self {
        Self::Receive(error.into())
    }
}

impl From<millrace_store::Error> for CompleteError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Receive(error.into())
    }
}

/// The rooms that are to be completed.
///
/// # Errors
/// Where the store cannot be read.
pub async fn rooms(read: &impl Read) -> millrace_store::Result<Vec<OwnedRoomId>> {
    let rows = read.scan(&PARTIAL_ROOMS, Node, Scan::all()).await?;
    Ok(rows.into_iter().map(|(room, ())| room).collect())
}

/// Whether members of the room are missing which are to be had: somebody of ours is in it.
#[must_use]
pub const fn is_awaited(head: &RoomHead) -> bool {
    head.partial.is_some() && head.joined_here > 0
}
