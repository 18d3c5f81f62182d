//! How long messages are kept.

use std::time::Duration;

use millrace_domain::rooms::retention::RetentionSettings;
use serde::{Deserialize, Serialize};

use super::Problems;

/// The table `retention`. Times are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Whether messages expire at all.
    pub enabled: bool,
    /// How long they live in rooms without a policy; unset, for ever.
    pub default_max_lifetime_s: Option<u64>,
    /// No room's messages live shorter.
    pub allowed_lifetime_min_s: Option<u64>,
    /// No room's messages live longer.
    pub allowed_lifetime_max_s: Option<u64>,
    /// How often what expired messages said is taken off the disk.
    pub purge_interval_s: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            enabled: false,
            default_max_lifetime_s: None,
            allowed_lifetime_min_s: None,
            allowed_lifetime_max_s: None,
            purge_interval_s: 24 * 3600,
        }
    }
}

impl Retention {
    /// The settings as they are used.
    #[must_use]
    pub fn settings(&self) -> RetentionSettings {
        RetentionSettings {
            enabled: self.enabled,
            default_lifetime: self.default_max_lifetime_s.map(Duration::from_secs),
            lifetime_min: self.allowed_lifetime_min_s.map(Duration::from_secs),
            lifetime_max: self.allowed_lifetime_max_s.map(Duration::from_secs),
        }
    }

    pub(super) fn validate(self, problems: &mut Problems) {
        let ordered = self
            .allowed_lifetime_min_s
            .zip(self.allowed_lifetime_max_s)
            .is_none_or(|(min, max)| min <= max);
        let key = "retention.allowed_lifetime_max_s";
        problems.require(ordered, key, "must not be below allowed_lifetime_min_s");
        let key = "retention.purge_interval_s";
        problems.require(self.purge_interval_s > 0, key, "must be above 0");
    }
}
