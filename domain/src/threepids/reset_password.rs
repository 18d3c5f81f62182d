//! Setting a new password by proving an address (spec: Client-Server API, `POST /account/password`
//! with `m.login.email.identity`).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::Account,
    tables::{ACCOUNTS, THREEPID_SESSIONS},
};
use ruma::OwnedUserId;

use super::{Proved, owner};
use crate::accounts::{Accounts, HashError, NewPassword, log_out_all};

/// Why the password stays what it was.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The address belongs to nobody any more, or the proof was used already.
    #[error("no account has this address")]
    NotFound,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Sets the password of the account that has the proved address, and uses the proof up.
///
/// # Errors
/// As [`ResetError`] says.
pub async fn reset_password(
    accounts: &Accounts,
    proof: &Proved,
    new: &NewPassword,
) -> Result<OwnedUserId, ResetError> {
    let hash = &accounts.passwords.hash(&accounts.env, &new.password).await?;
    let write = |tx: Tx| {
        async move {
            let unused = tx.get(&THREEPID_SESSIONS, &proof.sid, ()).await?.is_some();
            let user = owner(&tx, &proof.address).await?.filter(|_| unused);
            let user = user.ok_or(ResetError::NotFound)?;
            let account = tx.get(&ACCOUNTS, &user, ()).await?;
            let account = account.filter(|account| account.deactivated.is_none());
            let account = account.ok_or(ResetError::NotFound)?;
            let account = Account { password_hash: Some(hash.clone()), ..account };
            tx.put(&ACCOUNTS, &user, (), &account);
            tx.delete(&THREEPID_SESSIONS, &proof.sid, ());
            if new.log_out_others {
                log_out_all(&tx, &user).await?;
            }
            Ok(user)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
