//! Which servers have a task, which wait for their next try, and who is in which room.
//!
//! A server that is neither can be reached, as far as we know, and has nothing to be told: it takes
//! no memory, but for its name in the rooms that are kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use millrace_store::rows::{outbox::Outgoing, receipt::Receipt};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName,
    api::federation::transactions::edu::PresenceUpdate,
};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::delivery_edus::Deliveries;

/// Typing, receipts and presence that wait for one server; what is beyond is dropped.
const EPHEMERAL_MAX: usize = 1000;

/// What is new to one server since its task last looked.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Rooms whose outbox has new rows, and up to which commit that was told.
    pub rooms: FxHashMap<OwnedRoomId, u64>,
    /// Whether messages to devices wait.
    pub to_device: bool,
    /// Whether device lists have changed.
    pub devices: bool,
    /// Whether it may have missed anything, so that all rooms shared with it are to be looked at.
    pub walk: bool,
    /// Who began or ceased to type.
    pub typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    /// Who has read on, by room, user and thread.
    pub receipts: BTreeMap<(OwnedRoomId, OwnedUserId, String), Receipt>,
    /// What of the server's users has come to devices here.
    pub deliveries: Deliveries,
    /// Who is online.
    pub presence: BTreeMap<OwnedUserId, PresenceUpdate>,
    /// Users of ours who came into a room of the server's, and which of their devices it is told.
    pub introduced: BTreeMap<OwnedUserId, Introduced>,
}

/// Which devices of a user a server is told of when the user comes into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Introduced {
    /// Those that have keys.
    WithKeys,
    /// All of them.
    All,
}

impl Pending {
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty() && !self.to_device && !self.devices && !self.walk && !self.is_moving()
    }

    fn is_moving(&self) -> bool {
        let quiet = self.typing.is_empty() && self.receipts.is_empty();
        let quiet = quiet && self.deliveries.is_empty();
        !(quiet && self.presence.is_empty() && self.introduced.is_empty())
    }

    /// Lets the server know of devices of a user of ours.
    pub fn introduce(&mut self, user: &OwnedUserId, devices: Introduced) {
        if self.has_room_for_ephemeral() {
            let told = self.introduced.entry(user.clone()).or_insert(devices);
            *told = devices.max(*told);
        }
    }

    pub fn has_room_for_ephemeral(&self) -> bool {
        let shown = self.presence.len() + self.introduced.len();
        let read = self.receipts.len() + self.deliveries.len();
        self.typing.len() + read + shown < EPHEMERAL_MAX
    }
}

/// A server with a task.
#[derive(Debug)]
pub(super) struct Queue {
    pub server: OwnedServerName,
    pub pending: Mutex<Pending>,
    pub news: Notify,
    /// It has acknowledged all that was committed up to here.
    pub floor: AtomicU64,
    /// What its task has not written down yet, for the end of the process.
    pub unwritten: Mutex<Option<Outgoing>>,
}

/// See the module.
pub(super) struct Board {
    active: FxHashMap<OwnedServerName, Arc<Queue>>,
    /// Servers that are left alone, and until when, in milliseconds since 1970.
    waiting: FxHashMap<OwnedServerName, u64>,
    timers: BTreeSet<(u64, OwnedServerName)>,
    /// The other servers of a room, without most of those that wait.
    rooms: LruCache<OwnedRoomId, Vec<OwnedServerName>>,
    /// Queues that have no task yet.
    begun: Vec<Arc<Queue>>,
    /// Queues that have news since the last [`Board::ring`].
    told: Vec<Arc<Queue>>,
}

impl Board {
    pub fn new(rooms: usize) -> Self {
        Self {
            active: FxHashMap::default(),
            waiting: FxHashMap::default(),
            timers: BTreeSet::new(),
            rooms: LruCache::new(NonZeroUsize::new(rooms).unwrap_or(NonZeroUsize::MIN)),
            begun: Vec::new(),
            told: Vec::new(),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether the servers of a room are kept.
    pub fn knows(&mut self, room: &RoomId) -> bool {
        self.rooms.get(room).is_some()
    }

    /// Keeps the servers of a room.
    pub fn learn(&mut self, room: &RoomId, mut servers: Vec<OwnedServerName>) {
        servers.retain(|server| !self.waiting.contains_key(server));
        self.rooms.put(room.to_owned(), servers);
    }

    /// Notes that a server came into a room or left it.
    pub fn moved(&mut self, room: &RoomId, server: &ServerName, is_in: bool) {
        let Some(servers) = self.rooms.get_mut(room) else { return };
        servers.retain(|known| known != server);
        if is_in {
            servers.push(server.to_owned());
        }
    }

    /// Tells the servers of a room that can be reached. Costs as much as there are of those.
    pub fn tell_room(&mut self, room: &RoomId, floor: u64, tell: impl Fn(&mut Pending)) {
        let Some(mut servers) = self.rooms.get_mut(room).map(std::mem::take) else { return };
        servers.retain(|server| self.tell(server, floor, &tell));
        if let Some(kept) = self.rooms.get_mut(room) {
            *kept = servers;
        }
    }

    /// Tells one server; `false` where it waits, and will look at everything anyway.
    pub fn tell(&mut self, server: &ServerName, floor: u64, tell: impl Fn(&mut Pending)) -> bool {
        if self.waiting.contains_key(server) {
            return false;
        }
        let queue = match self.active.get(server) {
            Some(queue) => Arc::clone(queue),
            None => self.begin(server, floor),
        };
        tell(&mut queue.pending.lock());
        self.told.push(queue);
        true
    }

    fn begin(&mut self, server: &ServerName, floor: u64) -> Arc<Queue> {
        let queue = Arc::new(Queue {
            server: server.to_owned(),
            pending: Mutex::default(),
            news: Notify::new(),
            floor: AtomicU64::new(floor),
            unwritten: Mutex::default(),
        });
        self.active.insert(server.to_owned(), Arc::clone(&queue));
        self.begun.push(Arc::clone(&queue));
        queue
    }

    /// Wakes the tasks of those who were told.
    pub fn ring(&mut self) {
        for queue in self.told.drain(..) {
            queue.news.notify_one();
        }
    }

    /// Queues for which a task is to be started.
    pub fn take_begun(&mut self) -> Vec<Arc<Queue>> {
        std::mem::take(&mut self.begun)
    }

    /// Ends the task of a server that has nothing to be told; `false` where it was just told.
    pub fn retire(&mut self, queue: &Queue) -> bool {
        if !queue.pending.lock().is_empty() {
            return false;
        }
        self.active.remove(&queue.server);
        true
    }

    /// Ends the task of a server that is down, until `due`.
    pub fn put_off(&mut self, server: &ServerName, due: u64) {
        self.active.remove(server);
        let server = server.to_owned();
        if let Some(old) = self.waiting.insert(server.clone(), due) {
            self.timers.remove(&(old, server.clone()));
        }
        self.timers.insert((due, server));
    }

    /// A server that waits is tried at `due` if that is sooner.
    pub fn showed_up(&mut self, server: &ServerName, due: u64) {
        if self.waiting.get(server).is_some_and(|old| due < *old) {
            self.put_off(server, due);
        }
    }

    /// Servers that wait.
    pub fn all_waiting(&self) -> Vec<OwnedServerName> {
        self.waiting.keys().cloned().collect()
    }

    /// Begins the next try of one server that is due.
    pub fn revive_one(&mut self, now: u64, floor: u64) -> bool {
        let Some((due, server)) = self.timers.first().cloned() else { return false };
        if due > now {
            return false;
        }
        self.timers.pop_first();
        self.waiting.remove(&server);
        let queue = self.begin(&server, floor);
        queue.pending.lock().walk = true;
        true
    }

    /// When the next server that waits is due.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Adds a server to the rooms of these that are kept: it can be reached again.
    pub fn came_back(&mut self, server: &ServerName, rooms: &[OwnedRoomId]) {
        for room in rooms {
            if let Some(servers) = self.rooms.peek_mut(room)
                && !servers.iter().any(|known| known == server)
            {
                servers.push(server.to_owned());
            }
        }
    }

    /// What tasks have not written down yet.
    pub fn unwritten(&self) -> Vec<(OwnedServerName, Outgoing)> {
        let rows = self
            .active
            .values()
            .filter_map(|queue| Some((queue.server.clone(), queue.unwritten.lock().take()?)));
        rows.collect()
    }

    /// The commit up to which no task has anything left to do.
    pub fn floor(&self, followed: u64) -> u64 {
        let floors = self.active.values().map(|queue| queue.floor.load(Ordering::Acquire));
        floors.min().map_or(followed, |floor| floor.min(followed))
    }
}
