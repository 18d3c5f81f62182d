//! What is known of one user's presence.

use std::{sync::Arc, time::Duration};

use millrace_store::PartitionId;
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use serde_json::{Value, json};

use super::PresenceSettings;

/// What others are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Who.
    pub user: OwnedUserId,
    /// Online, unavailable or offline.
    pub presence: PresenceState,
    /// What the user says.
    pub status_msg: Option<String>,
    /// How long ago the user did something, in milliseconds; none where they never did.
    pub last_active_ago_ms: Option<u64>,
    /// Whether the user is active now.
    pub currently_active: bool,
}

impl Shown {
    /// The `m.presence` event that clients are told it by.
    #[must_use]
    pub fn event(&self) -> Value {
        let mut content = json!({
            "presence": self.presence,
            "currently_active": self.currently_active,
        });
        if let Some(ago) = self.last_active_ago_ms {
            content["last_active_ago"] = json!(ago);
        }
        if let Some(status) = &self.status_msg {
            content["status_msg"] = json!(status);
        }
        json!({ "type": "m.presence", "sender": self.user, "content": content })
    }
}

/// Of whose presence another server says nothing any more is shown as offline after so long. Servers
/// repeat it before that.
const REMOTE_OFFLINE_AFTER: Duration = Duration::from_mins(35);

/// What another server says of a user of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePresence {
    /// Who.
    pub user: OwnedUserId,
    /// Online, unavailable or offline.
    pub presence: PresenceState,
    /// What the user says.
    pub status_msg: Option<String>,
    /// How long ago the user did something, in milliseconds.
    pub last_active_ago_ms: u64,
    /// Whether the user is active now.
    pub currently_active: bool,
}

/// One user's presence.
pub(super) struct Record {
    presence: PresenceState,
    status_msg: Option<String>,
    /// Whether the user said so, and it was not concluded from their doings.
    explicit: bool,
    idle: bool,
    last_active_ms: u64,
    last_sync_ms: u64,
    syncs: u32,
    /// Whether the user is active, as their server says; none for our own users.
    remote: Option<bool>,
    /// When to look at it again.
    pub next_due: Option<u64>,
    /// The newest change of what is shown.
    pub changed: u64,
    /// The rooms in which that was announced.
    pub rooms: Arc<[PartitionId]>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            presence: PresenceState::Offline,
            status_msg: None,
            explicit: false,
            idle: false,
            last_active_ms: 0,
            last_sync_ms: 0,
            syncs: 0,
            remote: None,
            next_due: None,
            changed: 0,
            rooms: Arc::default(),
        }
    }
}

impl Record {
    pub fn set(&mut self, presence: PresenceState, status_msg: Option<String>, now: u64) {
        self.explicit = true;
        self.idle = false;
        self.presence = presence;
        self.status_msg = status_msg;
        self.last_active_ms = now;
    }

    pub fn receive(&mut self, said: &RemotePresence, now: u64) {
        self.remote = Some(said.currently_active);
        self.presence = said.presence.clone();
        self.status_msg.clone_from(&said.status_msg);
        self.last_active_ms = now.saturating_sub(said.last_active_ago_ms);
        self.last_sync_ms = now;
    }

    pub fn active(&mut self, now: u64) {
        self.last_active_ms = now;
        self.idle = false;
    }

    pub fn sync_begins(&mut self, set_presence: &PresenceState, now: u64) {
        self.syncs += 1;
        self.last_sync_ms = now;
        let comes = self.presence == PresenceState::Offline;
        if comes {
            self.last_active_ms = now;
            self.idle = false;
        }
        // `online` is what clients send that say nothing; anything else they mean.
        if comes || !self.explicit || *set_presence != PresenceState::Online {
            self.explicit = false;
            self.presence = set_presence.clone();
        }
    }

    pub fn sync_ends(&mut self, now: u64) {
        self.syncs = self.syncs.saturating_sub(1);
        self.last_sync_ms = now;
    }

    /// Concludes from the time that passed that the user is idle or offline.
    pub fn conclude(&mut self, settings: &PresenceSettings, now: u64) {
        if self.offline_at(settings).is_some_and(|at| at <= now) {
            self.presence = PresenceState::Offline;
            self.explicit = false;
            self.idle = false;
        } else if self.idle_at(settings).is_some_and(|at| at <= now) {
            self.idle = true;
        }
    }

    /// When something can next be concluded.
    pub fn due(&self, settings: &PresenceSettings) -> Option<u64> {
        self.offline_at(settings).into_iter().chain(self.idle_at(settings)).min()
    }

    fn offline_at(&self, settings: &PresenceSettings) -> Option<u64> {
        let heard = self.last_sync_ms.max(self.last_active_ms);
        let gone = self.syncs == 0 && self.presence != PresenceState::Offline;
        let wait =
            if self.remote.is_some() { REMOTE_OFFLINE_AFTER } else { settings.offline_after };
        gone.then(|| after(heard, wait))
    }

    fn idle_at(&self, settings: &PresenceSettings) -> Option<u64> {
        let active = self.remote.is_none() && self.presence == PresenceState::Online && !self.idle;
        active.then(|| after(self.last_active_ms, settings.idle_after))
    }

    /// What a change of is news.
    pub fn visible(&self) -> (PresenceState, Option<String>, Option<bool>) {
        (self.presence_now(), self.status_msg.clone(), self.remote)
    }

    pub fn is_offline(&self) -> bool {
        self.presence == PresenceState::Offline
    }

    fn presence_now(&self) -> PresenceState {
        if self.idle { PresenceState::Unavailable } else { self.presence.clone() }
    }

    pub fn shown(&self, user: &UserId, now: u64) -> Shown {
        let presence = self.presence_now();
        let active = self.last_active_ms;
        Shown {
            user: user.to_owned(),
            currently_active: presence == PresenceState::Online && self.remote.unwrap_or(true),
            presence,
            status_msg: self.status_msg.clone(),
            last_active_ago_ms: (active > 0).then(|| now.saturating_sub(active)),
        }
    }
}

fn after(ms: u64, wait: Duration) -> u64 {
    ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
