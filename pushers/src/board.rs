//! Who has pushers, and what each of them has not got yet.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use millrace_store::rows::user::{Pusher, PusherBehind};
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What names a pusher: its user, app and key.
pub(crate) type PusherName = (OwnedUserId, (String, String));

/// Everything about pushers that is in memory.
#[derive(Default)]
pub(crate) struct Board {
    pushers: HashMap<OwnedUserId, HashMap<(String, String), Entry>>,
    /// How often a user's pushers had changed (`PUSHERS_HEAD`) when they were set here.
    changes: HashMap<OwnedUserId, u64>,
    ready: VecDeque<PusherName>,
    /// Those that wait, by their moment: `Entry::due_ms`.
    waiting: BTreeSet<(u64, PusherName)>,
    /// Those that have something to do and no row that says since when.
    unwritten: HashSet<PusherName>,
    /// Grows whenever it changes who has pushers.
    pub generation: u64,
}

/// One pusher.
struct Entry {
    target: Target,
    work: Work,
    /// Since when the step under way works.
    working_since: Option<u64>,
    badge: Option<u64>,
    failures: u32,
    /// Until when it waits, if it does: then it is in `Board::waiting`.
    due_ms: Option<u64>,
    running: bool,
    written: bool,
    /// The commit up to which it has certainly got everything.
    got: u64,
    /// News of commits up to here may be older than the pusher.
    set_by: u64,
}

/// Where a pusher sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub kind: Kind,
    pub app_id: String,
    pub pushkey: String,
    /// When it was set, in milliseconds since 1970.
    pub set_ms: u64,
    /// What the gateway is given of the pusher.
    pub data: Map<String, Value>,
}

/// By which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To a gateway at this address.
    Http { url: String },
    /// As mail to the address that is the key.
    Email,
}

/// What is new to a pusher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// By room, the place from which on there are news.
    pub rooms: HashMap<OwnedRoomId, i64>,
    /// Whether the user has read something somewhere.
    pub read: bool,
    /// All rooms are to be looked at, for what came after `since`.
    pub all_rooms: bool,
    /// The commit up to which it has got everything.
    pub since: u64,
    /// What was sent before this moment is no news, in milliseconds since 1970.
    pub not_before_ms: u64,
}

/// A pusher that a step works on.
pub(crate) struct Begun {
    pub name: PusherName,
    pub target: Target,
    pub work: Work,
    /// The badge that it was told last.
    pub badge: Option<u64>,
    pub failures: u32,
    pub written: bool,
    /// The commit up to which it has certainly got everything.
    pub got: u64,
}

/// How a step ended.
pub(crate) enum Ended {
    /// The pusher has got all that was new up to a commit, and this badge.
    Done { badge: Option<u64>, got: u64 },
    /// It is to be tried again with what is left, at a moment that is written down.
    Later { left: Work, badge: Option<u64>, failures: u32, due_ms: u64 },
    /// It is gone.
    Removed,
}

impl Work {
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && !self.read && !self.all_rooms
    }

    fn add(&mut self, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        for (room, first) in other.rooms {
            let known = self.rooms.entry(room).or_insert(first);
            *known = (*known).min(first);
        }
        self.read |= other.read;
        self.all_rooms |= other.all_rooms;
        self.since = self.since.min(other.since);
        self.not_before_ms = self.not_before_ms.min(other.not_before_ms);
    }
}

impl Target {
    /// What a row of the store says; `None` where it is of a kind that nothing is sent to.
    pub fn of(pusher: &Pusher) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            kind: String,
            app_id: String,
            pushkey: String,
            #[serde(default)]
            data: Map<String, Value>,
            #[serde(default)]
            enabled: Option<bool>,
        }
        let wire: Wire = serde_json::from_str(&pusher.json).ok()?;
        if wire.enabled == Some(false) {
            return None;
        }
        let mut data = wire.data;
        let kind = match &*wire.kind {
            "http" => {
                let url = data.remove("url")?.as_str()?.to_owned();
                Kind::Http { url }
            }
            "email" => Kind::Email,
            _ => return None,
        };
        let (app_id, pushkey) = (wire.app_id, wire.pushkey);
        Some(Self { kind, app_id, pushkey, set_ms: pusher.set_ms, data })
    }
}

impl Board {
    /// Whether a user has pushers.
    pub fn has(&self, user: &UserId) -> bool {
        self.pushers.contains_key(user)
    }

    /// The users who have pushers.
    pub fn users(&self) -> Vec<OwnedUserId> {
        self.pushers.keys().cloned().collect()
    }

    /// How many users have pushers.
    pub fn len(&self) -> usize {
        self.pushers.len()
    }

    /// Whether a user's pushers are still those that were set here when they had changed so often.
    pub fn is_current(&self, user: &UserId, changes: u64) -> bool {
        self.changes.get(user) == Some(&changes)
    }

    /// A user's pushers are these now, after so many changes, as was found after the commit `set_by`.
    /// Those that were there go on with what they have to do.
    pub fn set(&mut self, user: &UserId, targets: Vec<Target>, (changes, set_by): (u64, u64)) {
        self.changes.insert(user.to_owned(), changes);
        let mut old = self.pushers.remove(user).unwrap_or_default();
        let had = !old.is_empty();
        let mut new = HashMap::new();
        for target in targets {
            let key = (target.app_id.clone(), target.pushkey.clone());
            let entry = match old.remove(&key) {
                Some(mut entry) => {
                    if let Some(due) = entry.due_ms
                        && target.kind != Kind::Email
                        && entry.target != target
                    {
                        // Set anew: it is tried at once.
                        let name = (user.to_owned(), key.clone());
                        self.waiting.remove(&(due, name.clone()));
                        self.waiting.insert((0, name));
                        entry.due_ms = Some(0);
                    }
                    entry.target = target;
                    entry
                }
                None => Entry::new(target, set_by),
            };
            new.insert(key, entry);
        }
        for (key, gone) in old {
            if let Some(due) = gone.due_ms {
                self.waiting.remove(&(due, (user.to_owned(), key)));
            }
        }
        if had == new.is_empty() {
            self.generation += 1;
        }
        if !new.is_empty() {
            self.pushers.insert(user.to_owned(), new);
        }
    }

    /// A pusher is behind, as its row says.
    pub fn put_behind(&mut self, name: &PusherName, row: PusherBehind) {
        let Some(entry) = self.entry(name) else { return };
        let not_before_ms = entry.target.set_ms;
        let (all_rooms, since) = (true, row.since);
        entry.work.add(Work { all_rooms, since, not_before_ms, ..Work::default() });
        (entry.failures, entry.due_ms, entry.written) = (row.failures, Some(row.due_ms), true);
        self.waiting.insert((row.due_ms, name.clone()));
    }

    /// There is news for all pushers of a user.
    pub fn mark(&mut self, user: &UserId, work: &Work) {
        let Some(entries) = self.pushers.get_mut(user) else { return };
        for (key, entry) in entries {
            let maybe_older = work.since <= entry.set_by || work.all_rooms;
            let not_before_ms = if maybe_older { entry.target.set_ms } else { 0 };
            entry.work.add(Work { not_before_ms, ..work.clone() });
            let name = (user.to_owned(), key.clone());
            if !entry.written {
                self.unwritten.insert(name.clone());
            }
            if !entry.running && entry.due_ms.is_none() {
                entry.running = true;
                self.ready.push_back(name);
            }
        }
    }

    /// The next pusher to be worked on.
    pub fn begin(&mut self) -> Option<Begun> {
        loop {
            let name = self.ready.pop_front()?;
            let Some(entry) = self.entry(&name) else { continue };
            entry.working_since = Some(entry.work.since);
            return Some(Begun {
                target: entry.target.clone(),
                work: std::mem::take(&mut entry.work),
                badge: entry.badge,
                failures: entry.failures,
                written: entry.written,
                got: entry.got,
                name,
            });
        }
    }

    /// Takes note of how a step ended.
    pub fn end(&mut self, name: &PusherName, ended: Ended) {
        let Some(entry) = self.entry(name) else {
            self.unwritten.remove(name);
            return;
        };
        (entry.running, entry.working_since) = (false, None);
        match ended {
            Ended::Done { badge, got } => {
                (entry.badge, entry.failures) = (badge, 0);
                (entry.got, entry.written) = (got, false);
                if entry.work.is_empty() {
                    self.unwritten.remove(name);
                } else {
                    entry.running = true;
                    self.ready.push_back(name.clone());
                }
            }
            Ended::Later { left, badge, failures, due_ms } => {
                entry.work.add(left);
                (entry.badge, entry.failures) = (badge, failures);
                (entry.due_ms, entry.written) = (Some(due_ms), true);
                self.unwritten.remove(name);
                self.waiting.insert((due_ms, name.clone()));
            }
            Ended::Removed => {
                self.unwritten.remove(name);
                let (user, key) = name;
                // Where it was set again meanwhile, it is found by reading them again.
                self.changes.remove(user);
                if let Some(entries) = self.pushers.get_mut(user) {
                    entries.remove(key);
                    if entries.is_empty() {
                        self.pushers.remove(user);
                        self.generation += 1;
                    }
                }
            }
        }
    }

    /// Makes those ready whose moment has come, and says when the next one's is.
    pub fn wake(&mut self, now_ms: u64) -> Option<u64> {
        loop {
            let (due, _) = self.waiting.first()?;
            if *due > now_ms {
                return Some(*due);
            }
            let (due, name) = self.waiting.pop_first()?;
            if let Some(entry) = self.entry(&name)
                && entry.due_ms == Some(due)
            {
                (entry.due_ms, entry.running) = (None, true);
                self.ready.push_back(name);
            }
        }
    }

    /// Whether somebody may have something to do that no row speaks of.
    pub fn may_be_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The commit up to which all have got everything that no row speaks of, where somebody has not.
    pub fn unwritten_since(&self) -> Option<u64> {
        let all = self.unwritten.iter().filter_map(|(user, key)| self.pushers.get(user)?.get(key));
        let since = |entry: &Entry| {
            let fresh = (!entry.work.is_empty()).then_some(entry.work.since);
            fresh.into_iter().chain(entry.working_since).min()
        };
        all.filter_map(since).min()
    }

    fn entry(&mut self, (user, key): &PusherName) -> Option<&mut Entry> {
        self.pushers.get_mut(user)?.get_mut(key)
    }
}

impl Entry {
    fn new(target: Target, set_by: u64) -> Self {
        Self {
            target,
            work: Work::default(),
            working_since: None,
            badge: None,
            failures: 0,
            due_ms: None,
            running: false,
            written: false,
            got: 0,
            set_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn target(set_ms: u64) -> Target {
        Target {
            kind: Kind::Http { url: "https://push.test/".to_owned() },
            app_id: "app".to_owned(),
            pushkey: "key".to_owned(),
            set_ms,
            data: Map::new(),
        }
    }

    /// Works on the pusher that is ready, in vain; it is to be tried again at `due_ms`.
    fn fail(board: &mut Board, due_ms: u64) {
        let begun = board.begin().expect("one is ready");
        let left = Work { read: true, ..begun.work };
        board.end(&begun.name, Ended::Later { left, badge: None, failures: 1, due_ms });
    }

    #[test]
    fn who_waits_is_ready_at_their_moment_or_when_set_anew() {
        let (mut board, user) = (Board::default(), user_id!("@u:x"));
        board.set(user, vec![target(1)], (1, 0));
        board.mark(user, &Work { read: true, ..Work::default() });
        fail(&mut board, 100);
        assert_eq!(board.wake(99), Some(100));
        board.mark(user, &Work { read: true, ..Work::default() });
        assert!(board.begin().is_none(), "news do not make it due");
        assert_eq!(board.wake(100), None);
        fail(&mut board, 500);

        board.set(user, vec![target(1)], (2, 0));
        assert_eq!(board.wake(101), Some(500), "nothing of it has changed");
        board.set(user, vec![target(2)], (3, 0));
        assert_eq!(board.wake(101), None);
        fail(&mut board, 500);

        board.set(user, Vec::new(), (4, 0));
        assert_eq!(board.wake(0), None, "who is gone does not wait");
    }

    #[test]
    fn pushers_are_current_until_they_change_or_one_is_found_dead() {
        let (mut board, user) = (Board::default(), user_id!("@u:x"));
        assert!(!board.is_current(user, 1));
        board.set(user, vec![target(1)], (1, 0));
        assert!(board.is_current(user, 1) && !board.is_current(user, 2));
        board.mark(user, &Work { read: true, ..Work::default() });
        let begun = board.begin().expect("it has something to do");
        board.end(&begun.name, Ended::Removed);
        assert!(!board.is_current(user, 1), "it may have been set again while that was found");
    }
}
