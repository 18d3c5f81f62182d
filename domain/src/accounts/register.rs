//! Creating accounts.

use futures::future::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::account::Account,
    tables::{ACCESS_TOKENS, ACCOUNTS, PROFILES},
};
use ruma::{OwnedUserId, UserId};

use super::{
    Accounts, InvalidUsername, Login, NewDevice,
    authenticate::is_over,
    consent::note_agreed,
    parse_username,
    password::HashError,
    registration_token,
    sessions::{self, all_devices},
    token::hash_token,
};
use crate::{
    Env,
    threepids::{self, InUse, Proved},
};

/// Letters of a name that we choose.
const CHOSEN_NAME_LEN: usize = 12;

/// What proves later that somebody owns the new account.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A password.
    Password(String),
    /// Nothing: the account is a guest's, and ends with its device.
    Guest,
    /// Nothing: it is an application service's, which names its users itself.
    Service,
}

/// An account to be created.
pub struct NewAccount {
    /// The localpart; none lets us choose.
    pub username: Option<String>,
    /// How its owner logs in.
    pub credentials: Credentials,
    /// The device to log in at once, if any.
    pub login: Option<NewDevice>,
    /// The name to be shown; none is the localpart.
    pub display_name: Option<String>,
    /// Whether the account may use the admin API.
    pub admin: bool,
    /// As `Account::user_type`.
    pub user_type: Option<String>,
    /// The registration token that was accepted, to be counted.
    pub registration_token: Option<String>,
    /// The addresses that were proved, which become the account's.
    pub threepids: Vec<Proved>,
    /// Whether the documents were agreed to.
    pub agreed: bool,
}

impl NewAccount {
    /// An ordinary account, logged in at once.
    #[must_use]
    pub fn new(username: Option<String>, credentials: Credentials, device: NewDevice) -> Self {
        Self {
            username,
            credentials,
            login: Some(device),
            display_name: None,
            admin: false,
            user_type: None,
            registration_token: None,
            threepids: Vec::new(),
            agreed: false,
        }
    }
}

/// An account that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its user ID.
    pub user: OwnedUserId,
    /// Its first session, if one was wanted.
    pub login: Option<Login>,
}

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name is outside of the grammar.
    #[error(transparent)]
    Username(#[from] InvalidUsername),
    /// Somebody has it, or had it.
    #[error("the user ID {0} is taken")]
    Taken(OwnedUserId),
    /// The name is in a namespace that only an application service fills.
    #[error("the user ID {0} is kept for an application service")]
    Reserved(OwnedUserId),
    /// The registration token was used up or ended meanwhile.
    #[error("the registration token is not valid any more")]
    RegistrationToken,
    /// An address that was proved has become another account's meanwhile.
    #[error("the address {0} belongs to an account already")]
    AddressTaken(String),
    /// To be upgraded, a guest names its own account by a good token of it.
    #[error("the guest access token does not belong to a guest of this name")]
    NotThatGuest,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The store failed.
    #[error("could not create the account")]
    Store(#[from] millrace_store::Error),
}

/// Checks that `name` could be registered now, and returns the user ID it would have.
///
/// # Errors
/// Where it could not.
pub async fn check_available(
    accounts: &Accounts,
    name: &str,
) -> Result<OwnedUserId, RegisterError> {
    let user = parse_username(name, &accounts.env.identity.name)?;
    if accounts.reserved.is_reserved(&user) {
        return Err(RegisterError::Reserved(user));
    }
    let account = accounts.env.store.snapshot().get(&ACCOUNTS, &user, ()).await?;
    if account.is_some() { Err(RegisterError::Taken(user)) } else { Ok(user) }
}

/// Creates an account, with its profile, and its first session if wanted.
///
/// # Errors
/// As [`RegisterError`] says; then nothing is created.
pub async fn register(accounts: &Accounts, new: NewAccount) -> Result<Registered, RegisterError> {
    let user = match &new.username {
        // What a service may name is told by its namespaces.
        Some(name) if new.credentials == Credentials::Service => {
            parse_username(name, &accounts.env.identity.name)?
        }
        Some(name) => check_available(accounts, name).await?,
        None => chosen_user(accounts)?,
    };
    let account = Account {
        password_hash: match &new.credentials {
            Credentials::Password(text) => {
                Some(accounts.passwords.hash(&accounts.env, text).await?)
            }
            Credentials::Guest | Credentials::Service => None,
        },
        created_ms: accounts.now_ms(),
        guest: new.credentials == Credentials::Guest,
        admin: new.admin,
        user_type: new.user_type.clone(),
        ..Account::default()
    };
    let (new, user, account) = (&new, &user, &account);
    let write = |tx: Tx| async move { create(accounts, &tx, user, account, new).await }.boxed();
    let login = accounts.env.store.transact(write).await?;
    Ok(Registered { user: user.clone(), login })
}

async fn create(
    accounts: &Accounts,
    tx: &Tx,
    user: &UserId,
    account: &Account,
    new: &NewAccount,
) -> Result<Option<Login>, RegisterError> {
    if tx.get(&ACCOUNTS, user, ()).await?.is_some() {
        return Err(RegisterError::Taken(user.to_owned()));
    }
    if let Some(token) = &new.registration_token
        && !registration_token::spend(accounts, tx, token).await?
    {
        return Err(RegisterError::RegistrationToken);
    }
    tx.put(&ACCOUNTS, user, (), account);
    for proof in &new.threepids {
        if threepids::claim(accounts, tx, user, proof).await? == Err(InUse) {
            return Err(RegisterError::AddressTaken(proof.address.text().to_owned()));
        }
    }
    if new.agreed {
        note_agreed(accounts, tx, user).await?;
    }
    let name = new.display_name.as_deref().unwrap_or(user.localpart());
    let json = serde_json::Value::from(name).to_string();
    tx.put(&PROFILES, user, "displayname", &json);
    Ok(match &new.login {
        Some(device) => Some(sessions::begin(accounts, tx, user, account, device).await?),
        None => None,
    })
}

/// Makes sure that there is an account of the user in whose name an application service asks.
///
/// # Errors
/// Where the store fails.
pub async fn create_service_user(env: &Env, user: &UserId) -> millrace_store::Result<()> {
    let write = |tx: Tx| {
        async move {
            if tx.get(&ACCOUNTS, user, ()).await?.is_none() {
                let created_ms = env.now().get().into();
                tx.put(&ACCOUNTS, user, (), &Account { created_ms, ..Account::default() });
                let name = serde_json::Value::from(user.localpart()).to_string();
                tx.put(&PROFILES, user, "displayname", &name);
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Turns the guest behind `guest_token` into an ordinary account, which keeps its name, rooms and
/// devices, and logs `device` in.
///
/// # Errors
/// [`RegisterError::NotThatGuest`] unless the token is a guest's of this very name.
pub async fn upgrade_guest(
    accounts: &Accounts,
    guest_token: &str,
    username: &str,
    password: &str,
    device: &NewDevice,
) -> Result<Login, RegisterError> {
    let user = &parse_username(username, &accounts.env.identity.name)?;
    let (token, now_ms) = (hash_token(guest_token), accounts.now_ms());
    let hash = &accounts.passwords.hash(&accounts.env, password).await?;
    let write = |tx: Tx| {
        async move {
            let row = tx.get(&ACCESS_TOKENS, token, ()).await?;
            let account = tx.get(&ACCOUNTS, user, ()).await?;
            let good = row.is_some_and(|row| row.user == *user && !is_over(row.expires_ms, now_ms));
            let account = account.filter(|account| good && account.guest);
            let account = account.ok_or(RegisterError::NotThatGuest)?;
            let account = Account { guest: false, password_hash: Some(hash.clone()), ..account };
            tx.put(&ACCOUNTS, user, (), &account);
            rewrite_tokens(&tx, user, &account).await?;
            Ok(sessions::begin(accounts, &tx, user, &account, device).await?)
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Writes what tokens say of the account into all that it has.
pub(super) async fn rewrite_tokens(
    tx: &Tx,
    user: &UserId,
    account: &Account,
) -> millrace_store::Result<()> {
    for (id, device) in all_devices(tx, user).await? {
        for hash in &device.access_tokens {
            if let Some(mut row) = tx.get(&ACCESS_TOKENS, hash, ()).await? {
                (row.guest, row.admin) = (account.guest, account.admin);
                (row.suspended, row.locked) = (account.suspended, account.locked);
                tx.put(&ACCESS_TOKENS, hash, (), &row);
            }
        }
        // A new token for this device, under way, has to see what changed.
        sessions::put_device(tx, user, &id, &device).await?;
    }
    Ok(())
}

fn chosen_user(accounts: &Accounts) -> Result<OwnedUserId, InvalidUsername> {
    let name = accounts.env.random_text(CHOSEN_NAME_LEN);
    parse_username(&name, &accounts.env.identity.name)
}
