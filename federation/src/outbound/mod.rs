//! Telling other servers what happened here (spec: Server-Server API, Transactions, PDUs, EDUs).
//!
//! One follower reads the log of news (`millrace_domain::outbox`) and tells each server that can be
//! reached in which rooms something is new; a server with news has one task while it has. A task
//! reads what its server may see after the point that it has acknowledged, stores the transaction's
//! ID and end, and sends it. A server that is down is a timer: when it is due, or when the server
//! shows up, its task walks through the rooms that it shares with us.
//!
//! Start at [`Outbound::run`].

mod backoff;
mod batch;
mod board;
mod edus;
mod ephemeral;
mod follow;
mod live;
mod persist;
mod settings;
mod task;
mod walk;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::FutureExt;
use millrace_domain::{
    deliveries::Deliveries, presence::Presence, rooms::events::LoadError, typing::Typing,
};
use millrace_store::{
    Node, Tx,
    tables::{OUTBOX_FOLLOWED, OUTGOING},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use self::settings::OutboundSettings;
use self::{board::Board, ephemeral::Told};
use crate::Federation;

/// So many rows are written in one commit at the end.
const ROWS_AT_ONCE: usize = 500;

/// Why what is to be sent could not be found out or noted; never because of the other server.
#[derive(Debug, thiserror::Error)]
enum OutboundError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Sends what happens here to other servers. Whoever builds it also runs [`Outbound::run`].
pub struct Outbound {
    federation: Federation,
    settings: OutboundSettings,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    deliveries: Arc<Deliveries>,
    board: Mutex<Board>,
    /// Every server that can be reached was told of what was committed up to here, or has a task
    /// that knows of it.
    followed: AtomicU64,
    /// What was last written of `followed`.
    noted: AtomicU64,
    last_note: Mutex<Option<tokio::time::Instant>>,
    /// What of typing and presence was told.
    told: Mutex<Told>,
    /// Wakes the follower for what is due, and for servers that showed up.
    nudge: Notify,
    /// Transactions on their way to servers that answered the last one.
    sound: Semaphore,
    /// Transactions on their way to servers of which that is not known.
    unsure: Semaphore,
}

impl Outbound {
    /// Prepares to send. Nothing is read or sent before [`Outbound::run`].
    #[must_use]
    pub fn new(
        federation: Federation,
        settings: OutboundSettings,
        typing: Arc<Typing>,
        presence: Arc<Presence>,
        deliveries: Arc<Deliveries>,
    ) -> Self {
        Self {
            federation,
            typing,
            presence,
            deliveries,
            board: Mutex::new(Board::new(settings.rooms_cached)),
            followed: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            last_note: Mutex::default(),
            told: Mutex::default(),
            nudge: Notify::new(),
            sound: Semaphore::new(settings.sends_at_once),
            unsure: Semaphore::new(settings.tries_at_once),
            settings,
        }
    }

    /// Looks at the clock again: for tests, which set it.
    pub fn wake(&self) {
        self.nudge.notify_one();
    }

    /// How many servers wait for their next try, and how many have a task.
    #[must_use]
    pub fn counts(&self) -> OutboundCounts {
        let board = self.board.lock();
        OutboundCounts {
            waiting: board.waiting(),
            active: board.active(),
            followed: self.followed(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.federation.env.now().get().into()
    }

    fn followed(&self) -> u64 {
        self.followed.load(Ordering::Acquire)
    }

    /// Writes down how far everybody was told, so that a restart goes on from there. Call it after
    /// [`Outbound::run`] has ended, before the store is closed.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn close(&self) -> millrace_store::Result<()> {
        let rows = self.board.lock().unwritten();
        for some in rows.chunks(ROWS_AT_ONCE) {
            let write = |tx: Tx| {
                for (server, row) in some {
                    tx.put(&OUTGOING, server, (), row);
                }
                std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
            };
            self.federation.env.store.transact(write).await?;
        }
        self.note_followed().await
    }

    async fn note_followed(&self) -> millrace_store::Result<()> {
        let floor = self.board.lock().floor(self.followed());
        if self.noted.swap(floor, Ordering::AcqRel) == floor {
            return Ok(());
        }
        let write = |tx: Tx| {
            tx.put(&OUTBOX_FOLLOWED, Node, (), &floor);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        self.federation.env.store.transact(write).await
    }
}

/// How much sending is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboundCounts {
    /// Servers that are down and wait for their next try.
    pub waiting: usize,
    /// Servers that have a task.
    pub active: usize,
    /// The commit up to which they were told that there is something.
    pub followed: u64,
}
