//! Suspending and locking accounts (spec: Client-Server API, Account suspension, Account locking).
//!
//! What a session may do is read from its token, by the one read that every request costs; so the
//! decision is written into all tokens of the account.

use futures::future::FutureExt;
use millrace_store::{Read, Tx, rows::account::Account, tables::ACCOUNTS};
use ruma::{OwnedUserId, UserId};

use super::{Accounts, AuthenticateError, Requester, confirm, register::rewrite_tokens};

/// What an administrator decides about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moderation {
    /// The user may only read and leave.
    Suspend,
    /// The user may do again what others may.
    Unsuspend,
    /// The account cannot be used.
    Lock,
    /// It can be used again.
    Unlock,
}

/// What was decided about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moderated {
    /// Whether the user may only read and leave.
    pub suspended: bool,
    /// Whether the account cannot be used.
    pub locked: bool,
}

/// Why nothing was decided or told.
#[derive(Debug, thiserror::Error)]
pub enum ModerateError {
    /// Only administrators may.
    #[error("you are no administrator of this server")]
    NotAdmin,
    /// Only users of this server have accounts here.
    #[error("{0} is no user of this server")]
    OtherServer(OwnedUserId),
    /// Nobody moderates administrators, nor themselves.
    #[error("administrators are not moderated")]
    OfAdmin,
    /// There is no such account, or it was given up.
    #[error("there is no user {0}")]
    Unknown(OwnedUserId),
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not read or write the account")]
    Store(#[from] millrace_store::Error),
}

/// What was decided about the account of `user`.
///
/// # Errors
/// As [`ModerateError`] says: who is no administrator learns nothing of who exists.
pub async fn moderated(
    accounts: &Accounts,
    requester: &Requester,
    user: &UserId,
) -> Result<Moderated, ModerateError> {
    let account = find(accounts, &accounts.env.store.snapshot(), requester, user).await?;
    if account.admin && requester.user != user {
        return Err(ModerateError::OfAdmin);
    }
    Ok(Moderated { suspended: account.suspended, locked: account.locked })
}

/// Decides about the account of `user`. It keeps its sessions.
///
/// # Errors
/// As [`ModerateError`] says.
pub async fn moderate(
    accounts: &Accounts,
    requester: &Requester,
    user: &UserId,
    moderation: Moderation,
) -> Result<(), ModerateError> {
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let mut account = find(accounts, &tx, requester, user).await?;
            if account.admin {
                return Err(ModerateError::OfAdmin);
            }
            match moderation {
                Moderation::Suspend => account.suspended = true,
                Moderation::Unsuspend => account.suspended = false,
                Moderation::Lock => account.locked = true,
                Moderation::Unlock => account.locked = false,
            }
            tx.put(&ACCOUNTS, user, (), &account);
            rewrite_tokens(&tx, user, &account).await?;
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// The account, for an administrator.
async fn find(
    accounts: &Accounts,
    read: &impl Read,
    requester: &Requester,
    user: &UserId,
) -> Result<Account, ModerateError> {
    if !requester.admin {
        return Err(ModerateError::NotAdmin);
    }
    if !accounts.env.is_local(user) {
        return Err(ModerateError::OtherServer(user.to_owned()));
    }
    let account = read.get(&ACCOUNTS, user, ()).await?;
    let account = account.filter(|account| account.deactivated.is_none());
    account.ok_or_else(|| ModerateError::Unknown(user.to_owned()))
}
