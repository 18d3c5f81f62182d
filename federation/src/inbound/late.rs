//! Receipts that came before what they are about: a server may send an event and its receipt at
//! once, and the event waits in its room's queue.

use lru::LruCache;
use millrace_domain::receipts::{self, RemoteReceipt};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

use super::Inbound;

/// Rooms whose early receipts are kept.
const ROOMS_MAX: usize = 1000;
/// Early receipts that are kept of each.
const RECEIPTS_MAX: usize = 256;

/// Receipts kept in memory until their events were received.
pub(super) struct LateReceipts {
    rooms: Mutex<LruCache<OwnedRoomId, Vec<RemoteReceipt>>>,
}

impl Default for LateReceipts {
    fn default() -> Self {
        let rooms = ROOMS_MAX.try_into().expect("not zero");
        Self { rooms: Mutex::new(LruCache::new(rooms)) }
    }
}

impl LateReceipts {
    pub fn keep(&self, room: &RoomId, receipts: Vec<RemoteReceipt>) {
        if receipts.is_empty() {
            return;
        }
        let mut rooms = self.rooms.lock();
        let kept = rooms.get_or_insert_mut(room.to_owned(), Vec::new);
        kept.extend(receipts);
        let excess = kept.len().saturating_sub(RECEIPTS_MAX);
        kept.drain(..excess);
    }

    fn take(&self, room: &RoomId) -> Vec<RemoteReceipt> {
        self.rooms.lock().pop(room).unwrap_or_default()
    }
}

impl Inbound {
    /// Tries early receipts again, after events of their room were received.
    pub(super) async fn retry_receipts(&self, room: &RoomId) {
        let kept = self.late.take(room);
        if kept.is_empty() {
            return;
        }
        match receipts::receive(self.rooms(), room, &kept).await {
            Ok(early) => self.late.keep(room, early),
            Err(error) => tracing::warn!(%error, %room, "receipts of other servers are lost"),
        }
    }
}
