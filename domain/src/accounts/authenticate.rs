//! From an access token to who makes the request.

use millrace_store::{
    Read, Tx,
    rows::account::{AccessToken, TokenHash},
    tables::{ACCESS_TOKENS, DEVICES},
};

use super::{Accounts, Requester, refresh, token::hash_token};

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// It was never given out, or its session has ended.
    #[error("unknown access token")]
    Unknown,
    /// Its time is over; the session still exists.
    #[error("the access token has expired")]
    Expired,
    /// The store failed.
    #[error("could not look up the access token")]
    Store(#[from] millrace_store::Error),
}

/// Who the bearer of `token` is. One read, and one write at the first use after a refresh.
///
/// # Errors
/// Where the token is not, or no longer, good.
pub async fn authenticate(
    accounts: &Accounts,
    token: &str,
) -> Result<Requester, AuthenticateError> {
    let hash = hash_token(token);
    let row = accounts.env.store.snapshot().get(&ACCESS_TOKENS, hash, ()).await?;
    let row = row.ok_or(AuthenticateError::Unknown)?;
    if is_over(row.expires_ms, accounts.now_ms()) {
        return Err(AuthenticateError::Expired);
    }
    if row.unproven_with.is_some() {
        refresh::prove(accounts, hash).await?;
    }
    Ok(requester(hash, row))
}

/// Checks within a transaction that the token of `requester` has not been ended meanwhile. For
/// writes that must not outlive their session, such as the change of a password.
///
/// # Errors
/// [`AuthenticateError::Unknown`] where the session has ended.
pub async fn confirm(tx: &Tx, requester: &Requester) -> Result<(), AuthenticateError> {
    if let Some(service) = &requester.service {
        // Its token is not in the store. What can end meanwhile is the device.
        let device = tx.get(&DEVICES, &requester.user, &requester.device).await?;
        let holds = !service.has_device || device.is_some();
        return if holds { Ok(()) } else { Err(AuthenticateError::Unknown) };
    }
    let row = tx.get(&ACCESS_TOKENS, requester.token, ()).await?;
    row.map(drop).ok_or(AuthenticateError::Unknown)
}

fn requester(token: TokenHash, row: AccessToken) -> Requester {
    let AccessToken { user, device, guest, admin, suspended, locked, .. } = row;
    let service = None;
    Requester { user, device, is_guest: guest, admin, suspended, locked, token, service }
}

/// Whether something that ends at `expires_ms` has ended.
pub(super) fn is_over(expires_ms: Option<u64>, now_ms: u64) -> bool {
    expires_ms.is_some_and(|end| end <= now_ms)
}
