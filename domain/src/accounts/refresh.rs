//! Refresh tokens: getting the next access token.
//!
//! A client may lose our answer. So the tokens before stay good until one of the new ones is used;
//! only then is it certain that they arrived (client-server API, "Refreshing access tokens").

use futures::future::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::{Device, TokenHash},
    tables::{ACCESS_TOKENS, ACCOUNTS, DEVICES, REFRESH_TOKENS},
};

use super::{
    Accounts, AuthenticateError, Login,
    authenticate::is_over,
    sessions::{self, Tokens},
    token::hash_token,
};

/// Why there are no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token was never given out, was replaced, or its session has ended.
    #[error("unknown refresh token")]
    Unknown,
    /// Its time is over; the session still exists.
    #[error("the refresh token has expired")]
    Expired,
    /// An administrator has locked the account.
    #[error("this account has been locked")]
    Locked,
    /// The store failed.
    #[error("could not refresh the session")]
    Store(#[from] millrace_store::Error),
}

/// The next tokens of the session that `refresh_token` belongs to.
///
/// # Errors
/// As [`RefreshError`] says.
pub async fn refresh(accounts: &Accounts, refresh_token: &str) -> Result<Login, RefreshError> {
    let hash = hash_token(refresh_token);
    let write = |tx: Tx| {
        async move {
            let row = tx.get(&REFRESH_TOKENS, hash, ()).await?.ok_or(RefreshError::Unknown)?;
            if is_over(row.expires_ms, accounts.now_ms()) {
                return Err(RefreshError::Expired);
            }
            let (user, id) = (&row.user, &row.device);
            let account = tx.get(&ACCOUNTS, user, ()).await?.ok_or(RefreshError::Unknown)?;
            let device = tx.get(&DEVICES, user, id).await?.ok_or(RefreshError::Unknown)?;
            // Its use proves that it arrived, together with its access token.
            let mut device = keep_only(&tx, device, row.access_token, Some(hash));
            if account.locked {
                return Err(RefreshError::Locked);
            }
            let tokens = Tokens { refreshes: true, account: &account };
            let login = sessions::issue(accounts, &tx, (user, id), &mut device, tokens);
            note_unproven(&tx, &device).await?;
            sessions::put_device(&tx, user, id, &device).await?;
            Ok(login)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Notes with the newest access token that its first use ends the tokens before it.
async fn note_unproven(tx: &Tx, device: &Device) -> millrace_store::Result<()> {
    let (Some(access), Some(refresh)) = (device.access_tokens.last(), device.refresh_tokens.last())
    else {
        return Ok(());
    };
    if let Some(mut row) = tx.get(&ACCESS_TOKENS, access, ()).await? {
        row.unproven_with = Some(*refresh);
        tx.put(&ACCESS_TOKENS, access, (), &row);
    }
    Ok(())
}

/// The first use of an access token that came by a refresh: ends the tokens before it. An access
/// token that may still be in use by requests under way counts as expired, not as unknown, lest a
/// client takes it for the end of its session.
pub(super) async fn prove(accounts: &Accounts, hash: TokenHash) -> Result<(), AuthenticateError> {
    let write = |tx: Tx| {
        async move {
            let row = tx.get(&ACCESS_TOKENS, hash, ()).await?;
            let mut row = row.ok_or(AuthenticateError::Unknown)?;
            let Some(refresh) = row.unproven_with.take() else { return Ok(()) };
            let device = tx.get(&DEVICES, &row.user, &row.device).await?;
            let device = device.ok_or(AuthenticateError::Unknown)?;
            let before: Vec<_> =
                device.access_tokens.iter().copied().filter(|other| *other != hash).collect();
            let mut device = keep_only(&tx, device, hash, Some(refresh));
            if let Some(previous) = before.last()
                && let Some(mut old) = tx.unprotected().get(&ACCESS_TOKENS, previous, ()).await?
            {
                let now_ms = accounts.now_ms();
                old.expires_ms = Some(old.expires_ms.map_or(now_ms, |end| end.min(now_ms)));
                old.unproven_with = None;
                tx.put(&ACCESS_TOKENS, previous, (), &old);
                device.access_tokens.insert(0, *previous);
            }
            tx.put(&ACCESS_TOKENS, hash, (), &row);
            sessions::put_device(&tx, &row.user, &row.device, &device).await?;
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Deletes every token of `device` but these.
fn keep_only(tx: &Tx, mut device: Device, access: TokenHash, refresh: Option<TokenHash>) -> Device {
    device.access_tokens.retain(|hash| {
        let keep = *hash == access;
        if !keep {
            tx.delete(&ACCESS_TOKENS, hash, ());
        }
        keep
    });
    device.refresh_tokens.retain(|hash| {
        let keep = Some(*hash) == refresh;
        if !keep {
            tx.delete(&REFRESH_TOKENS, hash, ());
        }
        keep
    });
    device
}
