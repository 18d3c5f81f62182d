//! What the server itself has to say to its users.

use ruma::OwnedMxcUri;
use serde::{Deserialize, Serialize};

use super::Problems;

/// The table `server_notices`. Without `localpart` there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerNotices {
    /// The local part of the user who sends them, which nobody else may have.
    pub localpart: Option<String>,
    /// That user's name.
    pub display_name: String,
    /// That user's picture.
    pub avatar_url: Option<OwnedMxcUri>,
    /// The name of the rooms.
    pub room_name: String,
    /// Their topic.
    pub room_topic: Option<String>,
    /// Their picture.
    pub room_avatar_url: Option<OwnedMxcUri>,
}

impl Default for ServerNotices {
    fn default() -> Self {
        Self {
            localpart: None,
            display_name: "Server Notices".to_owned(),
            avatar_url: None,
            room_name: "Server Notices".to_owned(),
            room_topic: None,
            room_avatar_url: None,
        }
    }
}

impl ServerNotices {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._=/+".contains(c);
        let is_name = |name: &String| !name.is_empty() && name.chars().all(allowed);
        let valid = self.localpart.as_ref().is_none_or(is_name);
        problems.require(valid, "server_notices.localpart", "must be the local part of a user ID");
    }
}
