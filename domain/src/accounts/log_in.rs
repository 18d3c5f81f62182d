//! Logging in, by password or by login token.

use futures::future::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::Account,
    tables::{ACCOUNTS, DEVICES, LOGIN_TOKENS},
};
use ruma::{OwnedUserId, UserId, api::client::uiaa::UserIdentifier};

use super::{
    Accounts, Login, NewDevice, authenticate::is_over, password::HashError, sessions,
    token::hash_token,
};
use crate::threepids::{self, Address};

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
    /// An administrator has locked the account.
    #[error("this account has been locked")]
    Locked,
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

/// The user of this server that an identifier names: a user ID, or an address that is an account's
/// (spec: Client-Server API, Identifier types).
///
/// # Errors
/// Where the store fails.
pub async fn identified_user(
    accounts: &Accounts,
    identifier: &UserIdentifier,
) -> millrace_store::Result<Option<OwnedUserId>> {
    let address = match identifier {
        UserIdentifier::Matrix(matrix) => return Ok(named_user(accounts, &matrix.user)),
        UserIdentifier::Email(email) => Address::email(&email.address),
        UserIdentifier::Msisdn(phone) => Address::msisdn(&phone.number),
        UserIdentifier::PhoneNumber(phone) => Address::phone(&phone.country, &phone.phone),
        _ => return Ok(None),
    };
    let Ok(address) = address else { return Ok(None) };
    threepids::owner(&accounts.env.store.snapshot(), &address).await
}

/// Logs a device in by password.
///
/// # Errors
/// As [`LogInError`] says. It takes as long for users that do not exist.
pub async fn log_in_by_password(
    accounts: &Accounts,
    user: Option<OwnedUserId>,
    password: &str,
    device: &NewDevice,
) -> Result<Login, LogInError> {
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
            if account.locked {
                return Err(LogInError::Locked);
            }
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

/// Logs a device in for the application service that the user belongs to.
///
/// # Errors
/// As [`LogInError`] says; [`LogInError::WrongPassword`] where there is no such user.
pub async fn log_in_by_service(
    accounts: &Accounts,
    user: &UserId,
    device: &NewDevice,
) -> Result<Login, LogInError> {
    let write = |tx: Tx| {
        async move {
            let account = tx.get(&ACCOUNTS, user, ()).await?.ok_or(LogInError::WrongPassword)?;
            if account.deactivated.is_some() {
                return Err(LogInError::Deactivated);
            }
            if account.locked {
                return Err(LogInError::Locked);
            }
            Ok(sessions::begin(accounts, &tx, user, &account, device).await?)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
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
            if account.locked {
                return Err(LogInError::Locked);
            }
            tx.delete(&LOGIN_TOKENS, hash, ());
            if account.deactivated.is_some() {
                return Err(LogInError::Deactivated);
            }
            if let Some(by) = &row.device
                && let Some(mut issuer) = tx.get(&DEVICES, &row.user, by).await?
            {
                issuer.login_token.take_if(|held| *held == hash);
                sessions::put_device(&tx, &row.user, by, &issuer).await?;
            }
            Ok(sessions::begin(accounts, &tx, &row.user, &account, device).await?)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
