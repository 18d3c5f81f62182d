//! How many ends a room's graph may have. Each costs with every event: it is part of the head, and
//! states that differ are resolved.

use millrace_model::Pdu;
use millrace_store::{Read, tables::EVENT_NUMBERS};

use super::{AppendError, RoomTx};

/// A server that builds each event on what it knows leaves one end, and a few where it had lost its
/// memory. Who leaves more does so on purpose.
pub(super) const ENDS_OF_ONE_SERVER_MAX: usize = 20;
/// So many ends a graph has at most.
const ENDS_MAX: usize = 200;

impl RoomTx<'_> {
    /// Whether an event would be one end of the graph too many: it follows none of those that are
    /// there, and its server has left too many already. Then it is kept back, as what fails softly is;
    /// what builds on it finds its way to the ends behind it.
    pub(super) async fn is_end_too_many(&self, pdu: &Pdu) -> Result<bool, AppendError> {
        let ends = &self.head.extremities;
        let follows = |id: &ruma::OwnedEventId| ends.iter().any(|end| end.event.event_id == *id);
        if ends.len() < ENDS_OF_ONE_SERVER_MAX || pdu.prev_events.iter().any(follows) {
            return Ok(false);
        }
        if ends.len() >= ENDS_MAX {
            return Ok(true);
        }
        let ids = ends.iter().map(|end| &end.event.event_id);
        let numbers = self.tx.get_many(&EVENT_NUMBERS, &self.room_id, ids).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let (events, version) = (&self.rooms.events, &self.head.version);
        let ends = events.load(self.tx, &self.room_id, version, &numbers).await?;
        let server = pdu.sender.server_name();
        let left = ends.iter().filter(|end| end.pdu.sender.server_name() == server).count();
        Ok(left >= ENDS_OF_ONE_SERVER_MAX)
    }
}
