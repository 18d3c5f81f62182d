//! Single sign-on: another service says who somebody is, and an account is theirs (spec: Client-Server
//! API, SSO client login/authentication).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::{Account, LoginToken, SsoLink},
    tables::{ACCOUNTS, LOGIN_TOKENS, PROFILES, SSO_LINKS, SSO_SUBJECTS},
};
use ruma::{OwnedUserId, UserId};

use super::{
    Accounts, InvalidUsername, expiry_ms, parse_username,
    token::{TokenKind, new_token},
};

/// Names that are tried where others have the one that is wanted: `name`, `name2` and so on.
const NAMES_TRIED: usize = 20;

/// Somebody as another service knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsoIdentity {
    /// Our name of the service.
    pub provider: String,
    /// The service's name of the person, which never changes.
    pub subject: String,
    /// The localpart that a new account is to have.
    pub localpart: String,
    /// The name that a new account is to be shown by.
    pub display_name: Option<String>,
    /// Whether an account that is there already, with this localpart, becomes theirs.
    pub take_over: bool,
    /// Whether an account is made where there is none.
    pub create: bool,
}

/// Somebody who has signed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsoLogin {
    /// Whose account.
    pub user: OwnedUserId,
    /// The token with which a client logs in.
    pub login_token: String,
}

/// Why nobody was signed on.
#[derive(Debug, thiserror::Error)]
pub enum SsoError {
    /// The service's name of them makes no user ID.
    #[error("{0}")]
    Username(#[from] InvalidUsername),
    /// Others have the name, and those like it.
    #[error("the name {0} is taken")]
    Taken(String),
    /// No account is theirs, and none is to be made.
    #[error("no account on this server belongs to you")]
    NoAccount,
    /// Their account was given up.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// The account of somebody whom another service knows, if they have one.
///
/// # Errors
/// Where the store fails.
pub async fn linked_user(
    accounts: &Accounts,
    (provider, subject): (&str, &str),
) -> millrace_store::Result<Option<OwnedUserId>> {
    let link = accounts.env.store.snapshot().get(&SSO_LINKS, provider, subject).await?;
    Ok(link.map(|link| link.user))
}

/// Signs somebody on, with a token for their client; makes their account where they come for the
/// first time.
///
/// # Errors
/// As [`SsoError`] says.
pub async fn log_in_by_sso(
    accounts: &Accounts,
    identity: &SsoIdentity,
) -> Result<SsoLogin, SsoError> {
    let names = candidates(accounts, &identity.localpart)?;
    let (names, SsoIdentity { provider, subject, .. }) = (&names, identity);
    let write = |tx: Tx| {
        async move {
            let user = match tx.get(&SSO_LINKS, provider, subject).await? {
                Some(link) => link.user,
                None => {
                    let user = find_or_create(accounts, &tx, identity, names).await?;
                    let link = SsoLink { user: user.clone() };
                    tx.put(&SSO_LINKS, provider, subject, &link);
                    tx.put(&SSO_SUBJECTS, &user, (provider, subject), &());
                    user
                }
            };
            let account = tx.get(&ACCOUNTS, &user, ()).await?;
            if account.is_none_or(|account| account.deactivated.is_some()) {
                return Err(SsoError::Deactivated);
            }
            let (login_token, hash) = new_token(&accounts.env, TokenKind::Login);
            let lifetime = accounts.settings.lifetimes.login_token;
            let expires_ms = expiry_ms(accounts.now_ms(), lifetime);
            let row = LoginToken { user: user.clone(), device: None, expires_ms };
            tx.put(&LOGIN_TOKENS, hash, (), &row);
            Ok(SsoLogin { user, login_token })
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

async fn find_or_create(
    accounts: &Accounts,
    tx: &Tx,
    identity: &SsoIdentity,
    names: &[OwnedUserId],
) -> Result<OwnedUserId, SsoError> {
    let taken = || SsoError::Taken(identity.localpart.clone());
    let wanted = names.first().ok_or_else(taken)?;
    if identity.take_over && tx.get(&ACCOUNTS, wanted, ()).await?.is_some() {
        return Ok(wanted.clone());
    }
    if !identity.create {
        return Err(SsoError::NoAccount);
    }
    for user in names.iter().filter(|user| !accounts.reserved.is_reserved(user)) {
        if tx.get(&ACCOUNTS, user, ()).await?.is_none() {
            create(accounts, tx, user, identity);
            return Ok(user.clone());
        }
    }
    Err(taken())
}

/// An account without a password: nobody logs in to it but by signing on.
fn create(accounts: &Accounts, tx: &Tx, user: &UserId, identity: &SsoIdentity) {
    let account = Account { created_ms: accounts.now_ms(), ..Account::default() };
    tx.put(&ACCOUNTS, user, (), &account);
    let name = identity.display_name.as_deref().unwrap_or(user.localpart());
    tx.put(&PROFILES, user, "displayname", &serde_json::Value::from(name).to_string());
}

/// The user IDs that a localpart may become, the nearest first. What no user ID has is written as
/// its bytes (appendices, "Mapping from other character sets").
fn candidates(accounts: &Accounts, localpart: &str) -> Result<Vec<OwnedUserId>, SsoError> {
    let mut name = String::with_capacity(localpart.len());
    for c in localpart.trim().to_lowercase().chars() {
        if matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/' | '+') {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            name.extend(bytes.map(|byte| format!("={byte:02x}")));
        }
    }
    let server = &accounts.env.identity.name;
    let first = parse_username(&name, server)?;
    let others = (2..=NAMES_TRIED).map(|n| parse_username(&format!("{name}{n}"), server));
    Ok([Ok(first)].into_iter().chain(others).filter_map(Result::ok).collect())
}
