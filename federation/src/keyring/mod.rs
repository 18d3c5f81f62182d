//! The signing keys of servers (spec: Server-Server API, Retrieving server keys).
//!
//! Keys are learnt when they are first needed, from their server or from a notary, kept in the
//! database for ever, and asked for again when half of the time is over for which they are valid.

mod fetch;
mod key_set;
mod notary;
mod published;

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use lru::LruCache;
use millrace_domain::Env;
use millrace_store::{
    Node, Read,
    rows::federation::{ServerKey, ServerKeys},
    tables::SERVER_KEYS,
};
use parking_lot::Mutex;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet},
};

use self::fetch::Fetcher;
pub use self::{
    key_set::{KeySet, WantedKeys},
    notary::TellError,
};
use crate::peers::Peers;

/// Servers whose keys are kept in memory.
const SERVERS_KEPT: usize = 10_000;
/// Servers that one caller asks at once.
const FETCHES_AT_ONCE: usize = 64;
/// As many servers as are asked themselves; where the keys of more are wanted at once, the notaries
/// are asked first.
const FEW: usize = 8;

/// Why a request's key cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{server} has no valid key {key}, or cannot be asked for it")]
pub struct KeyError {
    /// The server.
    pub server: OwnedServerName,
    /// The key that was looked for.
    pub key: OwnedServerSigningKeyId,
}

/// A key that we signed with in the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey {
    /// Its ID.
    pub id: OwnedServerSigningKeyId,
    /// The public key.
    pub key: Base64,
    /// When we signed with it last.
    pub expired: MilliSecondsSinceUnixEpoch,
}

/// Public keys of servers. Clones share what is known.
#[derive(Clone)]
pub struct Keyring(Arc<KeyringParts>);

struct KeyringParts {
    env: Env,
    ours: Arc<ServerKeys>,
    fetcher: Fetcher,
    known: Known,
}

/// What is in memory.
#[derive(Clone)]
struct Known(Arc<Mutex<LruCache<OwnedServerName, Arc<ServerKeys>>>>);

impl Known {
    fn find(&self, server: &ServerName) -> Option<Arc<ServerKeys>> {
        self.0.lock().get(server).cloned()
    }

    fn keep(&self, server: OwnedServerName, keys: Arc<ServerKeys>) {
        self.0.lock().put(server, keys);
    }
}

impl Keyring {
    /// A keyring that asks `peers` and `notaries` for what the database does not have. `old` are the
    /// keys that we had before.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(env: Env, peers: Peers, notaries: Vec<OwnedServerName>, old: &[OldKey]) -> Self {
        let kept = SERVERS_KEPT.try_into().expect("not zero");
        let known = Known(Arc::new(Mutex::new(LruCache::new(kept))));
        let fetcher = Fetcher::new(env.clone(), peers, notaries, known.clone());
        let ours = Arc::new(our_keys(&env, old));
        Self(Arc::new(KeyringParts { env, ours, fetcher, known }))
    }

    /// The key of `server` with this ID, valid now, in the form that ruma verifies with: to check
    /// who sent a request. A server that did not answer is asked again after two minutes at most.
    ///
    /// # Errors
    /// Where the server cannot be asked or does not have the key.
    pub async fn key(
        &self,
        server: &ServerName,
        key: &OwnedServerSigningKeyId,
    ) -> Result<PublicKeyMap, KeyError> {
        let now = self.0.env.now();
        let mut wanted = WantedKeys::default();
        wanted.add(server, key, now);
        let found = self.keys(&wanted).await;
        let found = found.find(server, key).filter(|found| found.until >= now);
        let found =
            found.ok_or_else(|| KeyError { server: server.to_owned(), key: key.clone() })?;
        let keys: PublicKeySet = [(key.to_string(), found.key.clone())].into();
        Ok([(server.to_string(), keys)].into())
    }

    /// As many of the wanted keys as can be had, from memory, the database, and other servers.
    pub async fn keys(&self, wanted: &WantedKeys) -> KeySet {
        let mut set = self.kept(wanted).await;
        let mut lacking: Vec<OwnedServerName> = Vec::new();
        for server in wanted.0.keys().filter(|server| **server != self.0.env.identity.name) {
            match set.0.get(server) {
                Some(known) if wanted.satisfied_by(server, known) => {
                    self.0.fetcher.refresh_if_due(server, known);
                }
                _ => lacking.push(server.clone()),
            }
        }
        if lacking.len() > FEW {
            for (server, keys) in self.0.fetcher.ask_notaries(&lacking, wanted).await {
                set.0.insert(server, keys);
            }
            let lacks = |server: &OwnedServerName| {
                !set.0.get(server).is_some_and(|known| wanted.satisfied_by(server, known))
            };
            lacking.retain(lacks);
        }
        let fetches = lacking.into_iter().map(|server| async {
            let known = set.0.get(&server).cloned();
            let fetched = self.0.fetcher.fetch(&server, known.as_deref()).await;
            (server, fetched)
        });
        let fetched: Vec<_> =
            futures::stream::iter(fetches).buffer_unordered(FETCHES_AT_ONCE).collect().await;
        for (server, keys) in fetched {
            if let Some(keys) = keys {
                set.0.insert(server, keys);
            }
        }
        set
    }

    /// What memory and database have.
    async fn kept(&self, wanted: &WantedKeys) -> KeySet {
        let mut set = KeySet::default();
        let mut absent = Vec::new();
        for server in wanted.0.keys() {
            if *server == self.0.env.identity.name {
                set.0.insert(server.clone(), Arc::clone(&self.0.ours));
            } else if let Some(keys) = self.0.known.find(server) {
                set.0.insert(server.clone(), keys);
            } else {
                absent.push(server.clone());
            }
        }
        if absent.is_empty() {
            return set;
        }
        let snapshot = self.0.env.store.snapshot();
        match snapshot.get_many(&SERVER_KEYS, Node, &absent).await {
            Ok(rows) => {
                for (server, row) in absent.into_iter().zip(rows) {
                    let Some(row) = row else { continue };
                    let keys = Arc::new(row);
                    self.0.known.keep(server.clone(), Arc::clone(&keys));
                    set.0.insert(server, keys);
                }
            }
            Err(error) => tracing::error!(%error, "keys of servers cannot be read"),
        }
        set
    }
}

fn our_keys(env: &Env, old: &[OldKey]) -> ServerKeys {
    let mut keys: BTreeMap<_, _> = old
        .iter()
        .map(|old| (old.id.clone(), ServerKey { key: old.key.clone(), until: old.expired }))
        .collect();
    let forever = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
    let key = Base64::new(env.identity.key.public_bytes().to_vec());
    if let Ok(id) = OwnedServerSigningKeyId::try_from(env.identity.key.key_id().as_str()) {
        keys.insert(id, ServerKey { key, until: forever });
    }
    ServerKeys { fetched: env.now(), valid_until: forever, keys }
}

#[cfg(test)]
mod tests;
