//! Taking identifiers from an account (`POST /account/3pid/delete`).

use futures::FutureExt;
use millrace_store::{
    Read, Result as StoreResult, Scan, Tx,
    tables::{THREEPID_OWNERS, THREEPIDS, THREEPIDS_HEAD},
};
use ruma::UserId;

use super::{Address, add::count_change};
use crate::accounts::{Accounts, AuthenticateError, Requester, confirm};

/// Takes an address from the requester's account; one that is not there is no error.
///
/// # Errors
/// Where the session has ended, or the store fails.
pub async fn remove(
    accounts: &Accounts,
    requester: &Requester,
    address: &Address,
) -> Result<(), AuthenticateError> {
    let user = &requester.user;
    let (medium, text) = (address.medium().as_str(), address.text());
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            if tx.get(&THREEPIDS, user, (medium, text)).await?.is_some() {
                forget(&tx, user, (medium, text));
                count_change(&tx, user).await?;
            }
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Takes all addresses from an account that is given up.
pub(crate) async fn remove_all(tx: &Tx, user: &UserId) -> StoreResult<()> {
    tx.get(&THREEPIDS_HEAD, user, ()).await?;
    let all = tx.scan(&THREEPIDS, user, Scan::all()).await?;
    if all.is_empty() {
        return Ok(());
    }
    for ((medium, address), _) in &all {
        forget(tx, user, (medium, address));
    }
    count_change(tx, user).await
}

fn forget(tx: &Tx, user: &UserId, (medium, address): (&str, &str)) {
    tx.delete(&THREEPIDS, user, (medium, address));
    tx.delete(&THREEPID_OWNERS, address, medium);
}
