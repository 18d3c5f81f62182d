//! What operations take from outside: the store, the clock, randomness, and who we are.

use std::sync::Arc;

use millrace_model::rules::signing_key::ServerSigningKey;
use millrace_store::Store;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, RoomVersionId,
    room_version_rules::RoomVersionRules,
};

/// Tells the time. Simulated in tests.
pub trait Clock: Send + Sync + 'static {
    /// Now, in milliseconds since 1970.
    fn now(&self) -> MilliSecondsSinceUnixEpoch;
}

/// Gives random bytes. Seeded in tests.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}

/// The name and key under which this server speaks.
#[derive(Debug)]
pub struct Identity {
    /// The configured `server_name`.
    pub name: OwnedServerName,
    /// Signs our events.
    pub key: ServerSigningKey,
}

/// What a room version means; `None` for one that is not known. That is
/// [`millrace_model::rules::room_version::rules`], but where a test breaks a rule.
pub type Rulebook = fn(&RoomVersionId) -> Option<&'static RoomVersionRules>;

/// The world outside of the domain. Holds no services; clones are cheap.
#[derive(Clone)]
pub struct Env {
    /// Everything the server remembers.
    pub store: Store,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random bytes.
    pub random: Arc<dyn Random>,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// By which rules rooms are judged.
    pub rules: Rulebook,
}

impl Env {
    /// Now.
    #[must_use]
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        self.clock.now()
    }

    /// A random text of `len` letters and digits, for identifiers and secrets: close to 6 bits
    /// each.
    #[must_use]
    pub fn random_text(&self, len: usize) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";
        let mut bytes = vec![0; len];
        self.random.fill(&mut bytes);
        bytes.into_iter().map(|byte| char::from(LETTERS[usize::from(byte % 64)])).collect()
    }

    /// Whether `user` belongs to this server.
    #[must_use]
    pub fn is_local(&self, user: &ruma::UserId) -> bool {
        user.server_name() == self.identity.name
    }
}
