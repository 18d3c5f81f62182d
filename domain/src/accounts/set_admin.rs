//! Making somebody an administrator, or no longer.

use futures::future::FutureExt;
use millrace_store::{Read, Result, Tx, rows::account::Account, tables::ACCOUNTS};
use ruma::UserId;

use super::{Accounts, register::rewrite_tokens};

/// Sets whether `user` may use the admin API; false where there is no such account.
///
/// # Errors
/// Where the store fails.
pub async fn set_admin(accounts: &Accounts, user: &UserId, admin: bool) -> Result<bool> {
    let write = |tx: Tx| {
        async move {
            let Some(account) = tx.get(&ACCOUNTS, user, ()).await? else { return Ok(false) };
            let account = Account { admin, ..account };
            tx.put(&ACCOUNTS, user, (), &account);
            rewrite_tokens(&tx, user, &account).await?;
            Ok(true)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
