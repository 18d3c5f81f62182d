//! Typed reads, the same for snapshots and transactions.

use std::sync::Arc;

use futures::future::{BoxFuture, Either, FutureExt, Ready, ready};
use millrace_model::position::{Position, View};

use crate::{
    Result,
    engine::{EngineSnapshot, RawRows, RawScan},
    key::{EncodeKey, KeyPart, KeyRef},
    table::{Family, Partition, RowKey, STAMP_LEN, Table, TableInfo},
    value::Value,
};

/// Which rows of one partition a scan returns.
#[derive(Debug, Clone)]
pub struct Scan {
    prefix: Vec<u8>,
    from: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
    reverse: bool,
    limit: usize,
}

impl Scan {
    /// All rows of the partition.
    #[must_use]
    pub const fn all() -> Self {
        Self { prefix: Vec::new(), from: None, until: None, reverse: false, limit: usize::MAX }
    }

    /// The rows whose keys begin with these parts.
    pub fn prefix(parts: impl EncodeKey) -> Self {
        Self { prefix: encoded(&parts), ..Self::all() }
    }

    /// Only keys from this one on (inclusive). The key includes the prefix's parts.
    #[must_use]
    pub fn from(mut self, key: impl EncodeKey) -> Self {
        self.from = Some(encoded(&key));
        self
    }

    /// Only keys after this one.
    #[must_use]
    pub fn after(mut self, key: impl EncodeKey) -> Self {
        self.from = Some(successor(encoded(&key)));
        self
    }

    /// Only keys before this one (exclusive).
    #[must_use]
    pub fn before(mut self, key: impl EncodeKey) -> Self {
        self.until = Some(encoded(&key));
        self
    }

    /// Only keys up to this one (inclusive).
    #[must_use]
    pub fn up_to(mut self, key: impl EncodeKey) -> Self {
        self.until = Some(successor(encoded(&key)));
        self
    }

    /// Highest keys first.
    #[must_use]
    pub const fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most so many rows.
    #[must_use]
    pub const fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    /// As an engine wants it. `base` is the table's number and the partition.
    fn raw(self, family: Family, base: &[u8]) -> RawScan {
        let join = |tail: &[u8]| [base, tail].concat();
        let whole = join(&self.prefix);
        let start = self.from.map_or_else(|| whole.clone(), |from| join(&from).max(whole.clone()));
        let whole_end = prefix_end(whole);
        let end = self
            .until
            .map_or_else(|| whole_end.clone(), |until| join(&until).min(whole_end.clone()));
        RawScan { family, start, end, reverse: self.reverse, limit: self.limit }
    }
}

fn encoded(parts: &impl EncodeKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    parts.encode(&mut bytes);
    bytes
}

fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key after all that begin with `prefix`.
pub(crate) fn prefix_end(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![u8::MAX; 32]
}

/// A place to read from: a [`Snapshot`] or a transaction.
///
/// Every read may be a round trip to a database, so ask for many keys at once on hot paths.
pub trait Read: Sync {
    /// Whether all that is read is durable. What a transaction reads may not be, and what it writes
    /// may be another thing when it runs again: nothing that is remembered may come from it.
    fn is_durable(&self) -> bool;
    #[doc(hidden)]
    fn raw_in_memory(
        &self,
        table: &TableInfo,
        key: &RowKeyRef<'_>,
    ) -> Result<Option<Option<Vec<u8>>>>;
    #[doc(hidden)]
    fn raw_get(
        &self,
        table: &TableInfo,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>>;
    #[doc(hidden)]
    fn raw_scan(
        &self,
        table: &'static TableInfo,
        partition: &[u8],
        scan: RawScan,
    ) -> BoxFuture<'_, Result<RawRows>>;

    /// The row of `key`, if there is one.
    fn get<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        key: impl KeyRef<K>,
    ) -> ReadFuture<'_, Option<V>> {
        let decode = |raw: Option<Vec<u8>>| raw.map(|raw| table.decode_value(&raw)).transpose();
        read_one(self, table.info(), table.row_key(&partition, &key), decode)
    }

    /// The row of `key` in a synced table, with the position of the commit that wrote it.
    fn get_stamped<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        key: impl KeyRef<K>,
    ) -> ReadFuture<'_, Option<(Position, V)>> {
        let decode = |raw: Option<Vec<u8>>| {
            raw.map(|raw| Ok((read_stamp(table, &raw)?, table.decode_value(&raw)?))).transpose()
        };
        read_one(self, table.info(), table.row_key(&partition, &key), decode)
    }

    /// The rows of many keys of one partition, in the order of the keys.
    fn get_many<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        keys: impl IntoIterator<Item = impl KeyRef<K>>,
    ) -> ReadFuture<'_, Vec<Option<V>>> {
        let keys = keys.into_iter().map(|key| table.row_key(&partition, &key)).collect();
        let decode = |rows: Vec<Option<Vec<u8>>>| {
            rows.into_iter()
                .map(|raw| raw.map(|raw| table.decode_value(&raw)).transpose())
                .collect()
        };
        read_many(self, table.info(), keys, decode)
    }

    /// Rows of one partition in order of their keys.
    fn scan<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        scan: Scan,
    ) -> ReadFuture<'_, Vec<(K, V)>> {
        let base = table.partition_prefix(&partition);
        let rows = self.raw_scan(table.info(), &base[2..], scan.raw(table.info().family, &base));
        async move {
            let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
                Ok((table.decode_key(&key[base.len()..])?, table.decode_value(value)?))
            };
            rows.await?.iter().map(decode).collect()
        }
        .boxed()
        .right_future()
    }

    /// Rows of a synced table in order of their keys, with the positions that wrote them.
    fn scan_stamped<P: Partition, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        partition: impl KeyRef<P>,
        scan: Scan,
    ) -> ReadFuture<'_, Vec<(K, Position, V)>> {
        let base = table.partition_prefix(&partition);
        let rows = self.raw_scan(table.info(), &base[2..], scan.raw(table.info().family, &base));
        async move {
            let decode = |(key, value): &(Vec<u8>, Vec<u8>)| {
                let position = read_stamp(table, value)?;
                let key = table.decode_key(&key[base.len()..])?;
                Ok((key, position, table.decode_value(value)?))
            };
            rows.await?.iter().map(decode).collect()
        }
        .boxed()
        .right_future()
    }
}

/// A read: ready at once where the rows were in memory, else waiting for disk or network.
///
/// A named type, because the compiler cannot yet see through `impl Future` of a trait's method
/// that a future built on it can be sent between threads.
pub type ReadFuture<'a, T> = Either<Ready<Result<T>>, BoxFuture<'a, Result<T>>>;

#[doc(hidden)]
#[derive(Debug)]
pub struct RowKeyRef<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) split: usize,
}

fn read_one<'a, R: Read + ?Sized, T: Send + 'static>(
    read: &'a R,
    info: &'static TableInfo,
    key: RowKey,
    decode: impl Fn(Option<Vec<u8>>) -> Result<T> + Send + Sync + 'static,
) -> ReadFuture<'a, T> {
    match read.raw_in_memory(info, &RowKeyRef { bytes: &key.bytes, split: key.split }) {
        Ok(Some(row)) => ready(decode(row)).left_future(),
        Err(error) => ready(Err(error)).left_future(),
        Ok(None) => {
            let row = read.raw_get(info, vec![key.bytes]);
            async move {
                let row = row.await?.pop().flatten();
                decode(row)
            }
            .boxed()
            .right_future()
        }
    }
}

fn read_many<'a, R: Read + ?Sized, T: Send + 'static>(
    read: &'a R,
    info: &'static TableInfo,
    keys: Vec<RowKey>,
    decode: impl Fn(Vec<Option<Vec<u8>>>) -> Result<T> + Send + Sync + 'static,
) -> ReadFuture<'a, T> {
    let mut rows = Vec::with_capacity(keys.len());
    let (mut missing, mut places) = (Vec::new(), Vec::new());
    for key in keys {
        match read.raw_in_memory(info, &RowKeyRef { bytes: &key.bytes, split: key.split }) {
            Ok(Some(row)) => rows.push(row),
            Err(error) => return ready(Err(error)).left_future(),
            Ok(None) => {
                missing.push(key.bytes);
                places.push(rows.len());
                rows.push(None);
            }
        }
    }
    if missing.is_empty() {
        return ready(decode(rows)).left_future();
    }
    let found = read.raw_get(info, missing);
    async move {
        let found = found.await?;
        for (place, row) in places.into_iter().zip(found) {
            rows[place] = row;
        }
        decode(rows)
    }
    .boxed()
    .right_future()
}

fn read_stamp<P: Partition, K: KeyPart, V: Value>(
    table: &Table<P, K, V>,
    raw: &[u8],
) -> Result<Position> {
    decode_stamp(raw).filter(|_| table.info().synced).ok_or_else(|| table.malformed("no position"))
}

/// The position in front of a synced row.
pub(crate) fn decode_stamp(raw: &[u8]) -> Option<Position> {
    let (writer, rest) = raw.split_first_chunk()?;
    let (seq, _) = rest.split_first_chunk()?;
    Some(Position { writer: u16::from_be_bytes(*writer), seq: u64::from_be_bytes(*seq) })
}

/// Writes `position` in front of a synced row.
pub(crate) fn encode_stamp(position: Position, raw: &mut [u8]) {
    raw[..2].copy_from_slice(&position.writer.to_be_bytes());
    raw[2..STAMP_LEN].copy_from_slice(&position.seq.to_be_bytes());
}

/// A stable, durable picture of the whole store at one view.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) engine: Arc<dyn EngineSnapshot>,
    pub(crate) view: View,
}

impl Snapshot {
    /// What this picture holds: all commits up to here and none after.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Read for Snapshot {
    fn is_durable(&self) -> bool {
        true
    }

    fn raw_in_memory(
        &self,
        table: &TableInfo,
        key: &RowKeyRef<'_>,
    ) -> Result<Option<Option<Vec<u8>>>> {
        self.engine.get_in_memory(table.family, key.bytes)
    }

    fn raw_get(
        &self,
        table: &TableInfo,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>>> {
        self.engine.get(table.family, keys)
    }

    fn raw_scan(
        &self,
        _: &'static TableInfo,
        _: &[u8],
        scan: RawScan,
    ) -> BoxFuture<'_, Result<RawRows>> {
        self.engine.scan(scan)
    }
}
