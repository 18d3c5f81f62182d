//! Changing the password.

use futures::future::FutureExt;
use millrace_store::{Read, Tx, rows::account::Account, tables::ACCOUNTS};

use super::{
    Accounts, AuthenticateError, Requester, confirm,
    password::HashError,
    sessions::{self, all_devices},
};

/// What a password is changed to.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPassword {
    /// The password.
    pub password: String,
    /// Whether to end all other sessions.
    pub log_out_others: bool,
}

/// Why the password stays what it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The store failed.
    #[error("could not change the password")]
    Store(#[from] millrace_store::Error),
}

/// Sets the password of the requester, whose session goes on.
///
/// # Errors
/// As [`ChangePasswordError`] says.
pub async fn change_password(
    accounts: &Accounts,
    requester: &Requester,
    new: &NewPassword,
) -> Result<(), ChangePasswordError> {
    let hash = &accounts.passwords.hash(&accounts.env, &new.password).await?;
    let user = &requester.user;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let account = tx.get(&ACCOUNTS, user, ()).await?.ok_or(AuthenticateError::Unknown)?;
            let account = Account { password_hash: Some(hash.clone()), ..account };
            tx.put(&ACCOUNTS, user, (), &account);
            if new.log_out_others {
                let mut others = all_devices(&tx, user).await?;
                others.retain(|(id, _)| *id != requester.device);
                sessions::end(&tx, user, &others).await?;
            }
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
