//! How long sessions last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Problems;

/// Lifetimes of tokens, in seconds. 0 means: without end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Access tokens of clients that use refresh tokens.
    pub refreshable_access_token_lifetime_s: u64,
    /// Access tokens of clients that do not.
    pub access_token_lifetime_s: u64,
    /// Refresh tokens.
    pub refresh_token_lifetime_s: u64,
    /// Tokens with which one device logs in another. Never without end.
    pub login_token_lifetime_s: u64,
    /// How long a dialogue of user-interactive authentication may take. Never without end.
    pub uiaa_session_lifetime_s: u64,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            refreshable_access_token_lifetime_s: 300,
            access_token_lifetime_s: 0,
            refresh_token_lifetime_s: 0,
            login_token_lifetime_s: 120,
            uiaa_session_lifetime_s: 3600,
        }
    }
}

impl Accounts {
    /// A lifetime as a duration, or none where it has no end.
    #[must_use]
    pub fn lifetime(seconds: u64) -> Option<Duration> {
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let positive = "must be above 0";
        problems.require(self.login_token_lifetime_s > 0, "login_token_lifetime_s", positive);
        problems.require(self.uiaa_session_lifetime_s > 0, "uiaa_session_lifetime_s", positive);
    }
}
