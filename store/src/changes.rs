//! Who has news: the newest change of each partition, kept in memory, and those who wait for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::table::PartitionId;

/// So many partitions are remembered before all are forgotten at once.
const REMEMBERED_MAX: usize = 1 << 20;

/// Whether a partition has changed after some point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing changed.
    None,
    /// Something changed, or it is not known: look into the change index.
    Maybe,
}

/// The newest change of partitions since the process started.
pub(crate) struct Newest {
    state: Mutex<NewestState>,
}

struct NewestState {
    /// Nothing that is absent from `changed` has changed after this.
    floor: u64,
    changed: FxHashMap<PartitionId, u64>,
}

impl Newest {
    pub fn new(floor: u64) -> Self {
        Self { state: Mutex::new(NewestState { floor, changed: FxHashMap::default() }) }
    }

    pub fn record(&self, changes: impl IntoIterator<Item = (PartitionId, u64)>, up_to: u64) {
        let mut state = self.state.lock();
        if state.changed.len() > REMEMBERED_MAX {
            // Forgetting everything keeps the invariant: what is absent is older than the floor.
            state.changed = FxHashMap::default();
            state.floor = up_to;
        }
        for (partition, seq) in changes {
            state.changed.insert(partition, seq);
        }
    }

    /// Which of `partitions` may have changed after `since`, as indexes into the slice.
    pub fn after(&self, partitions: &[PartitionId], since: u64) -> Vec<usize> {
        let state = self.state.lock();
        let quiet_if_absent = since >= state.floor;
        let changed = |partition: &PartitionId| match state.changed.get(partition) {
            Some(seq) => *seq > since,
            None => !quiet_if_absent,
        };
        (0..partitions.len()).filter(|index| changed(&partitions[*index])).collect()
    }
}

/// Those who wait for changes of partitions. Announcements carry no data and may be spurious;
/// whoever is woken reads on from where it was.
#[derive(Default)]
pub struct Watchers {
    waiting: Mutex<FxHashMap<PartitionId, FxHashMap<u64, Arc<Notify>>>>,
    next: AtomicU64,
}

impl Watchers {
    /// Begins to watch `partitions`. Changes announced from now on are noticed, even before the
    /// first call of [`Watch::changed`].
    pub fn watch(self: &Arc<Self>, partitions: Vec<PartitionId>) -> Watch {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        for partition in &partitions {
            waiting.entry(*partition).or_default().insert(id, Arc::clone(&notify));
        }
        drop(waiting);
        Watch { watchers: Arc::clone(self), id, partitions, notify }
    }

    /// Wakes whoever watches one of `partitions`.
    pub fn announce(&self, partitions: impl IntoIterator<Item = PartitionId>) {
        let waiting = self.waiting.lock();
        for partition in partitions {
            for notify in waiting.get(&partition).into_iter().flat_map(FxHashMap::values) {
                notify.notify_one();
            }
        }
    }
}

/// A reader's interest in some partitions; dropping it ends the interest.
pub struct Watch {
    watchers: Arc<Watchers>,
    id: u64,
    partitions: Vec<PartitionId>,
    notify: Arc<Notify>,
}

impl Watch {
    /// Waits for the next announcement since the last return of this function.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.watchers.waiting.lock();
        for partition in &self.partitions {
            if let Some(watchers) = waiting.get_mut(partition) {
                watchers.remove(&self.id);
                if watchers.is_empty() {
                    waiting.remove(partition);
                }
            }
        }
    }
}
