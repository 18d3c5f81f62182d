//! One application service, as its registration describes it.

use std::path::PathBuf;

use millrace_domain::accounts::hash_token;
use millrace_store::rows::account::TokenHash;
use ruma::{OwnedUserId, RoomAliasId, RoomId, UserId};
use url::Url;

use super::{Namespace, Namespaces};

/// Where a registration came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that the configuration names, or one of its folder.
    File(PathBuf),
    /// A command of an administrator.
    Command,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Command => f.write_str("a registration by command"),
        }
    }
}

/// An application service.
#[derive(Clone)]
pub struct Service {
    /// Its ID, which never changes.
    pub id: String,
    /// Where it is; none where it is only to ask, and is told nothing.
    pub url: Option<Url>,
    /// The token by which we know it.
    pub(crate) as_token: TokenHash,
    /// The token by which it knows us.
    pub(crate) hs_token: String,
    /// The user in whose name it asks where it names none.
    pub sender: OwnedUserId,
    /// What it is interested in.
    pub namespaces: Namespaces,
    /// Whether requests in the names of its users are counted; its sender's never are.
    pub rate_limited: bool,
    /// The networks that it leads to.
    pub protocols: Vec<String>,
    /// What it is told beside events.
    pub told: Told,
    /// Where the registration came from.
    pub source: Source,
}

/// What a service is told beside events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Typing, receipts and presence, as `ephemeral`.
    pub ephemeral: bool,
    /// The same under the name that it had before it was specified (MSC2409).
    pub unstable_ephemeral: bool,
    /// Changes of devices, and how many one-time keys are left (MSC3202).
    pub encryption: bool,
}

impl Told {
    /// Whether it is told what is not durable.
    pub(crate) const fn any_ephemeral(self) -> bool {
        self.ephemeral || self.unstable_ephemeral
    }

    /// Whether it is sent what is sent to the devices of its users (MSC4203).
    pub(crate) const fn to_device(self) -> bool {
        self.any_ephemeral() || self.encryption
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the tokens.
        f.debug_struct("Service").field("id", &self.id).field("sender", &self.sender).finish()
    }
}

impl Service {
    /// The hash of a token, as [`super::Registry::by_token`] wants it.
    pub(crate) fn hash(token: &str) -> TokenHash {
        hash_token(token)
    }

    /// Whether it may ask in the name of a user, and is interested in them: its sender, and users of
    /// this server in its namespaces.
    #[must_use]
    pub fn has_user(&self, user: &UserId) -> bool {
        user == self.sender || (self.is_ours(user) && holds(&self.namespaces.users, user.as_str()))
    }

    /// Whether a user is the service's alone: its sender, and those in exclusive namespaces.
    #[must_use]
    pub fn keeps_user(&self, user: &UserId) -> bool {
        user == self.sender || (self.is_ours(user) && keeps(&self.namespaces.users, user.as_str()))
    }

    /// Whether an alias is in one of its namespaces.
    #[must_use]
    pub fn has_alias(&self, alias: &RoomAliasId) -> bool {
        holds(&self.namespaces.aliases, alias.as_str())
    }

    /// Whether an alias is the service's alone.
    #[must_use]
    pub fn keeps_alias(&self, alias: &RoomAliasId) -> bool {
        keeps(&self.namespaces.aliases, alias.as_str())
    }

    /// Whether a room is in one of its namespaces.
    #[must_use]
    pub fn has_room(&self, room: &RoomId) -> bool {
        holds(&self.namespaces.rooms, room.as_str())
    }

    fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == self.sender.server_name()
    }
}

fn holds(namespaces: &[Namespace], name: &str) -> bool {
    namespaces.iter().any(|namespace| namespace.holds(name))
}

fn keeps(namespaces: &[Namespace], name: &str) -> bool {
    namespaces.iter().any(|namespace| namespace.exclusive && namespace.holds(name))
}
