//! An event by its ID alone (spec: Client-Server API, `GET /events/{eventId}`, which is deprecated).

use millrace_store::{
    Read, Scan,
    tables::{EVENT_NUMBERS, USER_ROOMS},
};
use ruma::EventId;
use serde_json::value::RawValue;

use super::{
    Rooms, Viewer,
    history::{self, HistoryError},
};

/// Looks for an event in the rooms that the viewer has or had to do with: one look for each.
///
/// # Errors
/// [`HistoryError::UnknownEvent`] where there is none that they may see.
pub async fn find_event(
    rooms: &Rooms,
    viewer: &Viewer,
    event: &EventId,
) -> Result<Box<RawValue>, HistoryError> {
    let snapshot = rooms.env.store.snapshot();
    for (room, _) in snapshot.scan(&USER_ROOMS, &viewer.user, Scan::all()).await? {
        if snapshot.get(&EVENT_NUMBERS, &room, event).await?.is_some() {
            return history::event(rooms, &snapshot, (&room, event), viewer).await;
        }
    }
    Err(HistoryError::UnknownEvent(event.to_owned()))
}
