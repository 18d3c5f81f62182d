//! The log of a partial room: what came, in the order of its coming.

use millrace_store::{
    Node,
    rows::partial::{Before, Completion, Ending, PartialEvent},
    tables::{COMPLETION, PARTIAL_EVENTS, PARTIAL_ROOMS},
};

use crate::rooms::RoomTx;

/// Place of the first row of a log.
const FIRST: u64 = 1;

impl RoomTx<'_> {
    /// Notes that only a part of the room's state is known from now on.
    pub(in crate::rooms) fn begin_partial(&mut self) {
        if self.head.partial.is_some() {
            return;
        }
        self.head.partial = Some(FIRST);
        self.head.was_partial = true;
        let completion = Completion { next: FIRST, ..Completion::default() };
        self.tx.put(&COMPLETION, &self.room_id, (), &completion);
        self.tx.put(&PARTIAL_ROOMS, Node, &self.room_id, &());
    }

    /// Notes an event of a partial room, to be judged again; nothing in any other room.
    pub(in crate::rooms) fn note_partial(&mut self, event: u64, before: Before, ending: Ending) {
        let Some(place) = self.head.partial else { return };
        self.head.partial = Some(place + 1);
        let row = PartialEvent { event, before, ending };
        self.tx.put(&PARTIAL_EVENTS, &self.room_id, place, &row);
    }
}
