//! Whose events were worked on in vain: a server that sends what cannot be received, because what it
//! builds on cannot be had, must not hold up what others say in the same room.

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};

/// Servers in rooms of which that is remembered.
const KEPT: usize = 10_000;
/// For the sake of a server's events in a room others are asked in vain so often; then its further
/// ones that lack something are put off.
const FAILURES_MAX: u32 = 3;
/// And so long after the last time.
const FORGOTTEN_AFTER_MS: u64 = 60_000;

/// How much was lost on an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Some questions.
    Some,
    /// All the time there is for one event.
    AllTime,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_ms: u64,
}

/// See the module.
pub(super) struct Vain(Mutex<LruCache<(OwnedRoomId, OwnedServerName), Failures>>);

impl Default for Vain {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT.try_into().expect("not zero"))))
    }
}

impl Vain {
    /// Whether others are asked for what an event of `server` lacks.
    pub fn is_trusted(&self, room: &RoomId, server: &ServerName, now_ms: u64) -> bool {
        let key = (room.to_owned(), server.to_owned());
        self.0.lock().peek(&key).is_none_or(|failures| {
            failures.count < FAILURES_MAX || failures.last_ms + FORGOTTEN_AFTER_MS <= now_ms
        })
    }

    /// An event of `server` was worked on in vain.
    pub fn failed(&self, room: &RoomId, server: &ServerName, loss: Loss, now_ms: u64) {
        let weight = match loss {
            Loss::Some => 1,
            Loss::AllTime => FAILURES_MAX,
        };
        let key = (room.to_owned(), server.to_owned());
        let mut kept = self.0.lock();
        let old = kept.get(&key).filter(|old| old.last_ms + FORGOTTEN_AFTER_MS > now_ms);
        let count = old.map_or(0, |old| old.count).saturating_add(weight);
        kept.put(key, Failures { count, last_ms: now_ms });
    }

    /// What an event of `server` lacked was had.
    pub fn succeeded(&self, room: &RoomId, server: &ServerName) {
        self.0.lock().pop(&(room.to_owned(), server.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, server_name};

    use super::*;

    #[test]
    fn who_wastes_our_time_is_put_off_for_a_while_in_that_room() {
        let (vain, room, far) = (Vain::default(), room_id!("!a:x"), server_name!("far"));
        for now in 0..2 {
            vain.failed(room, far, Loss::Some, now);
            assert!(vain.is_trusted(room, far, now));
        }
        vain.failed(room, far, Loss::Some, 2);
        assert!(!vain.is_trusted(room, far, 3));
        assert!(vain.is_trusted(room_id!("!b:x"), far, 3));
        assert!(vain.is_trusted(room, server_name!("near"), 3));
        assert!(vain.is_trusted(room, far, 2 + FORGOTTEN_AFTER_MS));
        vain.failed(room, far, Loss::AllTime, 100_000);
        assert!(!vain.is_trusted(room, far, 100_001));
        vain.succeeded(room, far);
        assert!(vain.is_trusted(room, far, 100_001));
    }
}
