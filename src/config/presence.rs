//! Whether users see who is online.

use serde::{Deserialize, Serialize};

/// Presence of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether local users see each other's presence.
    pub allow_local_presence: bool,
    /// Whether other servers are told of the presence of users of this one.
    pub allow_outgoing_presence: bool,
}

impl Default for Presence {
    fn default() -> Self {
        Self { allow_local_presence: true, allow_outgoing_presence: true }
    }
}
