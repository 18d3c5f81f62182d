//! Rooms as other servers ask about them.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::header;
use millrace_domain::rooms::{ReadError, Rooms, ServerView, server_acl};
use millrace_store::Snapshot;
use ruma::{RoomId, ServerName};
use serde_json::value::RawValue;

use crate::client_api::error::ApiError;

/// Opens a room for a server that is in it.
pub(super) async fn open<'a>(
    rooms: &'a Rooms,
    snapshot: &'a Snapshot,
    room: &'a RoomId,
    origin: &'a ServerName,
) -> Result<ServerView<'a>, ApiError> {
    let view = ServerView::open(rooms, snapshot, room, origin).await.map_err(unreadable)?;
    let view = view.ok_or_else(|| ApiError::not_found("This server does not know the room"))?;
    if !server_acl::admits(rooms, snapshot, room, origin).await.map_err(unreadable)? {
        return Err(ApiError::forbidden("The room's server ACL forbids it"));
    }
    if !view.is_in_room() {
        return Err(ApiError::forbidden("Your server is not in the room"));
    }
    Ok(view)
}

pub(super) fn unreadable(error: ReadError) -> ApiError {
    ApiError::internal(error)
}

/// Text that is known to be JSON, as part of an answer.
pub(super) fn raw(json: &str) -> Result<Box<RawValue>, ApiError> {
    RawValue::from_string(json.to_owned()).map_err(ApiError::internal)
}

/// An answer that is written in pieces.
pub(super) fn streamed(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
