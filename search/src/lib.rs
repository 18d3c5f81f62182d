//! Full-text search and the user directory, by an index that follows what the store commits.
//!
//! Start at [`Search`]. The index is a hint: whatever it finds is looked at in the store, by what the
//! searcher may see now, before it is told. Sending knows nothing of it: a worker follows the log of
//! commits, some time after them, or at once when somebody searches.

mod follow;
pub mod index;
pub mod room_events;
pub mod user_directory;
pub mod words;

use std::{
    hash::Hasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace_domain::rooms::Rooms;
use millrace_store::{Node, Read, Snapshot, one_writer::seq, tables::ABOUT};
use tokio::sync::{Notify, watch};

pub use self::follow::FollowError;
use self::index::{Index, IndexError, Place};

/// How long a search waits for what was committed before it.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The search: an index, and what it is an index of.
pub struct Search {
    rooms: Rooms,
    index: Arc<Index>,
    /// The commit up to which everything can be found.
    reached: AtomicU64,
    /// Told whenever `reached` has advanced.
    advanced: watch::Sender<()>,
    /// Told when somebody searches.
    asked: Notify,
    /// Held by whoever indexes.
    turn: tokio::sync::Mutex<()>,
}

/// Why the search cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The index cannot be opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

impl Search {
    /// Opens the index of what `rooms` stand on. Nothing is indexed before [`Search::run`].
    ///
    /// # Errors
    /// Where the index's folder cannot be used, or the store cannot be read.
    pub async fn open(rooms: Rooms, place: Place) -> Result<Self, OpenError> {
        let snapshot = rooms.env.store.snapshot();
        let (database, newest) = (database(&snapshot).await?, seq(&snapshot));
        let opened = tokio::task::spawn_blocking(move || Index::open(&place, database, newest));
        let index = opened.await.map_err(|_| IndexError::BrokeOff)??;
        let reached = AtomicU64::new(index.progress().followed);
        let (index, advanced) = (Arc::new(index), watch::Sender::new(()));
        let (asked, turn) = (Notify::new(), tokio::sync::Mutex::default());
        Ok(Self { rooms, index, reached, advanced, asked, turn })
    }

    fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Waits until all that the snapshot holds can be found, for a while: an index that is being made
    /// anew is searched as it is.
    async fn catch_up(&self, snapshot: &Snapshot) {
        let wanted = seq(snapshot);
        let mut advanced = self.advanced.subscribe();
        if self.reached() >= wanted {
            return;
        }
        self.asked.notify_one();
        let reached = advanced.wait_for(|()| self.reached() >= wanted);
        if tokio::time::timeout(WAIT_MAX, reached).await.is_err() {
            tracing::warn!(wanted, reached = self.reached(), "the search index is behind");
        }
    }

    /// Does work on the index that may wait for the disk.
    async fn on_index<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let index = Arc::clone(&self.index);
        let done = tokio::task::spawn_blocking(move || work(&index)).await;
        done.map_err(|_| IndexError::BrokeOff)?
    }
}

/// A number that tells databases apart.
async fn database(snapshot: &Snapshot) -> millrace_store::Result<u64> {
    let secret = snapshot.get(&ABOUT, Node, "state_secret").await?.unwrap_or_default();
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(secret.as_bytes());
    Ok(hasher.finish())
}
