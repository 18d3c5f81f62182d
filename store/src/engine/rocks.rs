//! The default engine: an embedded RocksDB.

use std::{path::Path, sync::Arc};

use futures::future::{BoxFuture, FutureExt, ready};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    Direction, IteratorMode, Options, ReadOptions, ReadTier, Snapshot, WriteBatch, WriteOptions,
};

use super::{Engine, EngineSnapshot, RawRows, RawScan, Write};
use crate::{Error, Result, table::Family};

/// What an operator can choose.
#[derive(Debug, Clone)]
pub struct RocksOptions {
    /// Memory for blocks read from disk, in bytes.
    pub block_cache_bytes: usize,
    /// Memory for rows not yet written to sorted files, in bytes, all families together.
    pub write_buffer_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 64 << 20, write_buffer_bytes: 64 << 20 }
    }
}

/// RocksDB with one column family for each [`Family`].
pub struct RocksEngine {
    db: Arc<DB>,
}

impl RocksEngine {
    /// Opens the database in the folder `path`, or creates it.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process has it open, [`Error::Corrupt`] where its files
    /// cannot be read, [`Error::Engine`] for everything else (no space, no permission).
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self> {
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache))
        });
        let db = DB::open_cf_descriptors(&database_options(options), path, families)
            .map_err(|error| open_error(path, &error))?;
        Ok(Self { db: Arc::new(db) })
    }
}

fn database_options(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_db_write_buffer_size(options.write_buffer_bytes);
    db.set_max_total_wal_size(256 << 20);
    // A torn record at the end of the log is what a crash leaves; one in its middle is damage.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_bytes_per_sync(1 << 20);
    db.set_max_background_jobs(2);
    db.set_max_open_files(512);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(8 << 20);
    db
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_block_size(if family == Family::Bodies { 16 << 10 } else { 4 << 10 });
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_compression_type(DBCompressionType::Lz4);
    if matches!(family, Family::Bodies | Family::Changes) {
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
    }
    options
}

fn open_error(path: &Path, error: &rocksdb::Error) -> Error {
    let place: Arc<str> = path.display().to_string().into();
    let text = error.to_string();
    if text.contains("While lock file") || text.contains("lock hold by") {
        Error::Locked(place)
    } else if error.kind() == rocksdb::ErrorKind::Corruption {
        Error::Corrupt { path: place, reason: text.into() }
    } else {
        Error::Engine(text.into())
    }
}

fn engine_error(error: rocksdb::Error) -> Error {
    Error::Engine(error.to_string().into())
}

fn column(db: &DB, family: Family) -> &rocksdb::ColumnFamily {
    db.cf_handle(family.name()).expect("every family is created when the database is opened")
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        Arc::new(RocksSnapshot(Arc::new(OwnedSnapshot::new(Arc::clone(&self.db), |db| {
            db.snapshot()
        }))))
    }

    fn apply(&self, batch: &[Write]) -> Result<()> {
        let mut rocks = WriteBatch::default();
        for write in batch {
            let family = column(&self.db, write.family);
            match &write.value {
                Some(value) => rocks.put_cf(family, &write.key, value),
                None => rocks.delete_cf(family, &write.key),
            }
        }
        self.db.write_opt(rocks, &WriteOptions::default()).map_err(engine_error)
    }

    fn sync(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(engine_error)
    }
}

self_cell::self_cell!(
    struct OwnedSnapshot {
        owner: Arc<DB>,
        #[not_covariant]
        dependent: Snapshot,
    }
);

#[derive(Clone)]
struct RocksSnapshot(Arc<OwnedSnapshot>);

impl RocksSnapshot {
    fn read_options(snapshot: &Snapshot<'_>, tier: ReadTier) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(snapshot);
        options.set_read_tier(tier);
        options
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        self.0.with_dependent(|db, snapshot| {
            let options = Self::read_options(snapshot, ReadTier::All);
            db.batched_multi_get_cf_opt(column(db, family), keys, false, &options)
                .into_iter()
                .map(|row| row.map(|row| row.map(|row| row.to_vec())).map_err(engine_error))
                .collect()
        })
    }

    /// `Ok(None)` where a block would have to be read from disk.
    fn rows(&self, scan: &RawScan, tier: ReadTier) -> Result<Option<RawRows>> {
        if scan.start >= scan.end || scan.limit == 0 {
            return Ok(Some(Vec::new()));
        }
        self.0.with_dependent(|db, snapshot| {
            let mut options = Self::read_options(snapshot, tier);
            options.set_iterate_lower_bound(scan.start.clone());
            options.set_iterate_upper_bound(scan.end.clone());
            let mode = if scan.reverse {
                IteratorMode::From(&scan.end, Direction::Reverse)
            } else {
                IteratorMode::From(&scan.start, Direction::Forward)
            };
            let mut rows = RawRows::new();
            for row in db.iterator_cf_opt(column(db, scan.family), options, mode).take(scan.limit) {
                match row {
                    Ok((key, value)) => rows.push((key.into_vec(), value.into_vec())),
                    Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => {
                        return Ok(None);
                    }
                    Err(error) => return Err(engine_error(error)),
                }
            }
            Ok(Some(rows))
        })
    }
}

/// Runs what may wait for the disk where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Engine(format!("a read was ended: {error}").into())))
}

impl EngineSnapshot for RocksSnapshot {
    fn get_in_memory(&self, family: Family, key: &[u8]) -> Result<Option<Option<Vec<u8>>>> {
        self.0.with_dependent(|db, snapshot| {
            let options = Self::read_options(snapshot, ReadTier::BlockCache);
            match db.get_pinned_cf_opt(column(db, family), key, &options) {
                Ok(row) => Ok(Some(row.map(|row| row.to_vec()))),
                Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => Ok(None),
                Err(error) => Err(engine_error(error)),
            }
        })
    }

    fn get(
        &self,
        family: Family,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>> {
        let snapshot = self.clone();
        blocking(move || snapshot.get_many(family, &keys)).boxed()
    }

    fn scan(&self, scan: RawScan) -> BoxFuture<'_, Result<RawRows>> {
        match self.rows(&scan, ReadTier::BlockCache) {
            Ok(Some(rows)) => ready(Ok(rows)).boxed(),
            Err(error) => ready(Err(error)).boxed(),
            Ok(None) => {
                let snapshot = self.clone();
                blocking(move || {
                    let rows = snapshot.rows(&scan, ReadTier::All)?;
                    rows.ok_or_else(|| Error::Engine("a scan of all tiers was incomplete".into()))
                })
                .boxed()
            }
        }
    }
}
