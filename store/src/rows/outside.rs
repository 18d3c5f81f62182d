//! Rows of rooms that this server is not in, as its users have to do with them.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// Servers that know of a user's dealings with a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vias {
    /// Them, newest last.
    pub servers: Vec<OwnedServerName>,
}

serde_value!(Vias);
