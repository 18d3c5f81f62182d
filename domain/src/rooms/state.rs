//! The state of a room as a user reads it: as it is now, or as it was when they left (spec:
//! Client-Server API, Getting events for a room).

use millrace_model::client_event::RoomIdField;
use millrace_store::{Read, Snapshot, state_tree::StateRoot, tables::CURRENT_STATE};
use ruma::{OwnedRoomId, RoomId};
use serde_json::value::RawValue;

use super::{ReadError, RoomView, Rooms, Viewer};

/// Why no state is shown.
#[derive(Debug, thiserror::Error)]
pub enum StateReadError {
    /// The user may not read the room, or there is none.
    #[error("you are not in the room {0}")]
    NotReadable(OwnedRoomId),
    /// The state has nothing at this place.
    #[error("the room has no such state")]
    NoSuchState,
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// In which form a state event is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Its content only.
    Content,
    /// The whole event.
    Event,
}

/// One state event.
///
/// # Errors
/// Where the user may not read the room, or there is no such state.
pub async fn state_event(
    rooms: &Rooms,
    viewer: &Viewer,
    room: &RoomId,
    (kind, state_key): (&str, &str),
    form: Form,
) -> Result<Box<RawValue>, StateReadError> {
    let snapshot = rooms.env.store.snapshot();
    let (view, root) = open(rooms, &snapshot, room, viewer).await?;
    let number = if root == view.head.root {
        let number = snapshot.get(&CURRENT_STATE, room, (kind, state_key)).await;
        number.map_err(ReadError::from)?
    } else {
        let found = rooms.states.get(&snapshot, room, root, (kind, state_key)).await;
        found.map_err(ReadError::from)?
    };
    let number = number.ok_or(StateReadError::NoSuchState)?;
    let seen = view.state_events(&[number]).await?.pop().ok_or(StateReadError::NoSuchState)?;
    if form == Form::Event {
        return Ok(view.render_one(&seen, RoomIdField::Present).await?);
    }
    Ok(match seen.header.redacted_by {
        Some(_) => {
            let redacted = seen.event.redacted(view.rules).map_err(ReadError::from)?;
            redacted.pdu.content.clone()
        }
        None => seen.event.pdu.content.clone(),
    })
}

/// The whole state.
///
/// # Errors
/// Where the user may not read the room.
pub async fn whole_state(
    rooms: &Rooms,
    viewer: &Viewer,
    room: &RoomId,
) -> Result<Vec<Box<RawValue>>, StateReadError> {
    let snapshot = rooms.env.store.snapshot();
    let (view, root) = open(rooms, &snapshot, room, viewer).await?;
    let numbers = rooms.states.numbers(&snapshot, room, root, None).await;
    let numbers = numbers.map_err(ReadError::from)?;
    let seen = view.state_events(&numbers).await?;
    Ok(view.render(&seen, RoomIdField::Present).await?)
}

async fn open<'a>(
    rooms: &'a Rooms,
    snapshot: &'a Snapshot,
    room: &'a RoomId,
    viewer: &'a Viewer,
) -> Result<(RoomView<'a>, StateRoot), StateReadError> {
    let not_readable = || StateReadError::NotReadable(room.to_owned());
    let view = RoomView::open(rooms, snapshot, room, viewer).await?.ok_or_else(not_readable)?;
    let (_, root) = view.end().await?.ok_or_else(not_readable)?;
    Ok((view, root))
}
