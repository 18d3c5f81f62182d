//! Application services: where their registrations are, and how patient the server is with them.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Problems, days};

/// Bridges and bots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppServices {
    /// Registration files.
    pub appservice_files: Vec<PathBuf>,
    /// A folder whose files that end in `.yaml` or `.yml` are registrations.
    pub appservice_dir: Option<PathBuf>,
    /// How long a service may take to acknowledge a transaction, in seconds.
    pub appservice_timeout_s: u64,
    /// The longest wait before a service that did not is tried again, in seconds.
    pub appservice_retry_max_s: u64,
    /// So much may wait for one service; beyond, the oldest is dropped.
    pub appservice_queue_max: u64,
    /// How long it waits, in days; 0 is for ever.
    pub appservice_queue_lifetime_days: u32,
}

impl Default for AppServices {
    fn default() -> Self {
        Self {
            appservice_files: Vec::new(),
            appservice_dir: None,
            appservice_timeout_s: 60,
            appservice_retry_max_s: 300,
            appservice_queue_max: 1_000_000,
            appservice_queue_lifetime_days: 30,
        }
    }
}

impl AppServices {
    /// How services are sent to.
    #[must_use]
    pub fn settings(&self) -> millrace_appservices::Settings {
        millrace_appservices::Settings {
            timeout: Duration::from_secs(self.appservice_timeout_s),
            retry_max: Duration::from_secs(self.appservice_retry_max_s),
            queue_max: self.appservice_queue_max,
            queue_lifetime: days(self.appservice_queue_lifetime_days),
            ..millrace_appservices::Settings::default()
        }
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, value) in [
            ("appservice_timeout_s", self.appservice_timeout_s),
            ("appservice_retry_max_s", self.appservice_retry_max_s),
            ("appservice_queue_max", self.appservice_queue_max),
        ] {
            problems.require(value > 0, key, "must be above 0");
        }
    }
}
