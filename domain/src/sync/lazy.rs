//! Which member events a device was told of, so that lazily loaded members are not sent again
//! and again. Only in memory: after a restart they are sent once more, which harms nobody.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use rustc_hash::FxHashSet;

/// So many devices × rooms are remembered.
const REMEMBERED_MAX: usize = 50_000;
/// So many members of each.
const MEMBERS_MAX: usize = 1_000;

type Key = (OwnedUserId, OwnedDeviceId, OwnedRoomId);

/// Remembers what devices were told.
pub struct LazyMembers {
    devices: Mutex<LruCache<Key, Arc<Sent>>>,
}

/// The numbers of the member events that one device was told of in one room.
#[derive(Debug, Default)]
pub struct Sent {
    numbers: Mutex<FxHashSet<u64>>,
}

impl Default for LazyMembers {
    fn default() -> Self {
        let capacity = REMEMBERED_MAX.try_into().expect("the capacity is not zero");
        Self { devices: Mutex::new(LruCache::new(capacity)) }
    }
}

impl LazyMembers {
    /// What a device was told of a room.
    pub fn of(&self, user: &UserId, device: &DeviceId, room: &RoomId) -> Arc<Sent> {
        let key = (user.to_owned(), device.to_owned(), room.to_owned());
        Arc::clone(self.devices.lock().get_or_insert(key, Arc::default))
    }
}

impl Sent {
    /// Whether the device has this member event.
    pub fn has(&self, number: u64) -> bool {
        self.numbers.lock().contains(&number)
    }

    /// Notes member events that are being sent.
    pub fn add(&self, numbers: impl Iterator<Item = u64>) {
        let mut known = self.numbers.lock();
        known.extend(numbers);
        if known.len() > MEMBERS_MAX {
            known.clear();
        }
    }

    /// Forgets all: the device begins anew.
    pub fn clear(&self) {
        self.numbers.lock().clear();
    }
}
