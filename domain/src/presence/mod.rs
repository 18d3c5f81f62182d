//! Who is online (spec: Client-Server API, Presence). Kept in memory only.
//!
//! Somebody's presence is shown to those who share a room with them. A change is announced in the
//! rooms of its user, so it costs as much as the user has rooms; who is idle costs nothing.

mod announce;
mod record;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use millrace_store::PartitionId;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId, presence::PresenceState};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use self::record::Record;
pub use self::record::{RemotePresence, Shown};
use crate::{
    Env,
    ephemeral::{EphemeralClock, EphemeralRange},
};

/// What is announced to watchers of the store whenever anybody's presence changes.
pub const ANNOUNCED: &str = "presence";

/// What administrators decide about presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceSettings {
    /// Whether there is presence at all.
    pub enabled: bool,
    /// Who did nothing for so long is shown as unavailable.
    pub idle_after: Duration,
    /// Who did nothing and did not sync for so long is shown as offline.
    pub offline_after: Duration,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            idle_after: Duration::from_mins(5),
            offline_after: Duration::from_secs(30),
        }
    }
}

/// The presence of all users of this server.
pub struct Presence {
    env: Env,
    clock: Arc<EphemeralClock>,
    settings: PresenceSettings,
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Default)]
struct State {
    users: FxHashMap<OwnedUserId, Record>,
    /// Users by the newest change of what is shown of them.
    changes: BTreeMap<u64, OwnedUserId>,
    /// When to look at whom again, in milliseconds since 1970.
    due: BTreeSet<(u64, OwnedUserId)>,
}

/// A user whose shown presence changed; it counts as a change when it is announced.
#[must_use]
struct Changed(OwnedUserId);

impl Presence {
    /// Everybody is offline. Whoever builds it also runs [`Presence::run`].
    #[must_use]
    pub fn new(env: Env, clock: Arc<EphemeralClock>, settings: PresenceSettings) -> Self {
        Self { env, clock, settings, state: Mutex::default(), sooner: Notify::new() }
    }

    /// Whether there is presence at all.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.settings.enabled
    }

    /// Sets somebody's presence as they ask for. No `status_msg` removes what was said.
    ///
    /// # Errors
    /// Where the rooms to announce it in cannot be read.
    pub async fn set(
        &self,
        user: &UserId,
        presence: PresenceState,
        status_msg: Option<String>,
    ) -> millrace_store::Result<()> {
        let changed = self.change(user, |record, now| record.set(presence, status_msg, now));
        self.announce(changed).await
    }

    /// Takes in what another server says of its users. Those who share no room with a user of ours
    /// are left out.
    ///
    /// # Errors
    /// Where the rooms to announce it in cannot be read.
    pub async fn receive(&self, said: &[RemotePresence]) -> millrace_store::Result<()> {
        for said in said {
            if self.joined_rooms(&said.user).await?.is_empty() {
                continue;
            }
            let changed = self.change(&said.user, |record, now| record.receive(said, now));
            self.announce(changed).await?;
        }
        Ok(())
    }

    /// Notes that somebody did something: sent, read, typed.
    ///
    /// # Errors
    /// Where the rooms to announce it in cannot be read.
    pub async fn active(&self, user: &UserId) -> millrace_store::Result<()> {
        let changed = self.change(user, Record::active);
        self.announce(changed).await
    }

    /// Notes that somebody syncs, until what is returned is dropped. `set_presence` is the
    /// parameter of the sync; while it is `offline`, syncing changes nothing.
    ///
    /// # Errors
    /// Where the rooms to announce it in cannot be read.
    pub async fn syncing(
        self: &Arc<Self>,
        user: &UserId,
        set_presence: PresenceState,
    ) -> millrace_store::Result<Option<Syncing>> {
        if !self.settings.enabled || set_presence == PresenceState::Offline {
            return Ok(None);
        }
        let changed = self.change(user, |record, now| record.sync_begins(&set_presence, now));
        let syncing = Syncing { presence: Arc::clone(self), user: user.to_owned() };
        self.announce(changed).await?;
        Ok(Some(syncing))
    }

    /// What changed for somebody: of those who share one of `rooms` with them, and of themselves.
    /// `rooms` are the joined rooms of the reader.
    #[must_use]
    pub fn since(
        &self,
        range: EphemeralRange,
        reader: &UserId,
        rooms: &std::collections::HashSet<PartitionId>,
    ) -> Vec<Shown> {
        if range.since >= range.up_to {
            return Vec::new();
        }
        let now = self.now_ms();
        let state = self.state.lock();
        let changes = state.changes.range(range.since + 1..=range.up_to);
        let changed = changes.filter_map(|(_, user)| state.users.get_key_value(user));
        // Of nobody who has been offline all the time does a new reader want to hear.
        let wanted = changed.filter(|(_, record)| range.since > 0 || !record.is_offline());
        let visible = wanted.filter(|(user, record)| {
            **user == *reader || record.rooms.iter().any(|room| rooms.contains(room))
        });
        visible.map(|(user, record)| record.shown(user, now)).collect()
    }

    /// This moment, for [`Presence::changed_since`].
    #[must_use]
    pub fn moment(&self) -> (u64, u64) {
        self.clock.token()
    }

    /// Everybody whose presence has changed between two moments.
    #[must_use]
    pub fn changed_since(&self, since: Option<(u64, u64)>, now: (u64, u64)) -> Vec<Shown> {
        let range = self.clock.range(since, now);
        if range.since >= range.up_to {
            return Vec::new();
        }
        let now = self.now_ms();
        let state = self.state.lock();
        let changes = state.changes.range(range.since + 1..=range.up_to);
        let changed = changes.filter_map(|(_, user)| state.users.get_key_value(user));
        changed.map(|(user, record)| record.shown(user, now)).collect()
    }

    /// What is shown of these users; none of those who have been offline since the start. May be
    /// told only to who shares a room with them.
    #[must_use]
    pub fn of<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) -> Vec<Shown> {
        let now = self.now_ms();
        let state = self.state.lock();
        let known = users.into_iter().filter_map(|user| state.users.get_key_value(user));
        known.map(|(user, record)| record.shown(user, now)).collect()
    }

    /// Changes a record, and tells whether that changes what is shown.
    fn change(&self, user: &UserId, change: impl FnOnce(&mut Record, u64)) -> Option<Changed> {
        if !self.settings.enabled {
            return None;
        }
        let now = self.now_ms();
        let mut state = self.state.lock();
        let soonest = state.due.first().map(|(due, _)| *due);
        let changed = self.change_in(&mut state, user, now, change);
        if state.due.first().map(|(due, _)| *due) < soonest || soonest.is_none() {
            self.sooner.notify_one();
        }
        changed
    }

    fn change_in(
        &self,
        state: &mut State,
        user: &UserId,
        now: u64,
        change: impl FnOnce(&mut Record, u64),
    ) -> Option<Changed> {
        let State { users, due, .. } = state;
        if !users.contains_key(user) {
            users.insert(user.to_owned(), Record::default());
        }
        let record = users.get_mut(user)?;
        let before = record.visible();
        change(record, now);
        let next = record.due(&self.settings);
        if record.next_due != next {
            let old = std::mem::replace(&mut record.next_due, next);
            if let Some(old) = old {
                due.remove(&(old, user.to_owned()));
            }
            due.extend(next.map(|next| (next, user.to_owned())));
        }
        (record.visible() != before).then(|| Changed(user.to_owned()))
    }

    fn now_ms(&self) -> u64 {
        self.env.now().get().into()
    }
}

/// Somebody's sync under way.
pub struct Syncing {
    presence: Arc<Presence>,
    user: OwnedUserId,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        // Ending a sync changes nothing that is shown before the timeout.
        let _ = self.presence.change(&self.user, Record::sync_ends);
    }
}

#[cfg(test)]
mod tests;
