//! The few verbs that a storage engine has to know. An engine knows nothing of Matrix, tables
//! or transactions; everything else is written once, above it.

#[cfg(test)]
mod conformance;
mod memory;
mod rocks;

use std::sync::Arc;

use futures::future::BoxFuture;

pub use self::{
    memory::MemoryEngine,
    rocks::{RocksEngine, RocksOptions},
};
use crate::{Result, table::Family};

/// One key's new value; `None` deletes it.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where it lies.
    pub family: Family,
    /// The whole key.
    pub key: Vec<u8>,
    /// The new value.
    pub value: Option<Vec<u8>>,
}

/// Which rows a scan returns: keys in `start..end` of one family, in order.
#[derive(Debug, Clone)]
pub struct RawScan {
    /// Where they lie.
    pub family: Family,
    /// The first key, inclusive.
    pub start: Vec<u8>,
    /// The end, exclusive.
    pub end: Vec<u8>,
    /// From the end backwards.
    pub reverse: bool,
    /// At most so many rows.
    pub limit: usize,
}

/// Rows of a scan: whole key and value.
pub type RawRows = Vec<(Vec<u8>, Vec<u8>)>;

/// An ordered key-value engine with snapshots.
///
/// The committer alone calls `apply` and `sync`, from threads of its own, so these may block.
pub trait Engine: Send + Sync + 'static {
    /// A stable picture of all batches applied so far.
    fn snapshot(&self) -> Arc<dyn EngineSnapshot>;

    /// Applies a batch as a whole. It is visible to new snapshots at once and survives a power
    /// loss only after the next [`Engine::sync`]; batches survive in the order they were applied.
    ///
    /// # Errors
    /// Where the engine cannot write; the store then stops writing for good.
    fn apply(&self, batch: &[Write]) -> Result<()>;

    /// Returns when everything applied before the call is durable.
    ///
    /// # Errors
    /// Where the engine cannot write; the store then stops writing for good.
    fn sync(&self) -> Result<()>;
}

/// A stable picture of an engine.
pub trait EngineSnapshot: Send + Sync + 'static {
    /// The value of `key` if that can be told without waiting for disk or network: `None` where
    /// it cannot, `Some(None)` where there is no such key.
    ///
    /// # Errors
    /// Where the engine failed.
    fn get_in_memory(&self, family: Family, key: &[u8]) -> Result<Option<Option<Vec<u8>>>>;

    /// The values of many keys of one family, in their order.
    fn get(
        &self,
        family: Family,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>>;

    /// The rows of a scan.
    fn scan(&self, scan: RawScan) -> BoxFuture<'_, Result<RawRows>>;
}
