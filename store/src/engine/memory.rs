//! The engine of tests: an immutable ordered map, copied on write.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use super::{Engine, EngineSnapshot, RawRows, RawScan, Write};
use crate::{Result, table::Family};

type Rows = imbl::OrdMap<(Family, Vec<u8>), Vec<u8>>;

/// Keeps everything in memory. Clones share their content, which lets a test close a store, lose
/// what was not synced, and open another on what is left.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    content: Arc<Mutex<Content>>,
}

#[derive(Default)]
struct Content {
    applied: Rows,
    synced: Rows,
}

impl MemoryEngine {
    /// An empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power loss does: every batch that was not synced is gone.
    pub fn lose_unsynced(&self) {
        let mut content = self.content.lock();
        content.applied = content.synced.clone();
    }
}

#[cfg(test)]
impl MemoryEngine {
    /// What a power loss at this moment would leave, as an engine of its own.
    pub(crate) fn after_power_loss(&self) -> Self {
        let synced = self.content.lock().synced.clone();
        let content = Content { applied: synced.clone(), synced };
        Self { content: Arc::new(Mutex::new(content)) }
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(MemorySnapshot(self.content.lock().applied.clone()))
    }

    fn apply(&self, batch: &[Write]) -> Result<()> {
        let mut content = self.content.lock();
        for write in batch {
            let key = (write.family, write.key.clone());
            match &write.value {
                Some(value) => content.applied.insert(key, value.clone()),
                None => content.applied.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut content = self.content.lock();
        content.synced = content.applied.clone();
        Ok(())
    }
}

struct MemorySnapshot(Rows);

impl MemorySnapshot {
    fn rows(&self, scan: &RawScan) -> RawRows {
        if scan.start >= scan.end {
            return Vec::new();
        }
        let range =
            self.0.range((scan.family, scan.start.clone())..(scan.family, scan.end.clone()));
        let copy = |((_, key), value): (&(Family, Vec<u8>), &Vec<u8>)| (key.clone(), value.clone());
        if scan.reverse {
            range.rev().take(scan.limit).map(copy).collect()
        } else {
            range.take(scan.limit).map(copy).collect()
        }
    }
}

impl EngineSnapshot for MemorySnapshot {
    fn get_in_memory(&self, family: Family, key: &[u8]) -> Result<Option<Option<Vec<u8>>>> {
        Ok(Some(self.0.get(&(family, key.to_vec())).cloned()))
    }

    fn get(
        &self,
        family: Family,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>> {
        ready(Ok(keys.into_iter().map(|key| self.0.get(&(family, key)).cloned()).collect())).boxed()
    }

    fn scan(&self, scan: RawScan) -> BoxFuture<'_, Result<RawRows>> {
        ready(Ok(self.rows(&scan))).boxed()
    }
}
