//! A memory engine that can be killed between two writes.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use millrace_store::engine::{Engine, EngineSnapshot, MemoryEngine, Write};

/// What a server of the simulation stores; outlives its crashes.
#[derive(Clone, Default)]
pub struct Disk {
    memory: Arc<MemoryEngine>,
}

impl Disk {
    /// The disk as a process sees it, until it is killed.
    pub fn mount(&self) -> Arc<Mounted> {
        let (left, lost) = (AtomicI64::new(i64::MAX), AtomicI64::new(0));
        Arc::new(Mounted { memory: self.memory.clone(), left, lost, batches: AtomicI64::new(0) })
    }

    /// What a power loss leaves.
    pub fn lose_unsynced(&self) {
        self.memory.lose_unsynced();
    }
}

/// A process's view of its disk.
pub struct Mounted {
    memory: Arc<MemoryEngine>,
    /// Batches that are still written.
    left: AtomicI64,
    /// One in so many is acknowledged and not written; 0 for none.
    lost: AtomicI64,
    /// How many have come.
    batches: AtomicI64,
}

impl Mounted {
    /// From now on loses one batch in so many.
    pub fn lose_one_in(&self, batches: i64) {
        self.lost.store(batches, Ordering::SeqCst);
    }

    /// Lets so many more batches through, then none.
    pub fn kill_after(&self, batches: i64) {
        self.left.store(batches, Ordering::SeqCst);
    }

    /// Whether a write has failed.
    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

fn dead() -> millrace_store::Error {
    millrace_store::Error::Engine("the process was killed".into())
}

impl Engine for Mounted {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        self.memory.snapshot()
    }

    fn apply(&self, batch: &[Write]) -> millrace_store::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.left.store(-1, Ordering::SeqCst);
            return Err(dead());
        }
        let (n, one_in) =
            (self.batches.fetch_add(1, Ordering::SeqCst), self.lost.load(Ordering::SeqCst));
        if one_in > 0 && n % one_in == 0 { Ok(()) } else { self.memory.apply(batch) }
    }

    fn sync(&self) -> millrace_store::Result<()> {
        if self.is_dead() { Err(dead()) } else { self.memory.sync() }
    }
}
