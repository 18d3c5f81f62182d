//! Giving up an account.
//!
//! One transaction ends all sessions and notes the departure. Leaving the rooms takes as many
//! transactions as there are rooms, and goes on after a restart: whoever runs [`departing`] at the
//! start leaves the rooms of each and then calls [`departed`].

use futures::future::FutureExt;
use millrace_store::{
    Node, Read, Result as StoreResult, Scan, Tx,
    rows::account::{Account, Deactivation},
    tables::{ACCOUNT_DATA, ACCOUNTS, DEPARTURES, FILTERS, PROFILES},
};
use ruma::{OwnedUserId, UserId};

use super::{
    Accounts, AuthenticateError, Requester, confirm,
    sessions::{self, all_devices},
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

/// A user whose rooms are still to be left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departing {
    /// Who.
    pub user: OwnedUserId,
    /// Whether the user's content is to be erased.
    pub erase: bool,
}

/// Gives up the requester's account: nobody can log in to it again, or register its name.
///
/// # Errors
/// As [`DeactivateError`] says.
pub async fn deactivate(
    accounts: &Accounts,
    requester: &Requester,
    erase: bool,
) -> Result<Departing, DeactivateError> {
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
            if erase {
                erase_own(&tx, user).await?;
            }
            Ok::<_, DeactivateError>(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await?;
    Ok(Departing { user: user.clone(), erase })
}

/// Deletes what is the user's alone: profile, account data, filters. All sessions end in the
/// same transaction, so that no request that comes later writes more of it.
async fn erase_own(tx: &Tx, user: &UserId) -> StoreResult<()> {
    let found = tx.unprotected();
    for (field, _) in found.scan(&PROFILES, user, Scan::all()).await? {
        tx.delete(&PROFILES, user, &field);
    }
    for ((room, kind), _) in found.scan(&ACCOUNT_DATA, user, Scan::all()).await? {
        tx.delete(&ACCOUNT_DATA, user, (&room, &kind));
    }
    for (id, _) in found.scan(&FILTERS, user, Scan::all()).await? {
        tx.delete(&FILTERS, user, &id);
    }
    Ok(())
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
pub async fn departing(accounts: &Accounts) -> StoreResult<Vec<Departing>> {
    let rows = accounts.env.store.snapshot().scan(&DEPARTURES, Node, Scan::all()).await?;
    Ok(rows.into_iter().map(|(user, row)| Departing { user, erase: row.erase }).collect())
}

/// Notes that `user` has left all rooms.
///
/// # Errors
/// Where the store fails.
pub async fn departed(accounts: &Accounts, user: &UserId) -> StoreResult<()> {
    let write = |tx: Tx| {
        async move {
            tx.delete(&DEPARTURES, Node, user);
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
