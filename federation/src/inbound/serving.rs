//! What answers to other servers need of us beside rooms.

use millrace_domain::rooms::servers;
use millrace_store::{Error, Read, Scan, Snapshot, tables::EVENT_ROOMS};
use ruma::{EventId, OwnedRoomId, ServerName};
use tokio::sync::SemaphorePermit;

use super::Inbound;

/// Answers with whole states that are made at once.
pub(super) const LARGE_ANSWERS: usize = 4;
/// Rooms with an event of the same ID that are looked at: whoever makes IDs up (room versions 1 and 2)
/// hides only their own.
const ROOMS_OF_EVENT_MAX: usize = 16;

impl Inbound {
    /// The room of an event, if that is one that `server` is in, and we are.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn room_of_event(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        event: &EventId,
    ) -> Result<Option<OwnedRoomId>, Error> {
        let all = Scan::all().limit(ROOMS_OF_EVENT_MAX);
        let us = &self.env().identity.name;
        for (room, ()) in snapshot.scan(&EVENT_ROOMS, event.as_str(), all).await? {
            if servers::is_in_room(snapshot, &room, server).await?
                && servers::is_in_room(snapshot, &room, us).await?
            {
                return Ok(Some(room));
            }
        }
        Ok(None)
    }

    /// Waits until an answer with a whole state may be made: few are at once.
    pub async fn turn_for_large_answer(&self) -> Option<SemaphorePermit<'_>> {
        self.large_answers.acquire().await.ok()
    }
}
