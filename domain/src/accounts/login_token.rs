//! Tokens with which one device logs in another (`POST /v1/login/get_token`).

use std::time::Duration;

use futures::future::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::LoginToken,
    tables::{DEVICES, LOGIN_TOKENS},
};

use super::{
    Accounts, AuthenticateError, Requester, confirm, expiry_ms, sessions,
    token::{TokenKind, new_token},
};

/// Why no token was issued.
#[derive(Debug, thiserror::Error)]
pub enum LoginTokenError {
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not issue a login token")]
    Store(#[from] millrace_store::Error),
}

/// A new login token for the requester's account, and how long it lives. The device's earlier one
/// ends.
///
/// # Errors
/// As [`LoginTokenError`] says.
pub async fn issue_login_token(
    accounts: &Accounts,
    requester: &Requester,
) -> Result<(String, Duration), LoginTokenError> {
    let lifetime = accounts.settings.lifetimes.login_token;
    let Requester { user, device: id, .. } = requester;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let device = tx.get(&DEVICES, user, id).await?;
            let mut device = device.ok_or(AuthenticateError::Unknown)?;
            if let Some(earlier) = device.login_token.take() {
                tx.delete(&LOGIN_TOKENS, earlier, ());
            }
            let (text, hash) = new_token(&accounts.env, TokenKind::Login);
            let expires_ms = expiry_ms(accounts.now_ms(), lifetime);
            let row = LoginToken { user: user.clone(), device: Some(id.clone()), expires_ms };
            tx.put(&LOGIN_TOKENS, hash, (), &row);
            device.login_token = Some(hash);
            sessions::put_device(&tx, user, id, &device).await?;
            Ok((text, lifetime))
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
