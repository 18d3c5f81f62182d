//! Where calls find a TURN server.

use serde::{Deserialize, Serialize};

use super::Problems;

/// TURN servers and how users get in. Without `turn_uris` there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voip {
    /// The servers: `turn:` and `turns:` URIs.
    pub turn_uris: Vec<String>,
    /// The secret that the TURN servers share with this one.
    pub turn_secret: Option<String>,
    /// Instead of a secret: the name under which everybody gets in.
    pub turn_username: Option<String>,
    /// And the password.
    pub turn_password: Option<String>,
    /// How long users may use what they were told, in seconds.
    pub turn_ttl_s: u64,
    /// Whether guests are told too.
    pub turn_allow_guests: bool,
}

impl Default for Voip {
    fn default() -> Self {
        Self {
            turn_uris: Vec::new(),
            turn_secret: None,
            turn_username: None,
            turn_password: None,
            turn_ttl_s: 86_400,
            turn_allow_guests: false,
        }
    }
}

impl Voip {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let is_turn = |uri: &String| uri.starts_with("turn:") || uri.starts_with("turns:");
        let all = self.turn_uris.iter().all(is_turn);
        problems.require(all, "turn_uris", "must start with turn: or turns:");
        let whole = self.turn_username.is_some() == self.turn_password.is_some();
        problems.require(whole, "turn_username", "needs turn_password, and the other way round");
        let has_way = self.turn_secret.is_some() || self.turn_username.is_some();
        let reachable = self.turn_uris.is_empty() || has_way;
        problems.require(reachable, "turn_uris", "need turn_secret, or a name and a password");
        problems.require(self.turn_ttl_s > 0, "turn_ttl_s", "must be above 0");
    }
}
