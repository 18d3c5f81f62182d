//! Which member events a device knows, so that lazily loaded members are not sent again and again.
//!
//! What a response tells counts as known once the client comes back with the token of that
//! response; a client that lost it comes back with an older token, and is told again. Only in
//! memory: what is forgotten is sent once more, which harms nobody.

use std::sync::Arc;

use lru::LruCache;
use millrace_model::SyncToken;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::SyncRequest;

/// So many devices are remembered.
const DEVICES_MAX: usize = 10_000;
/// So many members of all rooms for each; whoever knows more is told anew.
const MEMBERS_MAX: usize = 5_000;
/// So many responses to one token are remembered for a device.
const GIVEN_MAX: usize = 4;

/// Remembers what devices were told.
pub(super) struct LazyMembers {
    devices: Mutex<LruCache<(OwnedUserId, OwnedDeviceId), Device>>,
}

/// The numbers of the member events that a device knows, by room.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    rooms: FxHashMap<OwnedRoomId, FxHashSet<u64>>,
}

/// What one response tells of members, by room.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Told {
    rooms: FxHashMap<OwnedRoomId, ToldOfRoom>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToldOfRoom {
    afresh: Afresh,
    numbers: FxHashSet<u64>,
}

/// Whether what a device knows of a room goes on, or ends with a response: the client may have
/// dropped what it knew, as it does with a room that was left or has a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afresh {
    Yes,
    No,
}

/// What one response needs and notes of this.
pub(super) struct LazyStep {
    /// What the device knows.
    pub known: Arc<Known>,
    /// What the response tells.
    pub told: Mutex<Told>,
}

#[derive(Default)]
struct Device {
    /// The token that the client came with last; `None` after an initial sync.
    at: Option<SyncToken>,
    /// What it knows there.
    known: Arc<Known>,
    /// The tokens it was given there, each with what its response told. `None` where two responses
    /// of one token told different things, so that nobody knows which of them arrived.
    given: Vec<(SyncToken, Option<Told>)>,
}

impl Default for LazyMembers {
    fn default() -> Self {
        let capacity = DEVICES_MAX.try_into().expect("the capacity is not zero");
        Self { devices: Mutex::new(LruCache::new(capacity)) }
    }
}

impl LazyStep {
    /// For a request whose filter wants members only as needed.
    pub fn begin(lazy: &LazyMembers, request: &SyncRequest) -> Option<Self> {
        let device = request.device.as_ref().filter(|_| request.filter.lazy_members)?;
        let known = lazy.known(&request.user, device, request.since.as_ref());
        Some(Self { known, told: Mutex::default() })
    }

    /// Notes what the response told, which carries `next`.
    pub fn end(self, lazy: &LazyMembers, request: &SyncRequest, next: &SyncToken) {
        if let Some(device) = &request.device {
            let tokens = (request.since.as_ref(), next);
            lazy.give(&request.user, device, tokens, self.told.into_inner());
        }
    }
}

impl LazyMembers {
    /// What a device knows that comes with this token.
    fn known(&self, user: &UserId, device: &DeviceId, since: Option<&SyncToken>) -> Arc<Known> {
        let mut devices = self.devices.lock();
        let key = (user.to_owned(), device.to_owned());
        let device = devices.get_or_insert_mut(key, Device::default);
        device.come_back(since);
        Arc::clone(&device.known)
    }

    /// Notes what a response tells that answers `since` and carries `next`.
    fn give(
        &self,
        user: &UserId,
        device: &DeviceId,
        (since, next): (Option<&SyncToken>, &SyncToken),
        told: Told,
    ) {
        let mut devices = self.devices.lock();
        // Where the device has moved on meanwhile, the token will be an unknown one.
        let key = (user.to_owned(), device.to_owned());
        let Some(device) = devices.get_mut(&key).filter(|device| device.at.as_ref() == since)
        else {
            return;
        };
        device.give(next, told);
    }
}

impl Device {
    fn come_back(&mut self, since: Option<&SyncToken>) {
        let place = self.given.iter().position(|(token, _)| Some(token) == since);
        let told = place.and_then(|place| self.given.swap_remove(place).1);
        match told {
            Some(told) => Arc::make_mut(&mut self.known).add(told),
            None if since.is_some() && since == self.at.as_ref() => return,
            None => self.known = Arc::default(),
        }
        self.at = since.cloned();
        self.given.clear();
    }

    fn give(&mut self, next: &SyncToken, told: Told) {
        if self.at.as_ref() == Some(next) {
            // The client cannot show that it got this response: its token is what it had.
            return;
        }
        match self.given.iter_mut().find(|(token, _)| token == next) {
            Some((_, earlier)) if earlier.as_ref() == Some(&told) => {}
            Some((_, earlier)) => *earlier = None,
            None => {
                if self.given.len() == GIVEN_MAX {
                    self.given.remove(0);
                }
                self.given.push((next.clone(), Some(told)));
            }
        }
    }
}

impl Known {
    /// Whether the device has this member event.
    pub fn has(&self, room: &RoomId, number: u64) -> bool {
        self.rooms.get(room).is_some_and(|numbers| numbers.contains(&number))
    }

    fn add(&mut self, told: Told) {
        for (room, told) in told.rooms {
            let numbers = self.rooms.entry(room).or_default();
            if told.afresh == Afresh::Yes {
                numbers.clear();
            }
            numbers.extend(told.numbers);
        }
        self.rooms.retain(|_, numbers| !numbers.is_empty());
        if self.rooms.values().map(FxHashSet::len).sum::<usize>() > MEMBERS_MAX {
            self.rooms.clear();
        }
    }
}

impl Told {
    /// Notes the member events that a room's part of the response has.
    pub fn add(&mut self, room: &RoomId, afresh: Afresh, numbers: impl Iterator<Item = u64>) {
        let numbers: FxHashSet<u64> = numbers.collect();
        if afresh == Afresh::Yes || !numbers.is_empty() {
            self.rooms.insert(room.to_owned(), ToldOfRoom { afresh, numbers });
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_model::{Position, View};
    use ruma::{device_id, room_id, user_id};

    use super::*;

    fn token(seq: u64) -> SyncToken {
        SyncToken { view: View::at(Position { writer: 0, seq }), to_device: 0, ephemeral: None }
    }

    fn room() -> &'static RoomId {
        room_id!("!r:test.example")
    }

    /// One sync: which of the members 0 to 9 the device knows, and then is told.
    fn sync(lazy: &LazyMembers, since: Option<u64>, next: u64, tells: &[u64]) -> Vec<u64> {
        give(lazy, since, next, Afresh::No, tells)
    }

    fn give(
        lazy: &LazyMembers,
        since: Option<u64>,
        next: u64,
        afresh: Afresh,
        tells: &[u64],
    ) -> Vec<u64> {
        let (user, device) = (user_id!("@a:test.example"), device_id!("D"));
        let since = since.map(token);
        let known = lazy.known(user, device, since.as_ref());
        let mut told = Told::default();
        told.add(room(), afresh, tells.iter().copied());
        lazy.give(user, device, (since.as_ref(), &token(next)), told);
        (0..10).filter(|number| known.has(room(), *number)).collect()
    }

    #[test]
    fn what_was_told_is_known_to_who_comes_back_with_its_token_and_not_to_who_repeats() {
        let lazy = LazyMembers::default();
        assert!(sync(&lazy, None, 1, &[1]).is_empty());
        assert_eq!(sync(&lazy, Some(1), 2, &[2]), [1]);
        assert_eq!(sync(&lazy, Some(1), 3, &[2, 3]), [1], "the response was lost");
        assert_eq!(sync(&lazy, Some(2), 4, &[4]), [1, 2], "it arrived late");
        assert_eq!(sync(&lazy, Some(4), 5, &[]), [1, 2, 4]);
        assert!(sync(&lazy, Some(1), 6, &[]).is_empty(), "older than what is remembered");
        assert!(sync(&lazy, None, 7, &[]).is_empty());
    }

    #[test]
    fn a_token_given_for_different_answers_proves_none_of_them() {
        let lazy = LazyMembers::default();
        sync(&lazy, None, 1, &[1]);
        sync(&lazy, None, 1, &[1]);
        assert_eq!(sync(&lazy, Some(1), 2, &[2]), [1]);
        sync(&lazy, Some(1), 2, &[3]);
        assert!(sync(&lazy, Some(2), 3, &[]).is_empty());
        sync(&lazy, Some(3), 3, &[4]);
        assert!(sync(&lazy, Some(3), 4, &[]).is_empty(), "the token did not move");
    }

    #[test]
    fn a_room_told_afresh_forgets_what_was_known_of_it() {
        let lazy = LazyMembers::default();
        sync(&lazy, None, 1, &[1]);
        give(&lazy, Some(1), 2, Afresh::Yes, &[2]);
        assert_eq!(sync(&lazy, Some(2), 3, &[]), [2]);
    }

    #[test]
    fn an_answer_that_is_overtaken_counts_for_nothing() {
        let (lazy, device) = (LazyMembers::default(), device_id!("D"));
        let user = user_id!("@a:test.example");
        lazy.known(user, device, Some(&token(1)));
        lazy.known(user, device, Some(&token(2)));
        let mut told = Told::default();
        told.add(room(), Afresh::No, [1].into_iter());
        lazy.give(user, device, (Some(&token(1)), &token(3)), told);
        assert!(sync(&lazy, Some(3), 4, &[]).is_empty());
    }
}
