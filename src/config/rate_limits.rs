//! How often users and addresses may do what.

use serde::{Deserialize, Serialize};

use super::Problems;

/// The table `rate_limits`: one rate for each class of endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimits {
    /// Whether there are limits at all.
    pub enabled: bool,
    /// Logging in, by address and by account.
    pub login: Rate,
    /// Registering, by address.
    pub registration: Rate,
    /// Mails and text messages that ask for a proof, by address of the client and of the recipient.
    pub threepid_validation: Rate,
    /// Messages, state and redactions, by user.
    pub message: Rate,
    /// Joining and knocking, by user.
    pub join: Rate,
    /// Invitations, by user.
    pub invite: Rate,
    /// Creating and upgrading rooms, by user.
    pub create_room: Rate,
    /// Searching the user and the room directory, by user.
    pub search: Rate,
    /// Requests of other servers, by server.
    pub federation: Rate,
    /// Other changes, by user.
    pub other: Rate,
}

/// `burst` requests at once, then `per_second` on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests that come back each second.
    pub per_second: f64,
    /// Requests that may be made at once.
    pub burst: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Self {
            enabled: true,
            login: rate(0.2, 20),
            registration: rate(0.2, 10),
            threepid_validation: rate(0.003, 5),
            message: rate(10.0, 100),
            join: rate(1.0, 20),
            invite: rate(1.0, 50),
            create_room: rate(0.5, 20),
            search: rate(2.0, 20),
            federation: rate(100.0, 1000),
            other: rate(10.0, 100),
        }
    }
}

impl RateLimits {
    pub(super) fn validate(&self, problems: &mut Problems) {
        let classes = [
            ("login", self.login),
            ("registration", self.registration),
            ("threepid_validation", self.threepid_validation),
            ("message", self.message),
            ("join", self.join),
            ("invite", self.invite),
            ("create_room", self.create_room),
            ("search", self.search),
            ("federation", self.federation),
            ("other", self.other),
        ];
        for (class, rate) in classes {
            let sane = rate.per_second.is_finite() && rate.per_second > 0.0 && rate.burst > 0;
            let problem = "per_second and burst must be above 0";
            problems.require(sane, &format!("rate_limits.{class}"), problem);
        }
    }
}
