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

/// So many devices are remembered.
const DEVICES_MAX: usize = 20_000;
/// So many connections of each; the one unused for longest is forgotten first.
const CONNECTIONS_MAX: usize = 16;
/// What all of them know weighs so much at most, in units of some ten bytes; devices unused for longest
/// are forgotten first.
const WEIGHT_MAX: usize = 16_000_000;
/// What a room weighs beside its members and the state that is wanted of it.
const ROOM_WEIGHT: usize = 16;
/// So many responses to one position are remembered of a connection.
const GIVEN_MAX: usize = 4;

/// A connection: user and device, and the name that the client gave it.
pub(super) type Key = ((OwnedUserId, OwnedDeviceId), String);

/// Remembers connections.
pub(super) struct Connections {
    devices: Mutex<Devices>,
    /// Number of the last response of any connection: no position is given twice.
    last: AtomicU64,
}

struct Devices {
    /// For each device its connections by name, that used last at the end.
    of: LruCache<(OwnedUserId, OwnedDeviceId), Vec<(String, Connection)>>,
    /// What all of them weigh.
    weight: usize,
}

/// What a client knows.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    rooms: FxHashMap<OwnedRoomId, Told>,
    /// Whether it is told the account data of the user; `None` where nothing was said of it.
    account_data: Option<bool>,
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
    /// What `known` weighs.
    known_weight: usize,
}

impl Default for Connections {
    fn default() -> Self {
        let capacity = DEVICES_MAX.try_into().expect("the capacity is not zero");
        let devices = Devices { of: LruCache::new(capacity), weight: 0 };
        Self { devices: Mutex::new(devices), last: AtomicU64::new(0) }
    }
}

impl Connections {
    /// What the client of a connection knows that comes with this position, or that begins. `None`
    /// where the position is not known (any more).
    pub fn resume(&self, key: &Key, pos: Option<u64>) -> Option<Telling> {
        let mut devices = self.devices.lock();
        let mut connection = devices.take(key);
        let known = match (&mut connection, pos) {
            (_, None) => {
                connection = Some(Connection::default());
                Some(Arc::default())
            }
            (Some(connection), Some(pos)) => connection.come_back(pos),
            (None, Some(_)) => None,
        };
        if let Some(connection) = connection {
            devices.put(key, connection);
        }
        Some(Telling { known: known?, added: Known::default() })
    }

    /// The position for a response that tells this to a client at `pos`. One that has moved on
    /// meanwhile will not be known by it.
    pub fn give(&self, key: &Key, pos: Option<u64>, telling: Telling) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let Telling { known, added } = telling;
        // Not to be copied when the client comes back.
        drop(known);
        let mut devices = self.devices.lock();
        if let Some(mut connection) = devices.take(key) {
            if connection.at == pos {
                connection.give(number, added);
            }
            devices.put(key, connection);
        }
        number
    }
}

impl Devices {
    /// Takes a connection out, to be put back.
    fn take(&mut self, (device, name): &Key) -> Option<Connection> {
        let connections = self.of.get_mut(device)?;
        let place = connections.iter().position(|(other, _)| other == name)?;
        let (_, connection) = connections.remove(place);
        self.weight -= connection.weight();
        Some(connection)
    }

    fn put(&mut self, (device, name): &Key, connection: Connection) {
        self.weight += connection.weight();
        let mut connections = self.of.pop(device).unwrap_or_default();
        if connections.len() >= CONNECTIONS_MAX {
            let (_, oldest) = connections.remove(0);
            self.weight -= oldest.weight();
        }
        connections.push((name.clone(), connection));
        let forgotten = self.of.push(device.clone(), connections);
        self.forget(forgotten);
        while self.weight > WEIGHT_MAX {
            let Some(forgotten) = self.of.pop_lru() else { return };
            self.forget(Some(forgotten));
        }
    }

    fn forget<T>(&mut self, device: Option<(T, Vec<(String, Connection)>)>) {
        let connections = device.into_iter().flat_map(|(_, connections)| connections);
        self.weight -= connections.map(|(_, connection)| connection.weight()).sum::<usize>();
    }
}

impl Connection {
    fn come_back(&mut self, pos: u64) -> Option<Arc<Known>> {
        if self.at != Some(pos) {
            let place = self.given.iter().position(|(number, _)| *number == pos)?;
            let (_, told) = self.given.swap_remove(place);
            if !told.is_empty() {
                let known = Arc::make_mut(&mut self.known);
                known.add(told);
                self.known_weight = known.weight();
            }
            self.at = Some(pos);
            self.given.clear();
        }
        Some(Arc::clone(&self.known))
    }

    fn weight(&self) -> usize {
        self.known_weight + self.given.iter().map(|(_, told)| told.weight()).sum::<usize>()
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
        self.account_data = told.account_data.or(self.account_data);
    }

    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.account_data.is_none()
    }

    fn weight(&self) -> usize {
        let of_room =
            |told: &Told| ROOM_WEIGHT + told.members.len() + told.config.required_state.len();
        self.rooms.values().map(of_room).sum()
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

    /// Whether it was told the account data of the user up to now.
    pub fn has_account_data(&self) -> bool {
        self.added.account_data.or(self.known.account_data).unwrap_or(false)
    }

    /// Notes whether it is told the account data of the user.
    pub fn tell_account_data(&mut self, is_told: bool) {
        if self.has_account_data() != is_told {
            self.added.account_data = Some(is_told);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_device_id, owned_user_id, room_id, user_id};

    use super::*;
    use crate::sync::sliding::required_state::RequiredState;

    fn key() -> Key {
        named("")
    }

    fn named(name: &str) -> Key {
        ((owned_user_id!("@a:test.example"), owned_device_id!("D")), name.to_owned())
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
    fn what_is_known_is_weighed_as_it_comes_and_goes() {
        let all = Connections::default();
        let weight = || all.devices.lock().weight;
        let (_, first) = sync(&all, None, 1).unwrap();
        assert_eq!(weight(), ROOM_WEIGHT, "given");
        let (_, second) = sync(&all, Some(first), 1).unwrap();
        assert_eq!(weight(), 2 * ROOM_WEIGHT, "known, and given once more");
        assert!(all.resume(&key(), Some(second)).is_some());
        assert_eq!(weight(), ROOM_WEIGHT, "the same room");
        assert!(all.resume(&key(), Some(first)).is_none());
        assert_eq!(weight(), ROOM_WEIGHT);
        assert!(all.resume(&key(), None).is_some());
        assert_eq!(weight(), 0);
    }

    #[test]
    fn a_device_has_so_many_connections_and_no_more() {
        let all = Connections::default();
        let (_, first) = sync(&all, None, 1).unwrap();
        for n in 1..CONNECTIONS_MAX {
            assert!(all.resume(&named(&n.to_string()), None).is_some());
        }
        assert!(sync(&all, Some(first), 1).is_some(), "there is room for all");
        assert!(all.resume(&named("one more"), None).is_some());
        assert!(all.resume(&named("2"), None).is_some());
        assert!(all.resume(&named("other"), None).is_some());
        let devices = all.devices.lock();
        let names = devices.of.peek(&key().0).unwrap().iter().map(|(name, _)| name.as_str());
        let names: Vec<_> = names.collect();
        assert_eq!(names.len(), CONNECTIONS_MAX);
        assert!(names.contains(&"") && !names.contains(&"1"), "that unused for longest is gone");
        assert_eq!(devices.weight, 2 * ROOM_WEIGHT);
    }
}
