//! Giving up an account.
//!
//! One transaction ends all sessions and notes the departure. Leaving the rooms takes as many
//! transactions as there are rooms, and goes on after a restart: [`departing`] tells who still has
//! to [`depart`].

use futures::future::FutureExt;
use millrace_store::{
    Node, Read, Result as StoreResult, Scan, Tx,
    rows::account::{Account, Deactivation},
    tables::{ACCOUNTS, DEPARTURES},
};
use ruma::{OwnedUserId, UserId};

use super::{
    Accounts, AuthenticateError, Requester, confirm,
    erase::{erase_own, erase_traces},
    sessions::{self, all_devices},
};
use crate::{
    keys,
    rooms::{Rooms, leave::leave_all_rooms},
    threepids,
};

/// Why the account was not given up.
#[derive(Debug, thiserror::Error)]
pub enum DeactivateError {
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not deactivate the account")]
    Store(#[from] millrace_store::Error),
}

/// Gives up the requester's account: nobody can log in to it again, or register its name. Its rooms
/// are left by [`depart`], which is to follow.
///
/// # Errors
/// As [`DeactivateError`] says.
pub async fn deactivate(
    accounts: &Accounts,
    requester: &Requester,
    erase: bool,
) -> Result<(), DeactivateError> {
    let user = &requester.user;
    let deactivation = &Deactivation { at_ms: accounts.now_ms(), erase };
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let account = tx.get(&ACCOUNTS, user, ()).await?.ok_or(AuthenticateError::Unknown)?;
            let account =
                Account { password_hash: None, deactivated: Some(*deactivation), ..account };
            tx.put(&ACCOUNTS, user, (), &account);
            tx.put(&DEPARTURES, Node, user, deactivation);
            let ended = all_devices(&tx, user).await?;
            sessions::end(&tx, user, &ended).await?;
            keys::forget_user(&tx, user);
            threepids::remove_all(&tx, user).await?;
            if erase {
                erase_own(&tx, user).await?;
            }
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Whether and how an account was given up.
///
/// # Errors
/// Where the store fails.
pub async fn find_deactivation(
    read: &impl Read,
    user: &UserId,
) -> StoreResult<Option<Deactivation>> {
    Ok(read.get(&ACCOUNTS, user, ()).await?.and_then(|account| account.deactivated))
}

/// Who has not left all rooms yet.
///
/// # Errors
/// Where the store fails.
pub async fn departing(accounts: &Accounts) -> StoreResult<Vec<OwnedUserId>> {
    let rows = accounts.env.store.snapshot().scan(&DEPARTURES, Node, Scan::all()).await?;
    Ok(rows.into_iter().map(|(user, _)| user).collect())
}

/// Takes a deactivated user out of all rooms, erases their traces there if they want it, and notes that
/// this is done. Repeating it is harmless.
///
/// # Errors
/// Where the store fails; then it is still to be done.
pub async fn depart(accounts: &Accounts, rooms: &Rooms, user: &UserId) -> StoreResult<()> {
    leave_all_rooms(rooms, user).await?;
    let deactivation = find_deactivation(&accounts.env.store.snapshot(), user).await?;
    if deactivation.is_some_and(|deactivation| deactivation.erase) {
        erase_traces(accounts, user).await?;
    }
    let write = |tx: Tx| {
        async move {
            tx.delete(&DEPARTURES, Node, user);
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
