//! The task of one server, while it has something to be told.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::StatusCode;
use millrace_store::rows::outbox::{Outgoing, Reached};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::federation::transactions::send_transaction_message::v1 as send_transaction,
};

use super::{Outbound, OutboundError, backoff, batch::Built, board::Queue};
use crate::{PeerError, transport::ExchangeLimits};

/// The largest answer to a transaction: a line for each of 50 events.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a task rests after our own store failed.
const REST: Duration = Duration::from_secs(1);
/// And how long a server waits whose task could not even begin for that.
const PUT_OFF_MS: u64 = 60_000;

/// See the module.
pub(super) struct Task {
    pub outbound: Arc<Outbound>,
    pub queue: Arc<Queue>,
    pub row: Outgoing,
    /// Rooms that need not be remembered for the server any more.
    pub left: Vec<OwnedRoomId>,
    /// Whether `row` says more than what is stored.
    dirty: bool,
    /// Whether the server had not answered before this task, and it was not noted yet that it does.
    failing: bool,
    /// Whether it has answered this task.
    answers: bool,
}

/// What to do after a step.
enum Next {
    /// There may be more to send.
    Now,
    /// Wait for news.
    Idle,
    /// The server is down.
    Down,
}

/// What a server said to a transaction that need not be sent again.
enum Taken {
    /// That it took its events, but for these.
    But(BTreeSet<OwnedEventId>),
    /// Nothing that could be understood, or that it does not take such a one.
    Unknown,
}

/// Sends to one server what is new to it, until there is nothing more for a while or it is down.
pub(super) async fn run(outbound: Arc<Outbound>, queue: Arc<Queue>) {
    let mut task = match Task::load(outbound, queue).await {
        Ok(task) => task,
        Err((outbound, queue, error)) => {
            tracing::error!(%error, "sending to {} cannot begin", queue.server);
            let now = outbound.now_ms();
            outbound.board.lock().put_off(&queue.server, now + PUT_OFF_MS);
            return;
        }
    };
    loop {
        match task.step().await {
            Ok(Next::Now) => {}
            Ok(Next::Idle) => {
                let news = task.queue.news.notified();
                if tokio::time::timeout(task.outbound.settings.linger, news).await.is_err()
                    && task.end().await
                {
                    return;
                }
            }
            Ok(Next::Down) => return,
            Err(error) => {
                tracing::error!(%error, "nothing can be sent to {}", task.queue.server);
                task.queue.pending.lock().walk = true;
                tokio::time::sleep(REST).await;
            }
        }
    }
}

impl Task {
    async fn load(
        outbound: Arc<Outbound>,
        queue: Arc<Queue>,
    ) -> Result<Self, (Arc<Outbound>, Arc<Queue>, millrace_store::Error)> {
        let snapshot = outbound.federation.env.store.snapshot();
        let row = match Outbound::outgoing(&snapshot, &queue.server).await {
            Ok(row) => row,
            Err(error) => return Err((outbound, queue, error)),
        };
        let failing = queue.pending.lock().walk;
        let known = row.is_some();
        let mut row = row.unwrap_or_default();
        if !known || (!failing && row.batch.is_none() && row.sent.walk.is_none()) {
            // It was told all that was committed up to here: see `Outbound::followed`.
            let floor = queue.floor.load(Ordering::Acquire);
            if floor > row.sent.seq {
                row.sent.seq = floor;
                row.sent.skip = 0;
            }
            row.sent.devices = row.sent.devices.max(floor);
        }
        if !failing {
            let mut pending = queue.pending.lock();
            pending.walk |= row.sent.walk.is_some();
            // What is left of an earlier run, if anything.
            pending.to_device = true;
        }
        let task = Self {
            outbound,
            queue,
            row,
            left: Vec::new(),
            dirty: false,
            failing,
            answers: known && !failing,
        };
        task.show_floor();
        Ok(task)
    }

    async fn step(&mut self) -> Result<Next, OutboundError> {
        let outbound = Arc::clone(&self.outbound);
        let turns = if self.answers { &outbound.sound } else { &outbound.unsure };
        // Whoever does not answer holds up others of that sort only.
        let _turn = turns.acquire().await;
        let built = match self.row.batch.clone() {
            Some(batch) => self.rebuild(batch).await?,
            None => match self.build().await? {
                Some(built) => built,
                None if self.has_more() => return Ok(Next::Now),
                None => return self.rest().await,
            },
        };
        if built.durable && self.row.batch.is_none() {
            self.row.batch = Some(built.batch.clone());
            self.persist().await?;
        }
        match self.send(&built).await {
            Ok(taken) => {
                self.answers = true;
                if let Taken::But(refused) = taken {
                    self.reached_server(&built, &refused).await;
                }
                self.acknowledged(built);
                Ok(Next::Now)
            }
            Err(error) => {
                tracing::debug!(%error, "{} was not told", self.queue.server);
                self.down(&error).await?;
                Ok(Next::Down)
            }
        }
    }

    /// Whether there is something to look at though nothing was found to send.
    fn has_more(&self) -> bool {
        let pending = self.queue.pending.lock();
        let followed = self.outbound.followed();
        let walks = self.row.sent.walk.is_some() || pending.walk;
        walks || pending.rooms.values().any(|told| *told <= followed)
    }

    /// Nothing is left to be sent: notes it where the server was down before.
    async fn rest(&mut self) -> Result<Next, OutboundError> {
        if self.recovered() {
            self.persist().await?;
        }
        Ok(Next::Idle)
    }

    /// Whether the server was down and has been told everything since.
    pub(super) fn recovered(&self) -> bool {
        let walks = self.row.sent.walk.is_some() || self.queue.pending.lock().walk;
        self.failing && !walks
    }

    /// Notes that all is stored.
    pub(super) fn written(&mut self) {
        self.dirty = false;
        *self.queue.unwritten.lock() = None;
    }

    /// Notes that the server is not failing any more, before that is stored.
    pub(super) fn recover(&mut self) {
        self.failing = false;
        self.show_floor();
    }

    fn acknowledged(&mut self, built: Built) {
        let Reached { seq, .. } = built.batch.end;
        debug_assert!(seq >= self.row.sent.seq, "a server is never told less than before");
        self.row.sent = built.batch.end;
        self.row.batch = None;
        self.left.extend(built.left);
        self.dirty |= built.durable;
        if self.dirty {
            *self.queue.unwritten.lock() = Some(self.row.clone());
        }
        self.show_floor();
    }

    /// Shows how far the server was told, for the position that a restart goes on from. While it is
    /// noted as failing, the restart looks at all its rooms anyway.
    pub(super) fn show_floor(&self) {
        let floor = if self.failing { u64::MAX } else { self.row.sent.seq };
        self.queue.floor.store(floor, Ordering::Release);
    }

    /// Lets the senders of events know that the server has them.
    async fn reached_server(&self, built: &Built, refused: &BTreeSet<OwnedEventId>) {
        let (deliveries, server) = (&self.outbound.deliveries, &self.queue.server);
        // Nothing is sent once more for it.
        if let Err(error) = deliveries.reached(server, &built.events, refused).await {
            tracing::error!(%error, "senders do not hear what {server} has taken");
        }
    }

    async fn send(&self, built: &Built) -> Result<Taken, PeerError> {
        let env = &self.outbound.federation.env;
        let id = built.batch.id.as_str().into();
        let mut request = send_transaction::Request::new(id, env.identity.name.clone(), env.now());
        request.pdus.clone_from(&built.pdus);
        request.edus.clone_from(&built.edus);
        let limits = ExchangeLimits {
            timeout: self.outbound.settings.answer_timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let server = &self.queue.server;
        match self.outbound.federation.peers.ask_within(server, request, limits).await {
            Ok(answer) => {
                let mut refused = BTreeSet::new();
                for (event, error) in answer.pdus {
                    if let Err(error) = error {
                        tracing::debug!(%event, %server, %error, "an event was refused");
                        refused.insert(event);
                    }
                }
                Ok(Taken::But(refused))
            }
            // It has it, whatever it says about it.
            Err(PeerError::Unreadable { .. }) => Ok(Taken::Unknown),
            Err(error) if is_of_the_transaction(&error) => {
                tracing::warn!(%error, "a transaction was refused and is dropped");
                Ok(Taken::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the task of a server that is down.
    async fn down(&mut self, error: &PeerError) -> Result<(), OutboundError> {
        if self.row.batch.is_none() {
            // Without it, it would not be known from where to go on.
            self.persist().await?;
        }
        let (outbound, server) = (&self.outbound, &self.queue.server);
        let destinations = &outbound.federation.destinations;
        let due = || destinations.due_at(server).map(|due| due.get().into());
        let absent = matches!(error, PeerError::Down { .. } | PeerError::Transport { .. });
        let until = backoff::failed(&outbound.federation.env, server, due()).await?;
        outbound.board.lock().put_off(server, until);
        if absent {
            // It may have come back since it failed, when it did not wait yet.
            let due = due().unwrap_or_else(|| outbound.now_ms());
            outbound.board.lock().showed_up(server, due);
        }
        // The follower sleeps no longer than until the next who is due.
        self.outbound.nudge.notify_one();
        Ok(())
    }

    /// Ends the task of a server that has no news; `false` where it got some just now.
    async fn end(&mut self) -> bool {
        if self.dirty
            && let Err(error) = self.persist().await
        {
            tracing::error!(%error, "what {} was told cannot be noted", self.queue.server);
            return false;
        }
        self.outbound.board.lock().retire(&self.queue)
    }
}

/// Whether a server refuses this transaction, and would take another: then it must not hold up those
/// that follow.
fn is_of_the_transaction(error: &PeerError) -> bool {
    match error {
        PeerError::Request(_) => true,
        PeerError::Refused { status, .. } => {
            matches!(*status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE)
        }
        PeerError::Closed
        | PeerError::Ourselves
        | PeerError::Down { .. }
        | PeerError::Transport { .. }
        | PeerError::Unreadable { .. } => false,
    }
}
