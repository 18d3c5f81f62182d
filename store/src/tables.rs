//! The schema: every table, its partition, its key and its value.
//!
//! Numbers are written into every key: never reuse one, never change one. A *synced* table's rows
//! carry their position and are listed in the change index of their partition.

use millrace_model::position::Position;

use crate::{
    engine::Write,
    key::{EncodeKey, KeyPart, KeyRef},
    table::{Family, Node, Table},
    value::Value,
};

// --- The store's own ---------------------------------------------------------------------------

/// `"format" | "server_name" | ... -> text`: what this database is.
pub const ABOUT: Table<Node, String, String> = Table::new(1, "about");
/// `writer -> seq` of its newest commit. All rows of it in one snapshot are a view.
pub const WRITERS: Table<Node, u16, u64> = Table::new(2, "writers");
/// `(writer, seq) -> partitions in which that commit has news`, each as length (u16) and bytes.
pub const LOG: Table<Node, (u16, u64), Vec<u8>> = Table::new(3, "log").in_family(Family::Changes);
/// First number that no block of event numbers has reserved yet, under the key `()`.
pub const EVENT_NUMBERS_RESERVED: Table<Node, (), u64> = Table::new(5, "event_numbers_reserved");

/// `(partition, writer, seq) -> rows changed`: the change index, in every partition.
const CHANGES_ID: u16 = 4;

// --- Rooms (10-69): see rows/room.rs -------------------------------------------------------------

// --- What belongs to users (70-99) ---------------------------------------------------------------

// --- Accounts (100-139) --------------------------------------------------------------------------

// --- How the store writes its own rows -----------------------------------------------------------

pub(crate) fn write_row<K: KeyPart, V: Value>(
    table: &Table<Node, K, V>,
    key: impl KeyRef<K>,
    value: &V,
) -> Write {
    let mut raw = Vec::new();
    value.encode(&mut raw);
    Write {
        family: table.info().family,
        key: table.row_key(&Node, &key).bytes,
        value: Some(raw),
    }
}

pub(crate) fn delete_row<K: KeyPart, V: Value>(
    table: &Table<Node, K, V>,
    key: impl KeyRef<K>,
) -> Write {
    Write { family: table.info().family, key: table.row_key(&Node, &key).bytes, value: None }
}

/// Key of the change-index row of `partition` (kind and name) at `position`.
pub(crate) fn change_key(partition: &[u8], position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + partition.len() + 10);
    key.extend_from_slice(&CHANGES_ID.to_be_bytes());
    key.extend_from_slice(partition);
    (position.writer, position.seq).encode(&mut key);
    key
}

/// Adds one changed row to a change-index row: table (2), length of the key (2), key.
pub(crate) fn list_change(listed: &mut Vec<u8>, table: &[u8], key: &[u8]) {
    listed.extend_from_slice(table);
    list_partition(listed, key);
}

/// Adds one partition to a log row: length (2), bytes.
pub(crate) fn list_partition(listed: &mut Vec<u8>, partition: &[u8]) {
    let len = u16::try_from(partition.len()).expect("identifiers are far shorter than 64 KiB");
    listed.extend_from_slice(&len.to_be_bytes());
    listed.extend_from_slice(partition);
}

/// Reads back what [`list_change`] wrote; `None` where it is malformed.
pub(crate) fn listed_changes(mut listed: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut changes = Vec::new();
    while !listed.is_empty() {
        let (table, rest) = listed.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        changes.push((u16::from_be_bytes(*table), key.to_vec()));
        listed = rest;
    }
    Some(changes)
}
