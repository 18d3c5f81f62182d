//! Which keys are wanted, and those that were found.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millrace_store::rows::federation::{ServerKey, ServerKeys};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    ServerSigningKeyId,
};

/// The keys of servers that are needed, and until when each must be valid.
#[derive(Debug, Clone, Default)]
pub struct WantedKeys(pub(super) BTreeMap<OwnedServerName, KeyTimes>);

/// Until when each key of a server must be valid.
type KeyTimes = BTreeMap<OwnedServerSigningKeyId, MilliSecondsSinceUnixEpoch>;

impl WantedKeys {
    /// Wants the key of `server`, valid at `at`; 1970 where that does not matter.
    pub fn add(
        &mut self,
        server: &ServerName,
        key: &ServerSigningKeyId,
        at: MilliSecondsSinceUnixEpoch,
    ) {
        if !self.0.contains_key(server) {
            self.0.insert(server.to_owned(), BTreeMap::new());
        }
        let keys = self.0.get_mut(server).expect("just inserted");
        match keys.get_mut(key) {
            Some(until) => *until = at.max(*until),
            None => {
                keys.insert(key.to_owned(), at);
            }
        }
    }

    /// Whether `known` has all that is wanted of `server`.
    pub(super) fn satisfied_by(&self, server: &ServerName, known: &ServerKeys) -> bool {
        self.0
            .get(server)
            .into_iter()
            .flatten()
            .all(|(key, at)| known.keys.get(key).is_some_and(|known| known.until >= *at))
    }
}

/// Keys of servers, to verify with. It may hold more than was asked for, and less.
#[derive(Debug, Clone, Default)]
pub struct KeySet(pub(super) HashMap<OwnedServerName, Arc<ServerKeys>>);

impl KeySet {
    /// A server's key.
    #[must_use]
    pub fn find(&self, server: &ServerName, key: &ServerSigningKeyId) -> Option<&ServerKey> {
        self.0.get(server)?.keys.get(key)
    }
}
