//! Everything the server remembers, and the only crate that names RocksDB.
//!
//! Start at [`Store::transact`]: one closure, one atomic, serialisable transaction. Every table is
//! declared in `tables.rs`, its key and value in the doc comment. What changed after a view is
//! found by [`Store::news`] and [`Snapshot::changes`]. Never here: HTTP, Matrix rules, clocks.

mod changes;
mod committer;
pub mod engine;
mod error;
pub mod key;
mod numbers;
pub mod one_writer;
mod read;
pub mod rows;
pub mod state_tree;
mod store;
#[cfg(test)]
mod suite;
mod table;
pub mod tables;
mod transaction;
pub mod value;

pub use millrace_model::position::{Position, View};

pub use self::{
    changes::{News, Watch, Watchers},
    error::{Error, Result},
    read::{Read, ReadFuture, Scan, Snapshot},
    store::{Change, FORMAT, Store},
    table::{Family, Node, Partition, PartitionId, PartitionKey, Table, TableInfo},
    transaction::{Limits, Tx},
    value::Value,
};
