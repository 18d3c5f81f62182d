//! Registration by tools that know a secret of the server, as Synapse's admin API has it
//! (`/_synapse/admin/v1/register`).

use std::{num::NonZeroUsize, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use lru::LruCache;
use parking_lot::Mutex;
use sha1::Sha1;

use super::{Accounts, expiry_ms};

/// How long a nonce can be used.
const NONCE_LIFETIME: Duration = Duration::from_mins(1);
/// Nonces remembered at once; beyond, the oldest is forgotten.
const NONCES_MAX: NonZeroUsize = NonZeroUsize::new(1000).expect("not zero");
const NONCE_LEN: usize = 40;

/// Nonces given out, each with the time of its end in milliseconds since 1970.
#[derive(Debug)]
pub struct Nonces(Mutex<LruCache<String, u64>>);

impl Default for Nonces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NONCES_MAX)))
    }
}

impl Nonces {
    /// A new nonce, good for one registration within a minute.
    #[must_use]
    pub fn issue(accounts: &Accounts) -> String {
        let nonce = accounts.env.random_text(NONCE_LEN);
        let end = expiry_ms(accounts.now_ms(), NONCE_LIFETIME);
        accounts.nonces.0.lock().put(nonce.clone(), end);
        nonce
    }

    fn spend(&self, nonce: &str, now_ms: u64) -> bool {
        self.0.lock().pop(nonce).is_some_and(|end| now_ms < end)
    }
}

/// What a tool sends, apart from what does not count for the proof.
#[derive(Debug, Clone, Copy)]
pub struct SharedSecretRequest<'a> {
    /// A nonce of ours.
    pub nonce: &'a str,
    /// The name as sent, in whatever case.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
    /// Whether the account is to be an administrator's.
    pub admin: bool,
    /// As `Account::user_type`.
    pub user_type: Option<&'a str>,
    /// HMAC-SHA1 over the fields joined by NUL, in hexadecimal.
    pub mac: &'a str,
}

/// Why a tool may not register an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedSecretError {
    /// No secret is configured.
    #[error("shared secret registration is not enabled")]
    Disabled,
    /// The nonce was never given out, is used, or too old.
    #[error("unrecognised nonce")]
    Nonce,
    /// A field has a NUL, which would make the proof ambiguous.
    #[error("username and password must not contain NUL")]
    Nul,
    /// The proof does not fit.
    #[error("the HMAC is incorrect")]
    Proof,
}

/// Checks that whoever sent `request` knows the secret, and spends the nonce.
///
/// # Errors
/// As [`SharedSecretError`] says.
pub fn check_shared_secret(
    accounts: &Accounts,
    request: &SharedSecretRequest<'_>,
) -> Result<(), SharedSecretError> {
    let SharedSecretRequest { nonce, username, password, admin, user_type, mac } = *request;
    let secret = accounts.settings.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
    if !accounts.nonces.spend(nonce, accounts.now_ms()) {
        return Err(SharedSecretError::Nonce);
    }
    if username.contains('\0') || password.contains('\0') {
        return Err(SharedSecretError::Nul);
    }
    let admin = if admin { "admin" } else { "notadmin" };
    let fields = [nonce, username, password, admin].into_iter().chain(user_type);
    let mut proof = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    proof.update(fields.collect::<Vec<_>>().join("\0").as_bytes());
    let given = from_hex(mac).ok_or(SharedSecretError::Proof)?;
    proof.verify_slice(&given).map_err(|_| SharedSecretError::Proof)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let bytes = text.as_bytes().chunks(2);
    bytes.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
