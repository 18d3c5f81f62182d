//! Notifications to push gateways and by mail.

use std::time::Duration;

use millrace_pushers::{Badge, PushSettings};
use serde::{Deserialize, Serialize};

use super::Problems;

/// The table `push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Whether gateways are given the content of events.
    pub include_content: bool,
    /// Whether the badge counts rooms instead of messages.
    pub group_unread_count_by_room: bool,
    /// What is older than this is not sent any more, in seconds.
    pub expire_s: u64,
    /// The longest pause between tries, in seconds.
    pub retry_max_s: u64,
    /// How long a message waits to be read before a mail is sent about it, in seconds.
    pub mail_delay_s: u64,
    /// The shortest time between two mails to one address, in seconds.
    pub mail_interval_s: u64,
}

impl Default for Push {
    fn default() -> Self {
        let settings = PushSettings::default();
        Self {
            enabled: settings.enabled,
            include_content: settings.include_content,
            group_unread_count_by_room: settings.badge == Badge::Rooms,
            expire_s: settings.expire.as_secs(),
            retry_max_s: settings.retry_max.as_secs(),
            mail_delay_s: settings.mail_delay.as_secs(),
            mail_interval_s: settings.mail_interval.as_secs(),
        }
    }
}

impl Push {
    /// The settings as they are used.
    #[must_use]
    pub fn settings(&self) -> PushSettings {
        PushSettings {
            enabled: self.enabled,
            include_content: self.include_content,
            badge: if self.group_unread_count_by_room { Badge::Rooms } else { Badge::Messages },
            expire: Duration::from_secs(self.expire_s),
            retry_max: Duration::from_secs(self.retry_max_s),
            mail_delay: Duration::from_secs(self.mail_delay_s),
            mail_interval: Duration::from_secs(self.mail_interval_s),
        }
    }

    pub(super) fn validate(self, problems: &mut Problems) {
        problems.require(self.expire_s > 0, "push.expire_s", "must be above 0");
        let in_time = self.mail_delay_s.max(self.mail_interval_s) < self.expire_s;
        let problem = "must be above mail_delay_s and mail_interval_s, or no mail would be in time";
        problems.require(in_time, "push.expire_s", problem);
        problems.require(self.retry_max_s > 0, "push.retry_max_s", "must be above 0");
    }
}
