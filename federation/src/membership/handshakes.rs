//! One handshake about a room at a time: who wants into the same room waits, and then finds us there.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

type Locks = Arc<Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>>;

/// Rooms with which a handshake is under way. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    locks: Locks,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    room: OwnedRoomId,
    locks: Locks,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Handshakes {
    /// Waits for its turn at the room.
    pub(super) async fn turn(&self, room: &RoomId) -> Turn {
        let lock = Arc::clone(self.locks.lock().entry(room.to_owned()).or_default());
        let guard = Some(lock.lock_owned().await);
        Turn { room: room.to_owned(), locks: Arc::clone(&self.locks), guard }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut locks = self.locks.lock();
        self.guard = None;
        // Nobody waits: who does holds the lock too, and can get it only from this map.
        if locks.get(&self.room).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use ruma::room_id;

    use super::*;

    #[tokio::test]
    async fn only_one_has_its_turn_and_nothing_is_left_behind() {
        let handshakes = Handshakes::default();
        let (room, other) = (room_id!("!a:one"), room_id!("!b:one"));
        let first = handshakes.turn(room).await;
        let second = handshakes.turn(room);
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        drop(handshakes.turn(other).await);
        drop(first);
        let second = second.now_or_never().expect("it is its turn");
        assert_eq!(handshakes.locks.lock().len(), 1);
        drop(second);
        assert!(handshakes.locks.lock().is_empty());
    }
}
