//! What answers to other servers need of us beside rooms.

use millrace_domain::rooms::servers;
use millrace_store::{Error, Read, Snapshot, tables::EVENT_NUMBERS};
use ruma::{EventId, OwnedRoomId, ServerName};
use tokio::sync::SemaphorePermit;

use super::Inbound;

/// Answers with whole states that are made at once.
pub(super) const LARGE_ANSWERS: usize = 4;
/// Servers of which it is remembered in which room they last asked for an event.
pub(super) const SERVERS_REMEMBERED: usize = 1000;

impl Inbound {
    /// The room of an event, if that is one that `server` is in too. Who asks for one event mostly
    /// asks for more of the same room.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn room_of_event(
        &self,
        snapshot: &Snapshot,
        server: &ServerName,
        event: &EventId,
    ) -> Result<Option<OwnedRoomId>, Error> {
        let last = self.asked_of.lock().get(server).cloned();
        if let Some(room) = last
            && snapshot.get(&EVENT_NUMBERS, &room, event).await?.is_some()
        {
            return Ok(Some(room));
        }
        for room in servers::rooms_shared_with(snapshot, self.env(), server).await? {
            if snapshot.get(&EVENT_NUMBERS, &room, event).await?.is_some() {
                self.asked_of.lock().put(server.to_owned(), room.clone());
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
