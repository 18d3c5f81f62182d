//! Other servers.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

/// Whether and with whom this server federates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federation {
    /// Whether other servers may be talked to at all.
    pub allow_federation: bool,
    /// Servers that are asked for the keys of others.
    pub trusted_servers: Vec<OwnedServerName>,
}

impl Default for Federation {
    fn default() -> Self {
        let notary = "matrix.org".try_into().expect("a valid server name");
        Self { allow_federation: true, trusted_servers: vec![notary] }
    }
}
