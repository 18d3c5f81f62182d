//! Adding an identifier to an account (`POST /account/3pid/add`).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::threepid::{Purpose, Threepid, ThreepidOwner},
    tables::{THREEPID_OWNERS, THREEPID_SESSIONS, THREEPIDS, THREEPIDS_HEAD},
};
use ruma::UserId;

use super::{Proved, owner, proved};
use crate::accounts::{Accounts, AuthenticateError, Requester, confirm};

/// Why an identifier was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The session has not proved anything, or not for this.
    #[error("the address has not been validated")]
    NotValidated,
    /// The address is another account's.
    #[error("this address belongs to another account")]
    InUse,
    /// The client's session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// The address belongs to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InUse;

/// Adds the address that a session has proved to the requester's account.
///
/// # Errors
/// As [`AddError`] says.
pub async fn add(
    accounts: &Accounts,
    requester: &Requester,
    sid: &str,
    client_secret: &str,
) -> Result<(), AddError> {
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let credentials = (sid, client_secret);
            let proof = proved(accounts, &tx, Purpose::Add, credentials).await?;
            let proof = proof.ok_or(AddError::NotValidated)?;
            match claim(accounts, &tx, &requester.user, &proof).await? {
                Ok(()) => Ok(()),
                Err(InUse) => Err(AddError::InUse),
            }
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Gives an address to an account, and uses the session up that proved it.
pub(crate) async fn claim(
    accounts: &Accounts,
    tx: &Tx,
    user: &UserId,
    proof: &Proved,
) -> millrace_store::Result<Result<(), InUse>> {
    let address = &proof.address;
    if owner(tx, address).await?.is_some_and(|owner| owner != user) {
        return Ok(Err(InUse));
    }
    let (medium, text) = (address.medium().as_str(), address.text());
    let row = Threepid { validated_ms: proof.validated_ms, added_ms: accounts.now_ms() };
    tx.put(&THREEPIDS, user, (medium, text), &row);
    count_change(tx, user).await?;
    tx.put(&THREEPID_OWNERS, text, medium, &ThreepidOwner { user: user.to_owned() });
    tx.delete(&THREEPID_SESSIONS, &proof.sid, ());
    Ok(Ok(()))
}

/// Writes the head that guards a user's identifiers and bindings.
pub(crate) async fn count_change(tx: &Tx, user: &UserId) -> millrace_store::Result<()> {
    let changes = tx.get(&THREEPIDS_HEAD, user, ()).await?.unwrap_or(0);
    tx.put(&THREEPIDS_HEAD, user, (), &(changes + 1));
    Ok(())
}
