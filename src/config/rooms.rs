//! What rooms are made of and who sees their directory.

use ruma::RoomVersionId;
use serde::{Deserialize, Serialize};

use super::Problems;

/// Defaults and permissions of rooms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms {
    /// Version of rooms whose creator asks for none.
    pub default_room_version: String,
    /// Whether users may list rooms in the directory.
    pub allow_room_publication: bool,
    /// Whether the directory may be read without an account.
    pub allow_public_rooms_without_auth: bool,
    /// Whether other servers may read the directory.
    pub allow_public_rooms_over_federation: bool,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            default_room_version: "12".to_owned(),
            allow_room_publication: true,
            allow_public_rooms_without_auth: false,
            allow_public_rooms_over_federation: false,
        }
    }
}

impl Rooms {
    /// The default version, parsed; none if it is not one of 1 to 12.
    #[must_use]
    pub fn default_version(&self) -> Option<RoomVersionId> {
        let number: u8 = self.default_room_version.parse().ok()?;
        (1..=12).contains(&number).then(|| number.to_string().as_str().try_into().ok()).flatten()
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let known = self.default_version().is_some();
        problems.require(known, "default_room_version", "must be one of \"1\" to \"12\"");
    }
}
