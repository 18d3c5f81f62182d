//! Beginning to prove that somebody holds an address.

use futures::FutureExt;
use millrace_store::{
    Node, Read, Result as StoreResult, Scan, Tx,
    rows::threepid::{Purpose, ThreepidSession},
    tables::{THREEPID_SESSION_ENDS, THREEPID_SESSIONS},
};
use ruma::thirdparty::Medium;
use sha2::{Digest, Sha256};

use super::{Address, owner};
use crate::accounts::{Accounts, expiry_ms, hash_token};

/// Letters of a word that is sent to an address.
pub const TOKEN_LEN: usize = 32;
/// Words of one session that are good at the same time.
const TOKENS_MAX: usize = 5;
/// Sessions that ended, forgotten whenever one begins.
const FORGOTTEN_AT_ONCE: usize = 20;
/// The longest client secret (spec: 255 characters).
const SECRET_BYTES_MAX: usize = 255;
/// The longest address of a page to go on to.
const LINK_BYTES_MAX: usize = 2048;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// What the proof is to be for.
    pub purpose: Purpose,
    /// The address to be proved.
    pub address: Address,
    /// The client's secret.
    pub client_secret: &'a str,
    /// A number that the client raises to have another message sent.
    pub attempt: u64,
    /// Where its user wants to go afterwards.
    pub next_link: Option<&'a str>,
}

/// A session that began, or goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// This word is to be sent to the address, then [`note_sent`].
    Send {
        /// The session.
        sid: String,
        /// The word.
        token: String,
    },
    /// The message was sent already.
    Sent {
        /// The session.
        sid: String,
    },
    /// The address cannot be proved for this purpose, and the client is not to learn why: it is
    /// somebody's, or nobody's. Nothing was stored.
    Unsaid {
        /// What looks like a session.
        sid: String,
    },
}

/// Why no session began.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// No messages are sent to such addresses.
    #[error("this server cannot send messages to addresses of kind {0}")]
    Medium(Medium),
    /// The address is not allowed here.
    #[error("this address cannot be used on this server")]
    Denied,
    /// The address is somebody's.
    #[error("this address belongs to an account already")]
    InUse,
    /// The address is nobody's.
    #[error("no account has this address")]
    NotFound,
    /// The secret is empty or too long, or has other characters than the specification allows.
    #[error("client_secret must be 1 to 255 of 0-9, a-z, A-Z and . = _ -")]
    Secret,
    /// The page to go on to is no page.
    #[error("next_link must be an address of at most {LINK_BYTES_MAX} bytes that begins with http")]
    Link,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Begins a session, or goes on with the one that the same client has for the same address and
/// purpose.
///
/// # Errors
/// As [`BeginError`] says.
pub async fn begin(accounts: &Accounts, new: &NewSession<'_>) -> Result<Begun, BeginError> {
    check(accounts, new)?;
    let sid = &session_id(new);
    let owned = owner(&accounts.env.store.snapshot(), &new.address).await?.is_some();
    let refusal = match new.purpose {
        Purpose::Register | Purpose::Add if owned => Some(BeginError::InUse),
        Purpose::ResetPassword if !owned => Some(BeginError::NotFound),
        Purpose::Register | Purpose::Add | Purpose::ResetPassword => None,
    };
    if let Some(refusal) = refusal {
        let silent = accounts.settings.threepids.silent;
        return if silent { Ok(Begun::Unsaid { sid: sid.clone() }) } else { Err(refusal) };
    }
    let token = &accounts.env.random_text(TOKEN_LEN);
    let write = |tx: Tx| {
        async move {
            forget_ended(&tx, accounts.now_ms()).await?;
            let known = tx.get(&THREEPID_SESSIONS, sid, ()).await?;
            let known = known.filter(|known| known.expires_ms > accounts.now_ms());
            if known.as_ref().is_some_and(|known| known.attempt >= new.attempt) {
                return Ok::<_, millrace_store::Error>(Begun::Sent { sid: sid.clone() });
            }
            let mut session = known.unwrap_or_else(|| fresh(new));
            if session.tokens.len() >= TOKENS_MAX {
                session.tokens.remove(0);
            }
            session.tokens.push(hash_token(token));
            session.next_link = new.next_link.map(ToOwned::to_owned);
            session.expires_ms = expiry_ms(accounts.now_ms(), accounts.settings.threepids.lifetime);
            tx.put(&THREEPID_SESSIONS, sid, (), &session);
            tx.put(&THREEPID_SESSION_ENDS, Node, (session.expires_ms, sid), &());
            Ok(Begun::Send { sid: sid.clone(), token: token.clone() })
        }
        .boxed()
    };
    Ok(accounts.env.store.transact(write).await?)
}

fn check(accounts: &Accounts, new: &NewSession<'_>) -> Result<(), BeginError> {
    let settings = &accounts.settings.threepids;
    let medium = new.address.medium();
    if !settings.sends(medium) {
        return Err(BeginError::Medium(medium.clone()));
    }
    if !settings.allows(&new.address) {
        return Err(BeginError::Denied);
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte);
    let secret = new.client_secret;
    if secret.is_empty() || secret.len() > SECRET_BYTES_MAX || !secret.bytes().all(good) {
        return Err(BeginError::Secret);
    }
    let is_page = |link: &str| {
        let bad = |c: char| c.is_whitespace() || c.is_control();
        let web = link.starts_with("https://") || link.starts_with("http://");
        web && link.len() <= LINK_BYTES_MAX && !link.contains(bad)
    };
    if new.next_link.is_some_and(|link| !is_page(link)) {
        return Err(BeginError::Link);
    }
    Ok(())
}

fn fresh(new: &NewSession<'_>) -> ThreepidSession {
    ThreepidSession {
        medium: new.address.medium().to_string(),
        address: new.address.text().to_owned(),
        purpose: new.purpose,
        client_secret: hash_token(new.client_secret),
        tokens: Vec::new(),
        attempt: 0,
        next_link: None,
        remote: None,
        expires_ms: 0,
        validated_ms: None,
    }
}

/// The session's name, which tells nothing. The same client meets the same session.
fn session_id(new: &NewSession<'_>) -> String {
    let purpose = match new.purpose {
        Purpose::Register => "register",
        Purpose::Add => "add",
        Purpose::ResetPassword => "reset",
    };
    let parts = [purpose, new.address.medium().as_str(), new.address.text(), new.client_secret];
    let digest = Sha256::digest(parts.join("\n").as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Notes that the message of an attempt has left: it is not sent again for the same number.
///
/// # Errors
/// Where the store fails.
pub async fn note_sent(accounts: &Accounts, sid: &str, attempt: u64) -> StoreResult<()> {
    change(accounts, sid, |session| session.attempt = session.attempt.max(attempt)).await
}

/// Notes the session of the service that sends the messages.
///
/// # Errors
/// Where the store fails.
pub async fn note_remote(accounts: &Accounts, sid: &str, remote: &str) -> StoreResult<()> {
    change(accounts, sid, |session| session.remote = Some(remote.to_owned())).await
}

/// Changes a session, if it is still there.
pub(super) async fn change(
    accounts: &Accounts,
    sid: &str,
    change: impl Fn(&mut ThreepidSession) + Sync,
) -> StoreResult<()> {
    let change = &change;
    let write = |tx: Tx| {
        async move {
            if let Some(mut session) = tx.get(&THREEPID_SESSIONS, sid, ()).await? {
                change(&mut session);
                tx.put(&THREEPID_SESSIONS, sid, (), &session);
            }
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Deletes some sessions that have ended. One that went on has a later end of its own.
async fn forget_ended(tx: &Tx, now_ms: u64) -> StoreResult<()> {
    let ended = Scan::all().before((now_ms, "")).limit(FORGOTTEN_AT_ONCE);
    for ((end, sid), ()) in tx.unprotected().scan(&THREEPID_SESSION_ENDS, Node, ended).await? {
        let session = tx.get(&THREEPID_SESSIONS, &sid, ()).await?;
        if session.is_some_and(|session| session.expires_ms <= end) {
            tx.delete(&THREEPID_SESSIONS, &sid, ());
        }
        tx.delete(&THREEPID_SESSION_ENDS, Node, (end, &sid));
    }
    Ok(())
}
