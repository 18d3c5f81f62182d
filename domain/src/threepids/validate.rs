//! Proving an address by the word that was sent to it.

use futures::FutureExt;
use millrace_store::{
    Read, Result as StoreResult, Tx,
    rows::threepid::{Purpose, ThreepidSession},
    tables::THREEPID_SESSIONS,
};
use ruma::thirdparty::Medium;

use super::{Address, session};
use crate::accounts::{Accounts, hash_token};

/// An address that was proved, and by which session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The address.
    pub address: Address,
    /// When, in milliseconds since 1970.
    pub validated_ms: u64,
    /// The session, which is to be used up.
    pub sid: String,
}

/// What a word that came back belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validating {
    /// What the proof is for.
    pub purpose: Purpose,
    /// Where the user wants to go now.
    pub next_link: Option<String>,
}

/// Why an address was not proved.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The session is unknown, over, or used up; or the word is not one of its own.
    #[error("the link is not valid any more")]
    Unknown,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// What the link with this word leads to; changes nothing.
///
/// # Errors
/// [`ValidateError::Unknown`] where it leads to nothing.
pub async fn peek(
    accounts: &Accounts,
    sid: &str,
    token: &str,
) -> Result<Validating, ValidateError> {
    let session = accounts.env.store.snapshot().get(&THREEPID_SESSIONS, sid, ()).await?;
    let session = session.filter(|session| is_good(accounts, session, token));
    session.map(validating).ok_or(ValidateError::Unknown)
}

/// Takes the word that was sent to an address. Repeating it is harmless.
///
/// # Errors
/// [`ValidateError::Unknown`] where it is not the word.
pub async fn validate(
    accounts: &Accounts,
    sid: &str,
    token: &str,
) -> Result<Validating, ValidateError> {
    let write = |tx: Tx| {
        async move {
            let session = tx.get(&THREEPID_SESSIONS, sid, ()).await?;
            let session = session.filter(|session| is_good(accounts, session, token));
            let mut session = session.ok_or(ValidateError::Unknown)?;
            session.validated_ms.get_or_insert(accounts.now_ms());
            tx.put(&THREEPID_SESSIONS, sid, (), &session);
            Ok(validating(session))
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

fn validating(session: ThreepidSession) -> Validating {
    Validating { purpose: session.purpose, next_link: session.next_link }
}

fn is_good(accounts: &Accounts, session: &ThreepidSession, token: &str) -> bool {
    // The words are long and random: their hashes can be compared in whatever time it takes.
    session.expires_ms > accounts.now_ms() && session.tokens.contains(&hash_token(token))
}

/// The session of the service that sent the message, for a client that knows the secret.
///
/// # Errors
/// Where the store fails.
pub async fn remote_session(
    accounts: &Accounts,
    sid: &str,
    client_secret: &str,
) -> StoreResult<Option<String>> {
    let session = accounts.env.store.snapshot().get(&THREEPID_SESSIONS, sid, ()).await?;
    let good = |session: &ThreepidSession| {
        session.expires_ms > accounts.now_ms() && session.client_secret == hash_token(client_secret)
    };
    Ok(session.filter(good).and_then(|session| session.remote))
}

/// Notes that the service that sent the message had the right word.
///
/// # Errors
/// Where the store fails.
pub async fn note_validated(accounts: &Accounts, sid: &str) -> StoreResult<()> {
    let now_ms = accounts.now_ms();
    let note = |session: &mut ThreepidSession| {
        session.validated_ms.get_or_insert(now_ms);
    };
    session::change(accounts, sid, note).await
}

/// What a session has proved for a purpose, to the client that began it.
pub(crate) async fn proved(
    accounts: &Accounts,
    read: &impl Read,
    purpose: Purpose,
    (sid, client_secret): (&str, &str),
) -> StoreResult<Option<Proved>> {
    let Some(session) = read.get(&THREEPID_SESSIONS, sid, ()).await? else { return Ok(None) };
    let good = session.purpose == purpose
        && session.expires_ms > accounts.now_ms()
        && session.client_secret == hash_token(client_secret);
    let Some(validated_ms) = session.validated_ms.filter(|_| good) else { return Ok(None) };
    let medium = Medium::from(&*session.medium);
    let address = Address::of(&medium, &session.address).ok();
    Ok(address.map(|address| Proved { address, validated_ms, sid: sid.to_owned() }))
}
