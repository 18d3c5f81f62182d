//! The workers of rooms that have something in their queues.

use std::{sync::Arc, time::Duration};

use millrace_domain::rooms::ReceiveError;
use ruma::{OwnedRoomId, RoomId};
use rustc_hash::FxHashMap;
use tokio::task::{Id, JoinSet};

use super::{
    Inbound, queue,
    queue::{Outcome, Waiting},
    schedule::Next,
};

/// How often it is looked whether what was put off is due, while something is.
const DUE_EVERY: Duration = Duration::from_secs(1);
/// A room whose events could not be stored is tried again after so many milliseconds.
const RETRY_AFTER_MS: u64 = 5_000;

impl Inbound {
    /// Works on rooms for ever, beginning with what waited when the server started.
    pub async fn run(self: Arc<Self>) {
        let waiting = loop {
            match queue::waiting_rooms(self.env()).await {
                Ok(waiting) => break waiting,
                Err(error) => tracing::error!(%error, "the queues of rooms cannot be read"),
            }
            tokio::time::sleep(Duration::from_millis(RETRY_AFTER_MS)).await;
        };
        self.schedule.resume(waiting);
        let mut workers = Workers::default();
        loop {
            let now = u64::from(self.env().now().get());
            while workers.tasks.len() < self.settings.rooms_at_once
                && let Some(room) = self.schedule.take(now)
            {
                workers.start(&self, room);
            }
            let some_due = self.schedule.due().is_some();
            tokio::select! {
                () = self.schedule.news() => {}
                () = tokio::time::sleep(DUE_EVERY), if some_due => {}
                () = workers.next(&self), if !workers.tasks.is_empty() => {}
            }
        }
    }

    /// Returns when all that has come in was worked on, but for what is put off.
    pub async fn idle(&self) {
        self.schedule.idle().await;
    }

    /// Receives the oldest events of a room's queue.
    async fn step(&self, room: &RoomId) -> Result<Next, ReceiveError> {
        let rows = match queue::oldest(self.env(), room).await? {
            Waiting::Nothing => return Ok(Next::Idle),
            Waiting::Until(due) => return Ok(Next::At(due)),
            Waiting::Events(rows) => rows,
        };
        let outcomes = self.receive_all(room, &rows).await?;
        let outcomes: Vec<_> = rows
            .into_iter()
            .zip(outcomes)
            .map(|((n, pdu), outcome): (_, Outcome)| (n, pdu, outcome))
            .collect();
        queue::finish(self.env(), room, &outcomes).await?;
        self.retry_receipts(room).await;
        Ok(Next::Again)
    }
}

/// The tasks under way, and the room of each.
#[derive(Default)]
struct Workers {
    tasks: JoinSet<Next>,
    rooms: FxHashMap<Id, OwnedRoomId>,
}

impl Workers {
    fn start(&mut self, inbound: &Arc<Inbound>, room: OwnedRoomId) {
        let (inbound, of) = (Arc::clone(inbound), room.clone());
        let task = self.tasks.spawn(async move {
            inbound.step(&of).await.unwrap_or_else(|error| {
                tracing::error!(%error, room = %of, "events cannot be received now");
                Next::At(u64::from(inbound.env().now().get()).saturating_add(RETRY_AFTER_MS))
            })
        });
        self.rooms.insert(task.id(), room);
    }

    /// Waits for a task to end. A task that panicked leaves its room until something comes.
    async fn next(&mut self, inbound: &Inbound) {
        let (id, next) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, next))) => (id, next),
            Some(Err(error)) => {
                tracing::error!(%error, "a worker of a room failed");
                let now = u64::from(inbound.env().now().get());
                (error.id(), Next::At(now.saturating_add(RETRY_AFTER_MS)))
            }
            None => return,
        };
        if let Some(room) = self.rooms.remove(&id) {
            inbound.schedule.finished(room, next);
        }
    }
}
