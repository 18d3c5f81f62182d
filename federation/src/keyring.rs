//! The signing keys of other servers (spec: Server-Server API, Retrieving server keys).

use std::{collections::BTreeMap, sync::Arc};

use lru::LruCache;
use millrace_domain::Env;
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId,
    ServerName,
    api::federation::discovery::{ServerSigningKeys, get_server_keys},
    serde::{Base64, Raw},
    signatures::{self, PublicKeyMap, PublicKeySet},
};

use crate::peers::{PeerError, Peers};

/// Servers whose keys are kept in memory.
const SERVERS_KEPT: usize = 10_000;

/// Why a server's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It could not be asked.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// What it published is not what it may publish.
    #[error("the keys of {server} cannot be used: {reason}")]
    Invalid {
        /// The server.
        server: OwnedServerName,
        /// What is wrong.
        reason: String,
    },
    /// It does not have the key.
    #[error("{server} has no valid key {key}")]
    Unknown {
        /// The server.
        server: OwnedServerName,
        /// The key that was looked for.
        key: OwnedServerSigningKeyId,
    },
}

/// What one server has published.
#[derive(Debug, Clone)]
struct Published {
    keys: BTreeMap<OwnedServerSigningKeyId, Base64>,
    valid_until: MilliSecondsSinceUnixEpoch,
}

/// Public keys of servers, fetched when they are first needed. Clones share what is known.
#[derive(Clone)]
pub struct Keyring {
    env: Env,
    peers: Peers,
    known: Arc<Mutex<LruCache<OwnedServerName, Published>>>,
}

impl Keyring {
    /// An empty keyring that asks `peers`.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(env: Env, peers: Peers) -> Self {
        let kept = SERVERS_KEPT.try_into().expect("not zero");
        Self { env, peers, known: Arc::new(Mutex::new(LruCache::new(kept))) }
    }

    /// The key of `server` with this ID, valid now, in the form that ruma verifies with.
    ///
    /// # Errors
    /// Where the server cannot be asked or does not have the key.
    pub async fn key(
        &self,
        server: &ServerName,
        key: &OwnedServerSigningKeyId,
    ) -> Result<PublicKeyMap, KeyError> {
        let unknown = || KeyError::Unknown { server: server.to_owned(), key: key.clone() };
        let found = match self.known_key(server, key) {
            Some(found) => found,
            None => {
                let published = self.fetch(server).await?;
                let found = published.keys.get(key).cloned().ok_or_else(unknown)?;
                self.known.lock().put(server.to_owned(), published);
                found
            }
        };
        let keys: PublicKeySet = [(key.to_string(), found)].into();
        Ok([(server.to_string(), keys)].into())
    }

    fn known_key(&self, server: &ServerName, key: &OwnedServerSigningKeyId) -> Option<Base64> {
        if server == self.env.identity.name {
            let ours = key.as_str() == self.env.identity.key.key_id().as_str();
            return ours.then(|| Base64::new(self.env.identity.key.public_bytes().to_vec()));
        }
        let mut known = self.known.lock();
        let published = known.get(server)?;
        if published.valid_until <= self.env.now() {
            return None;
        }
        published.keys.get(key).cloned()
    }

    async fn fetch(&self, server: &ServerName) -> Result<Published, KeyError> {
        let request = get_server_keys::v2::Request::new();
        let answer = self.peers.ask_unsigned(server, request).await?;
        published(server, &answer.server_key)
            .map_err(|reason| KeyError::Invalid { server: server.to_owned(), reason })
    }
}

/// Checks that what a server published names it and is signed with each of its keys.
fn published(server: &ServerName, raw: &Raw<ServerSigningKeys>) -> Result<Published, String> {
    let keys = raw.deserialize().map_err(|error| error.to_string())?;
    if keys.server_name != server {
        return Err(format!("they are those of {}", keys.server_name));
    }
    let object: CanonicalJsonObject =
        serde_json::from_str(raw.json().get()).map_err(|error| error.to_string())?;
    let verify_keys: BTreeMap<_, _> =
        keys.verify_keys.into_iter().map(|(id, key)| (id, key.key)).collect();
    let own: PublicKeySet =
        verify_keys.iter().map(|(id, key)| (id.to_string(), key.clone())).collect();
    signatures::verify_json(&[(server.to_string(), own)].into(), &object)
        .map_err(|error| error.to_string())?;
    Ok(Published { keys: verify_keys, valid_until: keys.valid_until_ts })
}
