//! Typed tables: what a declaration in `tables.rs` is made of.

use std::{hash::Hasher, marker::PhantomData};

use crate::{
    key::{EncodeKey, KeyPart, KeyRef},
    value::Value,
};

/// A group of tables that share tuning (an own column family in RocksDB).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// Small rows that change.
    Rows,
    /// Bodies of events: large, never changed.
    Bodies,
    /// Nodes of state trees: content-addressed, read at random.
    Nodes,
    /// Change indexes and the commit log: written in order, read by ranges.
    Changes,
}

impl Family {
    /// Every family, for engines that have to create them.
    pub const ALL: [Self; 4] = [Self::Rows, Self::Bodies, Self::Nodes, Self::Changes];

    /// The name an engine stores it under.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bodies => "bodies",
            Self::Nodes => "nodes",
            Self::Changes => "changes",
        }
    }
}

/// What a partition is named by. `KIND` keeps a room and a user of the same name apart.
pub trait Partition: KeyPart {
    /// One byte in front of the name.
    const KIND: u8;
}

/// The partition of what belongs to the node or the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node;
impl EncodeKey for Node {
    fn encode(&self, _: &mut Vec<u8>) {}
}
impl KeyPart for Node {
    fn decode(_: &mut &[u8]) -> Option<Self> {
        Some(Self)
    }
}
impl KeyRef<Self> for Node {}

impl Partition for Node {
    const KIND: u8 = 0;
}
impl Partition for ruma::OwnedRoomId {
    const KIND: u8 = 1;
}
impl Partition for ruma::OwnedUserId {
    const KIND: u8 = 2;
}
impl Partition for ruma::OwnedRoomAliasId {
    const KIND: u8 = 3;
}
impl Partition for ruma::OwnedServerName {
    const KIND: u8 = 4;
}
/// The partition of a secret, known by its hash only.
impl Partition for [u8; 32] {
    const KIND: u8 = 5;
}
/// The partition of anything else with a name of its own, such as a registration token.
impl Partition for String {
    const KIND: u8 = 6;
}

/// A partition as bytes: kind and name. What commits announce.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey(pub(crate) Box<[u8]>);

impl PartitionKey {
    /// The key of a typed partition.
    #[must_use]
    pub fn of<P: Partition>(partition: &impl KeyRef<P>) -> Self {
        let mut bytes = vec![P::KIND];
        partition.encode(&mut bytes);
        Self(bytes.into())
    }

    /// The typed partition, if it is of that kind.
    #[must_use]
    pub fn partition<P: Partition>(&self) -> Option<P> {
        let (kind, mut name) = self.0.split_first()?;
        let partition = (*kind == P::KIND).then(|| P::decode(&mut name)).flatten();
        partition.filter(|_| name.is_empty())
    }

    /// A number that stands for the partition within this process.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        PartitionId::of_bytes(&self.0)
    }
}

/// A partition's hash: cheap to compare and to look up. Two partitions may, very rarely, share
/// one, which can wake a reader for nothing and never lose it anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u64);

impl PartitionId {
    /// The id of a typed partition.
    #[must_use]
    pub fn of<P: Partition>(partition: &impl KeyRef<P>) -> Self {
        PartitionKey::of::<P>(partition).id()
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(hash_bytes(bytes))
    }
}

/// A fast hash for look-ups within this process.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// How a table's ranges are guarded.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// The head table's number.
    pub(crate) id: u16,
    /// The head table's name.
    pub(crate) name: &'static str,
}

/// What a table is, without its types.
#[derive(Debug, Clone, Copy)]
pub struct TableInfo {
    /// Number in front of every key. Never used twice, never changed.
    pub id: u16,
    /// Name for messages.
    pub name: &'static str,
    /// Where the engine keeps it.
    pub family: Family,
    /// Whether `/sync` must hear of changes: rows carry their position and are listed in the
    /// partition's change index.
    pub synced: bool,
    /// Who guards its ranges, if they can be scanned within a transaction.
    pub(crate) head: Option<Head>,
    /// Whether its ranges can be scanned within a transaction without a guard.
    pub(crate) unguarded: bool,
}

/// A table: `(partition P, key K) -> V`.
pub struct Table<P, K, V> {
    info: TableInfo,
    #[expect(clippy::type_complexity, reason = "a table owns none of its types")]
    types: PhantomData<fn() -> (P, K, V)>,
}

impl<P: Partition, K: KeyPart, V: Value> Table<P, K, V> {
    /// A table of small rows.
    #[must_use]
    pub const fn new(id: u16, name: &'static str) -> Self {
        let family = Family::Rows;
        let info = TableInfo { id, name, family, synced: false, head: None, unguarded: false };
        Self { info, types: PhantomData }
    }

    /// A table whose changes `/sync` follows.
    #[must_use]
    pub const fn synced(id: u16, name: &'static str) -> Self {
        let mut table = Self::new(id, name);
        table.info.synced = true;
        table
    }

    /// The same table in another family.
    #[must_use]
    pub const fn in_family(mut self, family: Family) -> Self {
        self.info.family = family;
        self
    }

    /// The same table, its ranges guarded by `head`: whoever adds or removes rows writes a row
    /// of `head` in the same partition, and whoever scans in a transaction has read one.
    #[must_use]
    pub const fn guarded_by<HK, HV>(mut self, head: &Table<P, HK, HV>) -> Self {
        self.info.head = Some(Head { id: head.info.id, name: head.info.name });
        self
    }

    /// The same table, whose ranges need no guard: rows are only ever added, and whoever scans wants
    /// none that were added after what led them here.
    #[must_use]
    pub const fn unguarded(mut self) -> Self {
        self.info.unguarded = true;
        self
    }

    /// What it is, without types.
    #[must_use]
    pub const fn info(&self) -> &TableInfo {
        &self.info
    }

    /// Bytes in front of every key.
    pub(crate) fn kind_prefix(&self) -> Vec<u8> {
        let mut bytes = self.info.id.to_be_bytes().to_vec();
        bytes.push(P::KIND);
        bytes
    }

    /// Bytes in front of every key of one partition.
    pub(crate) fn partition_prefix(&self, partition: &impl KeyRef<P>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&self.info.id.to_be_bytes());
        bytes.push(P::KIND);
        partition.encode(&mut bytes);
        bytes
    }

    /// The whole key of one row, and where the key within the partition begins.
    pub(crate) fn row_key(&self, partition: &impl KeyRef<P>, key: &impl KeyRef<K>) -> RowKey {
        let mut bytes = self.partition_prefix(partition);
        let split = bytes.len();
        key.encode(&mut bytes);
        RowKey { bytes, split }
    }

    /// Reads back the key within the partition, as listed in a change index.
    ///
    /// # Errors
    /// Where the bytes are not of this table's key type.
    pub fn decode_key(&self, mut key: &[u8]) -> crate::Result<K> {
        match K::decode(&mut key) {
            Some(decoded) if key.is_empty() => Ok(decoded),
            _ => Err(self.malformed("its key")),
        }
    }

    pub(crate) fn decode_value(&self, raw: &[u8]) -> crate::Result<V> {
        let body = if self.info.synced {
            raw.get(STAMP_LEN..).ok_or_else(|| self.malformed("no position"))?
        } else {
            raw
        };
        V::decode(body).map_err(|reason| self.malformed(&reason))
    }

    pub(crate) fn malformed(&self, reason: &str) -> crate::Error {
        crate::Error::Malformed { table: self.info.name, reason: reason.into() }
    }
}

/// Bytes of the position in front of a synced row's value: writer (2), seq (8).
pub(crate) const STAMP_LEN: usize = 10;

/// A key, split into table + partition and the rest.
#[derive(Debug, Clone)]
pub(crate) struct RowKey {
    pub bytes: Vec<u8>,
    pub split: usize,
}

impl RowKey {
    /// Kind and name of the partition, without the table's number.
    pub fn partition(&self) -> &[u8] {
        &self.bytes[2..self.split]
    }
}
