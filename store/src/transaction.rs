//! One transaction: what it read, what it wants to write.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt};
use millrace_model::Position;
use parking_lot::Mutex;

use crate::{
    Error, Result,
    engine::{EngineSnapshot, RawRows, RawScan},
    key::{KeyPart, KeyRef},
    read::{Read, RowKeyRef, Snapshot, encode_stamp},
    table::{
        Family, Head, Partition, PartitionKey, RowKey, STAMP_LEN, Table, TableInfo, hash_bytes,
    },
    value::Value,
};

/// How large and how old a transaction may become.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of keys and values.
    pub bytes_max: usize,
    /// From its start to its commit.
    pub age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 8 << 20, age_max: Duration::from_secs(10) }
    }
}

/// A transaction: reads come from one snapshot and are remembered, writes are kept until the
/// commit. A clone is another handle on the same transaction.
#[derive(Clone)]
pub struct Tx {
    shared: Arc<TxShared>,
}

struct TxShared {
    base: Snapshot,
    base_seq: u64,
    begun: Instant,
    state: Mutex<TxState>,
}

#[derive(Default)]
struct TxState {
    reads: Vec<u64>,
    writes: BTreeMap<(Family, Vec<u8>), PendingWrite>,
    /// Table and partition of every row read or written, to check heads.
    read_partitions: HashSet<(u16, u64)>,
    written_partitions: HashSet<(u16, u64)>,
    touched: BTreeSet<PartitionKey>,
    bytes: usize,
}

/// A buffered write.
pub(crate) struct PendingWrite {
    pub split: usize,
    pub synced: bool,
    pub head: Option<Head>,
    pub table: &'static str,
    pub value: Option<Vec<u8>>,
}

/// What the committer is given.
pub(crate) struct Submission {
    pub base_seq: u64,
    pub reads: Vec<u64>,
    pub writes: BTreeMap<(Family, Vec<u8>), PendingWrite>,
    /// Partitions that are announced as if they had changed.
    pub touched: BTreeSet<PartitionKey>,
}

impl Tx {
    pub(crate) fn new(engine: Arc<dyn EngineSnapshot>, view: crate::View, base_seq: u64) -> Self {
        let shared = TxShared {
            base: Snapshot { engine, view },
            base_seq,
            begun: Instant::now(),
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn base_seq(&self) -> u64 {
        self.shared.base_seq
    }

    /// The snapshot beneath, for reads that need no protection: what is read here may have
    /// changed by the time of the commit. It may hold what is not durable yet.
    #[must_use]
    pub fn unprotected(&self) -> &Snapshot {
        &self.shared.base
    }

    /// Writes a row.
    pub fn put<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        key: impl KeyRef<K>,
        value: &V,
    ) {
        let mut raw = Vec::with_capacity(64);
        if table.info().synced {
            raw.resize(STAMP_LEN, 0);
        }
        value.encode(&mut raw);
        self.write(table.info(), table.row_key(&partition, &key), Some(raw));
    }

    /// Changes a row of a synced table that is there, as [`Read::get_stamped`] read it: it stays at
    /// `position`, and `/sync` does not hear of it.
    pub fn amend<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        key: impl KeyRef<K>,
        (position, value): (Position, &V),
    ) {
        let mut raw = vec![0; STAMP_LEN];
        encode_stamp(position, &mut raw);
        value.encode(&mut raw);
        let quiet = TableInfo { synced: false, ..*table.info() };
        self.write(&quiet, table.row_key(&partition, &key), Some(raw));
    }

    /// Deletes a row; one that is not there is no error.
    pub fn delete<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        key: impl KeyRef<K>,
    ) {
        self.write(table.info(), table.row_key(&partition, &key), None);
    }

    /// Lets those who watch a partition know of this commit, though it changes no row there: what
    /// concerns them is written elsewhere. Nothing is announced where nothing is written.
    pub fn touch<P: Partition>(&self, partition: impl KeyRef<P>) {
        let key = PartitionKey::of::<P>(&partition);
        let mut state = self.shared.state.lock();
        state.bytes += key.0.len();
        state.touched.insert(key);
    }

    fn write(&self, info: &TableInfo, key: RowKey, value: Option<Vec<u8>>) {
        let partition = hash_bytes(key.partition());
        let mut state = self.shared.state.lock();
        state.bytes += key.bytes.len() + value.as_ref().map_or(0, Vec::len);
        state.written_partitions.insert((info.id, partition));
        let write = PendingWrite {
            split: key.split,
            synced: info.synced,
            head: info.head,
            table: info.name,
            value,
        };
        state.writes.insert((info.family, key.bytes), write);
    }

    /// What is to be committed; `None` where nothing was written.
    pub(crate) fn finish(&self, limits: &Limits) -> Result<Option<Submission>> {
        let mut state = self.shared.state.lock();
        let state = std::mem::take(&mut *state);
        if state.writes.is_empty() {
            return Ok(None);
        }
        if state.bytes > limits.bytes_max {
            return Err(Error::TooLarge { bytes: state.bytes, limit: limits.bytes_max });
        }
        if self.shared.begun.elapsed() > limits.age_max {
            let limit_ms = limits.age_max.as_millis().try_into().unwrap_or(u64::MAX);
            return Err(Error::TooOld { limit_ms });
        }
        for ((_, key), write) in &state.writes {
            let Some(head) = write.head else { continue };
            let partition = hash_bytes(&key[2..write.split]);
            if !state.written_partitions.contains(&(head.id, partition)) {
                return Err(Error::HeadNotWritten { table: write.table, head: head.name });
            }
        }
        let base_seq = self.shared.base_seq;
        let TxState { reads, writes, touched, .. } = state;
        Ok(Some(Submission { base_seq, reads, writes, touched }))
    }

    /// Own writes within a scan's range.
    fn own_rows(&self, scan: &RawScan) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        if scan.start >= scan.end {
            return Vec::new();
        }
        let range = (scan.family, scan.start.clone())..(scan.family, scan.end.clone());
        let state = self.shared.state.lock();
        let own = state.writes.range(range);
        own.map(|((_, key), write)| (key.clone(), write.value.clone())).collect()
    }
}

impl Read for Tx {
    fn is_durable(&self) -> bool {
        false
    }

    fn raw_in_memory(
        &self,
        table: &TableInfo,
        key: &RowKeyRef<'_>,
    ) -> Result<Option<Option<Vec<u8>>>> {
        {
            let mut state = self.shared.state.lock();
            state.read_partitions.insert((table.id, hash_bytes(&key.bytes[2..key.split])));
            if !state.writes.is_empty()
                && let Some(own) = state.writes.get(&(table.family, key.bytes.to_vec()))
            {
                return Ok(Some(own.value.clone()));
            }
            state.reads.push(hash_bytes(key.bytes));
        }
        self.shared.base.engine.get_in_memory(table.family, key.bytes)
    }

    /// Only asked for keys that [`Read::raw_in_memory`] could not answer, which noted them.
    fn raw_get(
        &self,
        table: &TableInfo,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>> {
        self.shared.base.engine.get(table.family, keys)
    }

    fn raw_scan(
        &self,
        table: &'static TableInfo,
        partition: &[u8],
        scan: RawScan,
    ) -> BoxFuture<'_, Result<RawRows>> {
        let guarded = table.head.is_some_and(|head| {
            let key = (head.id, hash_bytes(partition));
            self.shared.state.lock().read_partitions.contains(&key)
        });
        if !guarded && !table.unguarded {
            return std::future::ready(Err(Error::HeadNotRead { table: table.name })).boxed();
        }
        async move {
            let own = self.own_rows(&scan);
            let (limit, reverse) = (scan.limit, scan.reverse);
            let wider = RawScan { limit: limit.saturating_add(own.len()), ..scan };
            let mut rows: BTreeMap<_, _> =
                self.shared.base.engine.scan(wider).await?.into_iter().collect();
            for (key, value) in own {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
            Ok(if reverse {
                rows.into_iter().rev().take(limit).collect()
            } else {
                rows.into_iter().take(limit).collect()
            })
        }
        .boxed()
    }
}
