//! What connections were told of rooms.
//!
//! As in `lazy`, what a response tells counts once its client comes back with the position that the
//! response carried; who lost it repeats the older position and is told again. Only in memory: a
//! client whose connection is forgotten, as by a restart, is told so (`M_UNKNOWN_POS`) and begins
//! anew, which costs it the rooms that it shows.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use millrace_model::View;
use parking_lot::Mutex;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::request::RoomConfig;

/// So many connections are remembered.
const CONNECTIONS_MAX: usize = 20_000;
/// What all of them were told is of so many rooms at most; those unused for longest are forgotten.
const ROOMS_MAX: usize = 2_000_000;
/// So many responses to one position are remembered of a connection.
const GIVEN_MAX: usize = 4;

/// A connection: user, device, and the name that the client gave it.
pub(super) type Key = (OwnedUserId, OwnedDeviceId, String);

/// Remembers connections.
pub(super) struct Connections {
    all: Mutex<All>,
    /// Number of the last response of any connection: no position is given twice.
    last: AtomicU64,
}

struct All {
    connections: LruCache<Key, Connection>,
    /// Rooms that they know, all together.
    rooms: usize,
}

/// What a client knows.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    rooms: FxHashMap<OwnedRoomId, Told>,
    /// Whether it was told the account data of the user.
    pub account_data: bool,
}

/// What a client was told of a room.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Up to when.
    pub until: Until,
    /// As what it knows the room.
    pub shown: Shown,
    /// So many of the newest events of then it has, without a gap, or the room has no more.
    pub timeline: usize,
    /// What it wanted of the room then.
    pub config: Arc<RoomConfig>,
    /// Numbers of the member events that it knows by its timeline.
    pub members: Arc<FxHashSet<u64>>,
    /// Whether it was told of receipts.
    pub receipts: bool,
    /// Whether it was told of account data.
    pub account_data: bool,
}

/// Up to when a client was told of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Until {
    /// The position of the connection.
    Now,
    /// This view: it did not want the room since.
    View(View),
}

/// As what a client knows a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// As an invitation or knock, by its stripped state.
    Stripped,
    /// As a room that the user is in.
    Room,
    /// As one that they are in no more.
    Left,
}

/// What a client knows, and what the response in the making adds.
pub(super) struct Telling {
    known: Arc<Known>,
    added: Known,
}

#[derive(Default)]
struct Connection {
    /// The position that the client came with last; `None` where it began.
    at: Option<u64>,
    /// What it knows there.
    known: Arc<Known>,
    /// What the responses told that it was given there.
    given: Vec<(u64, Known)>,
}

impl Default for Connections {
    fn default() -> Self {
        let capacity = CONNECTIONS_MAX.try_into().expect("the capacity is not zero");
        let all = All { connections: LruCache::new(capacity), rooms: 0 };
        Self { all: Mutex::new(all), last: AtomicU64::new(0) }
    }
}

impl Connections {
    /// What the client of a connection knows that comes with this position, or that begins. `None`
    /// where the position is not known (any more).
    pub fn resume(&self, key: &Key, pos: Option<u64>) -> Option<Telling> {
        let mut all = self.all.lock();
        let Some(pos) = pos else {
            all.put(key.clone(), Connection::default());
            return Some(Telling { known: Arc::default(), added: Known::default() });
        };
        let connection = all.connections.get_mut(key)?;
        let before = connection.known.rooms.len();
        connection.come_back(pos)?;
        let known = Arc::clone(&connection.known);
        all.rooms += known.rooms.len() - before;
        Some(Telling { known, added: Known::default() })
    }

    /// The position for a response that tells this to a client at `pos`. One that has moved on
    /// meanwhile will not be known by it.
    pub fn give(&self, key: &Key, pos: Option<u64>, telling: Telling) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self.all.lock();
        if let Some(connection) = all.connections.get_mut(key).filter(|one| one.at == pos) {
            connection.give(number, telling.added);
        }
        all.shrink();
        number
    }
}

impl All {
    fn put(&mut self, key: Key, connection: Connection) {
        if let Some((_, old)) = self.connections.push(key, connection) {
            self.rooms -= old.known.rooms.len();
        }
    }

    fn shrink(&mut self) {
        while self.rooms > ROOMS_MAX {
            let Some((_, old)) = self.connections.pop_lru() else { return };
            self.rooms -= old.known.rooms.len();
        }
    }
}

impl Connection {
    fn come_back(&mut self, pos: u64) -> Option<()> {
        if self.at == Some(pos) {
            return Some(());
        }
        let place = self.given.iter().position(|(number, _)| *number == pos)?;
        let (_, told) = self.given.swap_remove(place);
        Arc::make_mut(&mut self.known).add(told);
        self.at = Some(pos);
        self.given.clear();
        Some(())
    }

    fn give(&mut self, number: u64, told: Known) {
        if self.given.len() == GIVEN_MAX {
            self.given.remove(0);
        }
        self.given.push((number, told));
    }
}

impl Known {
    fn add(&mut self, told: Self) {
        self.rooms.extend(told.rooms);
        self.account_data |= told.account_data;
    }
}

impl Telling {
    /// What the client was told of a room, what was told just now included.
    pub fn of(&self, room: &RoomId) -> Option<&Told> {
        self.added.rooms.get(room).or_else(|| self.known.rooms.get(room))
    }

    /// Notes what it is told of a room.
    pub fn tell(&mut self, room: &RoomId, told: Told) {
        self.added.rooms.insert(room.to_owned(), told);
    }

    /// The rooms that it was told of up to now, in no particular order.
    pub fn current(&self) -> impl Iterator<Item = (&OwnedRoomId, &Told)> {
        let known = self.known.rooms.iter();
        let known = known.filter(|(room, _)| !self.added.rooms.contains_key(*room));
        let all = known.chain(&self.added.rooms);
        all.filter(|(_, told)| told.until == Until::Now)
    }

    /// Whether it was told the account data of the user.
    pub fn has_account_data(&self) -> bool {
        self.known.account_data || self.added.account_data
    }

    /// Notes that it is told the account data of the user.
    pub const fn tell_account_data(&mut self) {
        self.added.account_data = true;
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_device_id, owned_user_id, room_id, user_id};

    use super::*;
    use crate::sync::sliding::required_state::RequiredState;

    fn key() -> Key {
        (owned_user_id!("@a:test.example"), owned_device_id!("D"), String::new())
    }

    fn told(timeline: usize) -> Told {
        let required_state = RequiredState::new(user_id!("@a:test.example"), Vec::new());
        Told {
            until: Until::Now,
            shown: Shown::Room,
            timeline,
            config: Arc::new(RoomConfig { timeline_limit: timeline, required_state }),
            members: Arc::default(),
            receipts: false,
            account_data: false,
        }
    }

    /// One response: what the client was told before of the room, and the next position.
    fn sync(all: &Connections, pos: Option<u64>, tells: usize) -> Option<(Option<usize>, u64)> {
        let room = room_id!("!r:test.example");
        let mut telling = all.resume(&key(), pos)?;
        let before = telling.of(room).map(|told| told.timeline);
        telling.tell(room, told(tells));
        assert_eq!(telling.current().count(), 1);
        Some((before, all.give(&key(), pos, telling)))
    }

    #[test]
    fn what_was_told_counts_once_the_client_comes_back() {
        let all = Connections::default();
        let (before, first) = sync(&all, None, 1).unwrap();
        assert_eq!(before, None);
        let (before, _lost) = sync(&all, Some(first), 2).unwrap();
        assert_eq!(before, Some(1));
        let (before, second) = sync(&all, Some(first), 3).unwrap();
        assert_eq!(before, Some(1), "the response was lost");
        let (before, _) = sync(&all, Some(second), 4).unwrap();
        assert_eq!(before, Some(3));
        assert!(sync(&all, Some(first), 5).is_none(), "the client said that it had moved on");
    }

    #[test]
    fn a_client_that_begins_anew_knows_nothing() {
        let all = Connections::default();
        let (_, first) = sync(&all, None, 1).unwrap();
        let (before, _) = sync(&all, None, 2).unwrap();
        assert_eq!(before, None);
        assert!(sync(&all, Some(first), 3).is_none());
    }

    #[test]
    fn rooms_of_all_connections_are_counted() {
        let all = Connections::default();
        let (_, first) = sync(&all, None, 1).unwrap();
        sync(&all, Some(first), 1).unwrap();
        assert_eq!(all.all.lock().rooms, 1);
        sync(&all, None, 1).unwrap();
        assert_eq!(all.all.lock().rooms, 0);
    }
}
