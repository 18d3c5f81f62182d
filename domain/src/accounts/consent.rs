//! What users have agreed to: the documents of the configuration, each in one version.
//!
//! Where the configuration wants it, who has not agreed to the present versions may read and leave, and
//! does nothing that others see, until they have agreed on a page of this server, which they reach by a
//! link that nobody else has.

use std::{collections::BTreeMap, num::NonZeroUsize};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use lru::LruCache;
use millrace_store::{
    Read, Result, Tx,
    rows::account::Consent,
    tables::{ACCOUNTS, CONSENTS},
};
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, signatures::KeyPair};
use sha2::Sha256;

use super::Accounts;

/// Users who have agreed and are remembered, so that what they do costs no look.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// Users of whom it is known that they have agreed to all documents.
#[derive(Debug)]
pub struct Agreed(Mutex<LruCache<OwnedUserId, ()>>);

impl Default for Agreed {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED_MAX)))
    }
}

/// Whether a user has agreed to all documents in their present versions. Accounts that are no people
/// need not.
///
/// # Errors
/// Where the store fails.
pub async fn has_agreed(accounts: &Accounts, user: &UserId) -> Result<bool> {
    if accounts.agreed.0.lock().get(user).is_some() {
        return Ok(true);
    }
    let snapshot = accounts.env.store.snapshot();
    let consent = snapshot.get(&CONSENTS, user, ()).await?.unwrap_or_default();
    let given = |id: &str, version: &str| {
        consent.documents.get(id).is_some_and(|(agreed, _)| agreed == version)
    };
    let mut agreed = versions(accounts).iter().all(|(id, version)| given(id, version));
    if !agreed {
        let account = snapshot.get(&ACCOUNTS, user, ()).await?;
        agreed = account.is_some_and(|account| account.user_type.is_some());
    }
    if agreed {
        accounts.agreed.0.lock().put(user.to_owned(), ());
    }
    Ok(agreed)
}

/// Notes that a user agrees to all documents in their present versions.
///
/// # Errors
/// Where the store fails.
pub async fn agree(accounts: &Accounts, user: &UserId) -> Result<()> {
    let write = |tx: Tx| async move { note_agreed(accounts, &tx, user).await }.boxed();
    accounts.env.store.transact(write).await
}

/// As [`agree`], within a transaction.
pub(super) async fn note_agreed(accounts: &Accounts, tx: &Tx, user: &UserId) -> Result<()> {
    let mut consent: Consent = tx.get(&CONSENTS, user, ()).await?.unwrap_or_default();
    for (id, version) in versions(accounts) {
        let now_ms = accounts.now_ms();
        consent.documents.insert(id.to_owned(), (version.to_owned(), now_ms));
    }
    tx.put(&CONSENTS, user, (), &consent);
    Ok(())
}

/// The documents' present versions. One in several languages has one version.
fn versions(accounts: &Accounts) -> BTreeMap<&str, &str> {
    let terms = accounts.settings.terms.iter();
    terms.map(|policy| (&*policy.id, &*policy.version)).collect()
}

/// The word in a user's link to the page, which nobody else can make.
#[must_use]
pub fn consent_word(accounts: &Accounts, user: &UserId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(mac(accounts, user).finalize().into_bytes())
}

/// Whether a word is that of the user's link.
#[must_use]
pub fn is_consent_word(accounts: &Accounts, user: &UserId, word: &str) -> bool {
    let word = BASE64_URL_SAFE_NO_PAD.decode(word);
    word.is_ok_and(|word| mac(accounts, user).verify_slice(&word).is_ok())
}

/// The server has no other secret than its signing key: what that says of this purpose is one too.
fn mac(accounts: &Accounts, user: &UserId) -> Hmac<Sha256> {
    let secret = accounts.env.identity.key.sign(b"millrace: links to the page of consent");
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    mac.expect("a key may have any length").chain_update(user.as_bytes())
}
