//! What can go wrong in the store.

use std::sync::Arc;

/// A failure of the store. Cheap to clone, because one failed group of commits fails all its members.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The engine (disk, library, network) refused a read or a write.
    #[error("the storage engine failed: {0}")]
    Engine(Arc<str>),
    /// The database is in use by another process.
    #[error(
        "the database {0} is in use by another process: stop it, or give this one another database_path"
    )]
    Locked(Arc<str>),
    /// The database holds what cannot have been written by us.
    #[error("the database {path} cannot be read: {reason}; restore it from a backup")]
    Corrupt {
        /// Where the database lies.
        path: Arc<str>,
        /// What the engine says about it.
        reason: Arc<str>,
    },
    /// A row does not have the form that its table declares.
    #[error("a row of table {table} is malformed: {reason}")]
    Malformed {
        /// The table's name.
        table: &'static str,
        /// What was wrong with the bytes.
        reason: Arc<str>,
    },
    /// An earlier write failed; nothing is written any more until the process is restarted.
    #[error("writing stopped after a fault: {0}")]
    Stopped(Arc<str>),
    /// A transaction changed a range without writing the head that guards it.
    #[error("table {table} was changed without writing its head {head}")]
    HeadNotWritten {
        /// The table whose range changed.
        table: &'static str,
        /// The table that guards it.
        head: &'static str,
    },
    /// A transaction scanned a range without having read the head that guards it.
    #[error("table {table} was scanned in a transaction without reading its head first")]
    HeadNotRead {
        /// The table that was scanned.
        table: &'static str,
    },
    /// A transaction wrote more than a commit may hold.
    #[error("a transaction of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of the keys and values written.
        bytes: usize,
        /// The limit in force.
        limit: usize,
    },
    /// A transaction took longer than it may.
    #[error("a transaction was open for longer than {limit_ms} ms")]
    TooOld {
        /// The limit in force.
        limit_ms: u64,
    },
    /// The stored format is another than this program reads.
    #[error(
        "the database has format {found}, this program reads format {known}: start the version of Millrace that wrote it, or begin anew with another database_path"
    )]
    Format {
        /// What the database says.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// The database belongs to another server name.
    #[error(
        "the database was created for server_name {found:?}, but the configuration says {configured:?}: set server_name back, or use another database_path"
    )]
    ServerName {
        /// The name in the database.
        found: String,
        /// The name in the configuration.
        configured: String,
    },
}

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
