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
        Arc::new(Mounted { memory: self.memory.clone(), left: AtomicI64::new(i64::MAX) })
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
}

impl Mounted {
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
        self.memory.apply(batch)
    }

    fn sync(&self) -> millrace_store::Result<()> {
        if self.is_dead() { Err(dead()) } else { self.memory.sync() }
    }
}
