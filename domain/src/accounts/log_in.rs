//! Logging in, by password or by login token.

use futures::future::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::Account,
    tables::{ACCOUNTS, DEVICES, LOGIN_TOKENS},
};
use ruma::{OwnedUserId, UserId};

use super::{
    Accounts, Login, NewDevice, authenticate::is_over, password::HashError, sessions,
    token::hash_token,
};

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum LogInError {
    /// No such account, another password, or an account without one. Which is told to nobody.
    #[error("wrong username or password")]
    WrongPassword,
    /// The login token is unknown, used or too old.
    #[error("the login token is not valid")]
    LoginToken,
    /// The account was given up.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The password could not be checked.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The store failed.
    #[error("could not log in")]
    Store(#[from] millrace_store::Error),
}

/// The user that somebody means by a whole user ID or its localpart, in whatever case; none for
/// users of other servers and for what is no name.
#[must_use]
pub fn named_user(accounts: &Accounts, name: &str) -> Option<OwnedUserId> {
    let server = &accounts.env.identity.name;
    let name = name.trim();
    let whole = if name.starts_with('@') { name.to_owned() } else { format!("@{name}:{server}") };
    let user = UserId::parse(whole).ok()?;
    if user.server_name() != server {
        return None;
    }
    UserId::parse(format!("@{}:{server}", user.localpart().to_lowercase())).ok()
}

/// Logs a device in by password. `name` is as in [`named_user`].
///
/// # Errors
/// As [`LogInError`] says. It takes as long for users that do not exist.
pub async fn log_in_by_password(
    accounts: &Accounts,
    name: &str,
    password: &str,
    device: &NewDevice,
) -> Result<Login, LogInError> {
    let user = named_user(accounts, name);
    let hash = &check_password(accounts, user.as_deref(), password).await?;
    let user = &user.ok_or(LogInError::WrongPassword)?;
    // The cost of hashes may have been raised since; only now is the password at hand.
    let rehashed = if accounts.passwords.is_current(hash) {
        None
    } else {
        Some(accounts.passwords.hash(&accounts.env, password).await?)
    };
    let rehashed = &rehashed;
    let write = |tx: Tx| {
        async move {
            let account = tx.get(&ACCOUNTS, user, ()).await?;
            // The password may have been changed while it was checked.
            let same = |account: &Account| account.password_hash.as_ref() == Some(hash);
            let mut account = account.filter(same).ok_or(LogInError::WrongPassword)?;
            if rehashed.is_some() {
                account.password_hash.clone_from(rehashed);
                tx.put(&ACCOUNTS, user, (), &account);
            }
            Ok(sessions::begin(accounts, &tx, user, &account, device).await?)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Checks a password and returns the stored hash that it fits.
///
/// # Errors
/// As [`LogInError`] says. It takes as long for users that do not exist.
pub(super) async fn check_password(
    accounts: &Accounts,
    user: Option<&UserId>,
    password: &str,
) -> Result<String, LogInError> {
    let account = match user {
        Some(user) => accounts.env.store.snapshot().get(&ACCOUNTS, user, ()).await?,
        None => None,
    };
    let hash = account.as_ref().and_then(|account| account.password_hash.clone());
    let fits = accounts.passwords.check(password, hash.clone()).await?;
    if account.is_some_and(|account| account.deactivated.is_some()) {
        return Err(LogInError::Deactivated);
    }
    hash.filter(|_| fits).ok_or(LogInError::WrongPassword)
}

/// Logs a device in by a login token, which is used up by that.
///
/// # Errors
/// As [`LogInError`] says.
pub async fn log_in_by_token(
    accounts: &Accounts,
    token: &str,
    device: &NewDevice,
) -> Result<Login, LogInError> {
    let hash = hash_token(token);
    let write = |tx: Tx| {
        async move {
            let row = tx.get(&LOGIN_TOKENS, hash, ()).await?.ok_or(LogInError::LoginToken)?;
            if is_over(Some(row.expires_ms), accounts.now_ms()) {
                return Err(LogInError::LoginToken);
            }
            let account = tx.get(&ACCOUNTS, &row.user, ()).await?.ok_or(LogInError::LoginToken)?;
            tx.delete(&LOGIN_TOKENS, hash, ());
            if let Some(mut issuer) = tx.get(&DEVICES, &row.user, &row.device).await? {
                issuer.login_token.take_if(|held| *held == hash);
                sessions::put_device(&tx, &row.user, &row.device, &issuer).await?;
            }
            Ok(sessions::begin(accounts, &tx, &row.user, &account, device).await?)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
