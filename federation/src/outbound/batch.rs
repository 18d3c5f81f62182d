//! What one transaction holds.

use millrace_store::{
    Read, Snapshot,
    rows::outbox::{Batch, Reached, Walk},
    tables::ROOM_SERVERS,
};
use ruma::{OwnedRoomId, api::federation::transactions::edu::Edu, serde::Raw};
use serde_json::value::RawValue;

use super::{
    Outbound, OutboundError, edus,
    live::{self, Due, PDUS_MAX},
    task::Task,
    walk::Stage,
};

/// A transaction, ready to be sent.
#[derive(Debug)]
pub(super) struct Built {
    pub batch: Batch,
    pub pdus: Vec<Box<RawValue>>,
    /// The events among it, by number.
    pub events: Vec<(OwnedRoomId, u64)>,
    pub edus: Vec<Raw<Edu>>,
    /// Whether it holds what may not be lost, so that its ID is stored before it is sent.
    pub durable: bool,
    /// Rooms that need not be remembered for the server once it has acknowledged this.
    pub left: Vec<OwnedRoomId>,
}

/// What a task was told since it last looked, taken at once.
struct Taken {
    rooms: Vec<(OwnedRoomId, u64)>,
    to_device: bool,
    devices: bool,
}

impl Task {
    /// The next transaction; `None` where there is nothing to send.
    pub(super) async fn build(&mut self) -> Result<Option<Built>, OutboundError> {
        self.begin_walk().await?;
        let taken = self.take();
        // First how far the news go, then what there is: so everything up to there is among it.
        let up_to = self.outbound.followed();
        let snapshot = self.outbound.federation.env.store.snapshot();
        let Stage { due, rooms, left, mut end } = match self.row.sent.walk.clone() {
            Some(walk) => {
                let from = (&self.row.sent, &walk);
                self.outbound.walk_on(&snapshot, &self.queue.server, from).await?
            }
            None => self.live(&snapshot, &taken, up_to).await?,
        };
        let outbound = &self.outbound;
        let (from, server) = (&self.row.sent, &self.queue.server);
        let mut edus = Vec::new();
        if taken.to_device {
            let (messages, reached) = outbound.to_device(&snapshot, server, from, None).await?;
            end.to_device = reached;
            // There may be more; a look costs one read.
            self.queue.pending.lock().to_device |= !messages.is_empty();
            edus.extend(messages);
        }
        if taken.devices {
            let range = (from.devices, up_to);
            let (changes, reached) = outbound.device_lists(&snapshot, server, range).await?;
            end.devices = reached;
            self.queue.pending.lock().devices |= reached < up_to;
            edus.extend(changes);
        }
        let durable = !due.is_empty() || !edus.is_empty();
        let introduced = edus::take_introduced(&mut self.queue.pending.lock(), edus.len());
        edus.extend(outbound.introductions(&snapshot, introduced).await?);
        edus.extend(edus::take_ephemeral(&mut self.queue.pending.lock(), edus.len())?);
        if due.is_empty() && edus.is_empty() {
            self.reached(end, left);
            return Ok(None);
        }
        let (pdus, events) = (outbound.load(&snapshot, &due).await?, numbers(&due));
        let id = outbound.federation.env.random_text(16);
        let batch = Batch { id, rooms, end };
        Ok(Some(Built { batch, pdus, events, edus, durable, left }))
    }

    /// A transaction that was begun before, of which it is not known whether it arrived.
    pub(super) async fn rebuild(&self, batch: Batch) -> Result<Built, OutboundError> {
        let snapshot = self.outbound.federation.env.store.snapshot();
        let (outbound, server) = (&self.outbound, &self.queue.server);
        let (from, end) = (&self.row.sent, &batch.end);
        let due = match &from.walk {
            Some(walk) => self.walked(&snapshot, walk, &batch.rooms).await?,
            None => {
                // The commit after the end, of which some events are among them, may be any.
                let range = (from.seq, if end.skip > 0 { u64::MAX } else { end.seq });
                let found = live::find(&snapshot, server, batch.rooms.iter(), range).await?;
                live::between(found, from, end)
            }
        };
        let last = Some(end.to_device);
        let (mut edus, _) = outbound.to_device(&snapshot, server, from, last).await?;
        if end.devices > from.devices {
            let range = (from.devices, end.devices);
            edus.extend(outbound.device_lists(&snapshot, server, range).await?.0);
        }
        let (pdus, events) = (outbound.load(&snapshot, &due).await?, numbers(&due));
        Ok(Built { batch, pdus, events, edus, durable: true, left: Vec::new() })
    }

    async fn walked(
        &self,
        snapshot: &Snapshot,
        walk: &Walk,
        rooms: &[OwnedRoomId],
    ) -> Result<Vec<Due>, OutboundError> {
        let (mut due, range) = (Vec::new(), (self.row.sent.seq, walk.until));
        for room in rooms {
            let missed = self.outbound.missed(snapshot, &self.queue.server, room, range).await?;
            due.extend(missed.0);
        }
        due.truncate(PDUS_MAX);
        Ok(due)
    }

    /// Begins to walk through the rooms where the server may have missed anything.
    async fn begin_walk(&mut self) -> Result<(), OutboundError> {
        let asked = self.queue.pending.lock().walk;
        if !asked || self.row.sent.walk.is_some() {
            return Ok(());
        }
        self.queue.pending.lock().walk = false;
        let snapshot = self.outbound.federation.env.store.snapshot();
        let rooms = Outbound::rooms_with(&snapshot, &self.queue.server).await?;
        // From now on it is told what happens in these, and the walk goes as far as that.
        self.outbound.came_back(&self.queue.server, &rooms);
        self.row.sent.walk = Some(Walk { until: self.outbound.followed(), after: None });
        let mut pending = self.queue.pending.lock();
        pending.to_device = true;
        pending.devices = true;
        Ok(())
    }

    fn take(&self) -> Taken {
        let mut pending = self.queue.pending.lock();
        Taken {
            rooms: pending.rooms.iter().map(|(room, told)| (room.clone(), *told)).collect(),
            to_device: std::mem::take(&mut pending.to_device),
            devices: std::mem::take(&mut pending.devices),
        }
    }

    async fn live(
        &self,
        snapshot: &Snapshot,
        taken: &Taken,
        up_to: u64,
    ) -> Result<Stage, OutboundError> {
        let (from, server) = (&self.row.sent, &self.queue.server);
        if up_to <= from.seq {
            self.queue.pending.lock().rooms.retain(|_, told| *told > up_to);
            let (due, rooms, left) = Default::default();
            return Ok(Stage { due, rooms, left, end: from.clone() });
        }
        let rooms = || taken.rooms.iter().map(|(room, _)| room);
        let range = (from.seq, up_to);
        let found = live::find(snapshot, server, rooms(), range).await?;
        let (due, end) = live::cut(found, from, PDUS_MAX);
        let mut left = Vec::new();
        if end.seq >= up_to {
            for room in rooms() {
                let row = snapshot.get(&ROOM_SERVERS, room, server).await?;
                if row.is_none_or(|row| row.joined == 0) {
                    left.push(room.clone());
                }
            }
            // What was told of after `up_to` was read stays.
            self.queue.pending.lock().rooms.retain(|_, told| *told > up_to);
        }
        let mut of: Vec<OwnedRoomId> = due.iter().map(|due| due.room.clone()).collect();
        of.sort_unstable();
        of.dedup();
        Ok(Stage { due, rooms: of, left, end })
    }

    /// Notes that there is nothing to send up to here.
    pub(super) fn reached(&mut self, end: Reached, left: Vec<OwnedRoomId>) {
        let moved = self.row.sent.walk != end.walk;
        self.row.sent = end;
        self.left.extend(left);
        if moved {
            self.queue.news.notify_one();
        }
        self.show_floor();
    }
}

fn numbers(due: &[Due]) -> Vec<(OwnedRoomId, u64)> {
    due.iter().map(|due| (due.room.clone(), due.row.event)).collect()
}
