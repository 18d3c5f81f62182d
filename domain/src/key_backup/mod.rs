//! Backups of room keys: encrypted by clients, kept here for the user's other devices (spec:
//! Client-Server API, Server-side key backups).
//!
//! A key is a row of its own, and how many there are is counted in the row of the backup: storing one
//! key costs the same in a backup of ten keys and of a hundred thousand.

mod keys;
mod versions;

use millrace_store::{
    Read,
    rows::keys::Backup,
    tables::{BACKUPS, BACKUPS_HEAD},
};
use ruma::UserId;

pub(crate) use self::versions::forget_user;
pub use self::{
    keys::{RoomKeys, Selection, delete_keys, keys, keys_json, store_keys},
    versions::{NewBackup, backup, create, current, delete, update},
};

/// How many keys a backup has, and a number that changes whenever one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupState {
    /// How many keys.
    pub count: u64,
    /// The number.
    pub etag: u64,
}

/// Why a backup is not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The user has no such backup.
    #[error("unknown backup version")]
    Unknown,
    /// Keys are added to the current backup only.
    #[error("the current backup version is {current}")]
    NotCurrent {
        /// It.
        current: u64,
    },
    /// The algorithm of a backup stays the same.
    #[error("the algorithm of a backup cannot be changed")]
    OtherAlgorithm,
    /// Too much data.
    #[error("{0}")]
    TooLarge(&'static str),
    /// The store failed.
    #[error("could not read or write the backup")]
    Store(#[from] millrace_store::Error),
}

/// A backup that was not deleted.
async fn find(read: &impl Read, user: &UserId, version: u64) -> Result<Backup, BackupError> {
    let backup = read.get(&BACKUPS, user, version).await?;
    backup.filter(|backup| !backup.deleted).ok_or(BackupError::Unknown)
}

/// The current backup, which must be of this version.
async fn find_current(
    read: &impl Read,
    user: &UserId,
    version: u64,
) -> Result<Backup, BackupError> {
    let head = read.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
    match head.current {
        Some(current) if current == version => find(read, user, version).await,
        Some(current) => {
            find(read, user, version).await?;
            Err(BackupError::NotCurrent { current })
        }
        None => Err(BackupError::Unknown),
    }
}
