//! Where and how data is stored.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Problems;

/// The storage engine and its sizes. Acknowledged writes are always durable; no option changes that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The engine.
    pub database_backend: Backend,
    /// The folder that holds the database.
    pub database_path: PathBuf,
    /// Size of the cache of uncompressed blocks, in MiB.
    pub rocksdb_cache_mib: u32,
    /// The folder that holds the search index; unset, `search` in that of the database.
    pub search_index_path: Option<PathBuf>,
}

/// A storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// RocksDB, embedded in this process.
    RocksDb,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            database_backend: Backend::RocksDb,
            database_path: PathBuf::from("./data"),
            rocksdb_cache_mib: 64,
            search_index_path: None,
        }
    }
}

impl Database {
    /// The folder that holds the search index.
    #[must_use]
    pub fn search_index(&self) -> PathBuf {
        self.search_index_path.clone().unwrap_or_else(|| self.database_path.join("search"))
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let path_set = !self.database_path.as_os_str().is_empty();
        problems.require(path_set, "database_path", "must name a folder");
        let cache = self.rocksdb_cache_mib;
        problems.require((8..=1 << 20).contains(&cache), "rocksdb_cache_mib", "must be at least 8");
    }
}
