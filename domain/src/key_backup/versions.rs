//! Versions of a user's backup. Keys are added to the newest; older ones can still be read.

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    rows::keys::{Backup, BackupsHead},
    tables::{BACKED_UP_KEYS, BACKUPS, BACKUPS_HEAD},
};
use ruma::UserId;

use super::{BackupError, find};
use crate::Env;

/// The most that the data of an algorithm may take, in bytes of JSON.
const AUTH_DATA_BYTES_MAX: usize = 64 << 10;
/// The longest name of an algorithm, in bytes.
const ALGORITHM_BYTES_MAX: usize = 255;
/// So many keys are deleted in one commit.
const DELETED_AT_ONCE: usize = 1_000;

/// A backup to be made, or what is new about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackup {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, the text of a JSON object.
    pub auth_data: String,
}

impl NewBackup {
    fn check(&self) -> Result<(), BackupError> {
        if self.algorithm.len() > ALGORITHM_BYTES_MAX {
            return Err(BackupError::TooLarge("the algorithm has too long a name"));
        }
        if self.auth_data.len() > AUTH_DATA_BYTES_MAX {
            return Err(BackupError::TooLarge("auth_data is too large"));
        }
        Ok(())
    }
}

/// Makes a backup, which is the current one from now on. Returns its version.
///
/// # Errors
/// As [`BackupError`] says.
pub async fn create(env: &Env, user: &UserId, new: &NewBackup) -> Result<u64, BackupError> {
    new.check()?;
    let write = |tx: Tx| {
        async move {
            let head = tx.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
            let version = head.last + 1;
            let NewBackup { algorithm, auth_data } = new.clone();
            let backup = Backup { algorithm, auth_data, count: 0, etag: 0, deleted: false };
            tx.put(&BACKUPS, user, version, &backup);
            let head = BackupsHead { last: version, current: Some(version) };
            tx.put(&BACKUPS_HEAD, user, (), &head);
            Ok(version)
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// A version of a backup.
///
/// # Errors
/// [`BackupError::Unknown`] where there is none, or it was deleted.
pub async fn backup(env: &Env, user: &UserId, version: u64) -> Result<Backup, BackupError> {
    find(&env.store.snapshot(), user, version).await
}

/// The current version, and which it is.
///
/// # Errors
/// [`BackupError::Unknown`] where there is none.
pub async fn current(env: &Env, user: &UserId) -> Result<(u64, Backup), BackupError> {
    let snapshot = env.store.snapshot();
    let head = snapshot.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
    let version = head.current.ok_or(BackupError::Unknown)?;
    Ok((version, find(&snapshot, user, version).await?))
}

/// Changes what a backup's algorithm needs.
///
/// # Errors
/// As [`BackupError`] says.
pub async fn update(
    env: &Env,
    user: &UserId,
    version: u64,
    new: &NewBackup,
) -> Result<(), BackupError> {
    new.check()?;
    let write = |tx: Tx| {
        async move {
            let mut backup = find(&tx, user, version).await?;
            if backup.algorithm != new.algorithm {
                return Err(BackupError::OtherAlgorithm);
            }
            backup.auth_data.clone_from(&new.auth_data);
            // The head guards the range, and stays as it is.
            let head = tx.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
            tx.put(&BACKUPS_HEAD, user, (), &head);
            tx.put(&BACKUPS, user, version, &backup);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Deletes a backup: at once as far as anybody can see, then its keys in small commits. Deleting it
/// again goes on where that was interrupted.
///
/// # Errors
/// [`BackupError::Unknown`] where there never was such a backup.
pub async fn delete(env: &Env, user: &UserId, version: u64) -> Result<(), BackupError> {
    let write = |tx: Tx| {
        async move {
            let mut backup = tx.get(&BACKUPS, user, version).await?.ok_or(BackupError::Unknown)?;
            let mut head = tx.get(&BACKUPS_HEAD, user, ()).await?.unwrap_or_default();
            if backup.deleted {
                return Ok(());
            }
            backup.deleted = true;
            tx.put(&BACKUPS, user, version, &backup);
            if head.current == Some(version) {
                let older = Scan::all().before(version).reverse();
                let older = tx.scan(&BACKUPS, user, older).await?;
                let older = older.into_iter().find(|(_, older)| !older.deleted);
                head.current = older.map(|(version, _)| version);
            }
            tx.put(&BACKUPS_HEAD, user, (), &head);
            Ok::<_, BackupError>(())
        }
        .boxed()
    };
    env.store.transact(write).await?;
    while delete_some(env, user, version).await? {}
    Ok(())
}

/// Deletes all that is left of a user's backups, deleted ones too, in small commits.
///
/// # Errors
/// Where the store fails; then it goes on when it is called again.
pub(crate) async fn forget_user(env: &Env, user: &UserId) -> millrace_store::Result<()> {
    let versions = env.store.snapshot().scan(&BACKUPS, user, Scan::all()).await?;
    for (version, _) in versions {
        while delete_some(env, user, version).await? {}
        let write = |tx: Tx| {
            tx.delete(&BACKUPS, user, version);
            tx.put(&BACKUPS_HEAD, user, (), &BackupsHead { last: version, current: None });
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        env.store.transact(write).await?;
    }
    Ok(())
}

/// Deletes some keys of a deleted backup; whether any were left.
async fn delete_some(env: &Env, user: &UserId, version: u64) -> millrace_store::Result<bool> {
    let scan = Scan::prefix(version).limit(DELETED_AT_ONCE);
    let rows = env.store.snapshot().scan(&BACKED_UP_KEYS, user, scan).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let rows = &rows;
    let write = |tx: Tx| {
        for ((version, room, session), _) in rows {
            tx.delete(&BACKED_UP_KEYS, user, (*version, room, session));
        }
        std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
    };
    env.store.transact(write).await?;
    Ok(true)
}
