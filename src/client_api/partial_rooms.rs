//! Requests that need all members of a room, while those are still being fetched from other servers.

use std::time::Duration;

use http::StatusCode;
use millrace_domain::rooms::{
    Rooms,
    partial::waiting::{self, WaitError},
};
use millrace_store::{Read, tables::USER_ROOMS};
use ruma::{RoomId, UserId, api::error::ErrorKind};

use super::error::ApiError;

/// The longest time that a request waits.
const PATIENCE: Duration = Duration::from_mins(5);

/// Returns when all members of a room are known that the user has to do with; at once for others,
/// whom it is refused anyway.
pub(super) async fn all_members(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
) -> Result<(), ApiError> {
    let row = rooms.env.store.snapshot().get(&USER_ROOMS, user, room).await;
    if !row.map_err(ApiError::internal)?.is_some_and(|row| row.was_joined && !row.forgotten) {
        return Ok(());
    }
    Ok(waiting::completed(rooms, room, PATIENCE).await?)
}

impl From<WaitError> for ApiError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::StillPartial(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Unknown, error)
            }
            WaitError::Store(error) => Self::internal(error),
        }
    }
}
