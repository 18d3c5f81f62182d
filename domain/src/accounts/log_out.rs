//! Ending sessions.

use futures::future::FutureExt;
use millrace_store::{Read, Result, Tx, tables::DEVICES};
use ruma::UserId;

use super::{
    Accounts, Requester,
    sessions::{self, all_devices},
};

/// Ends the requester's session: its device and tokens are gone.
///
/// # Errors
/// Where the store fails.
pub async fn log_out(accounts: &Accounts, requester: &Requester) -> Result<()> {
    let Requester { user, device: id, .. } = requester;
    let write = |tx: Tx| {
        async move {
            let device = tx.get(&DEVICES, user, id).await?;
            let ended: Vec<_> = device.map(|device| (id.clone(), device)).into_iter().collect();
            sessions::end(&tx, user, &ended).await
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Ends all sessions of a user.
///
/// # Errors
/// Where the store fails.
pub async fn log_out_everywhere(accounts: &Accounts, user: &UserId) -> Result<()> {
    let write = |tx: Tx| async move { log_out_all(&tx, user).await }.boxed();
    accounts.env.store.transact(write).await
}

/// As [`log_out_everywhere`], within a transaction.
pub(crate) async fn log_out_all(tx: &Tx, user: &UserId) -> Result<()> {
    let ended = all_devices(tx, user).await?;
    sessions::end(tx, user, &ended).await
}
