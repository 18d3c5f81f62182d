//! Whose an address is, and which addresses somebody has.

use millrace_store::{
    Read, Result as StoreResult, Scan,
    tables::{THREEPID_OWNERS, THREEPIDS},
};
use ruma::{OwnedUserId, UserId, thirdparty::Medium};

use super::Address;
use crate::Env;

/// An identifier of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreepidInfo {
    /// `email` or `msisdn`.
    pub medium: Medium,
    /// The address.
    pub address: String,
    /// When it was proved, in milliseconds since 1970.
    pub validated_ms: u64,
    /// When it was added to the account, in milliseconds since 1970.
    pub added_ms: u64,
}

/// Whose account an address belongs to.
///
/// # Errors
/// Where the store fails.
pub async fn owner(read: &impl Read, address: &Address) -> StoreResult<Option<OwnedUserId>> {
    let row = read.get(&THREEPID_OWNERS, address.text(), address.medium().as_str()).await?;
    Ok(row.map(|row| row.user))
}

/// The identifiers of an account.
///
/// # Errors
/// Where the store fails.
pub async fn threepids(env: &Env, user: &UserId) -> StoreResult<Vec<ThreepidInfo>> {
    let rows = env.store.snapshot().scan(&THREEPIDS, user, Scan::all()).await?;
    let info = rows.into_iter().map(|((medium, address), row)| ThreepidInfo {
        medium: medium.into(),
        address,
        validated_ms: row.validated_ms,
        added_ms: row.added_ms,
    });
    Ok(info.collect())
}
