//! What forks were resolved into. States and their roots never change, so this is always valid.

use std::sync::Arc;

use lru::LruCache;
use millrace_store::state_tree::StateRoot;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

use super::Resolved;

/// Bytes that all remembered resolutions take, about.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of a resolution, and of each of its changes, about.
const RESOLUTION_BYTES: usize = 256;
const CHANGE_BYTES: usize = 128;

type Forks = (OwnedRoomId, Vec<StateRoot>);

/// A bounded memory of resolutions, shared by all rooms.
#[derive(Clone)]
pub struct Resolutions {
    memory: Arc<Mutex<Memory>>,
}

struct Memory {
    known: LruCache<Forks, Arc<Resolved>>,
    bytes: usize,
}

impl Default for Resolutions {
    fn default() -> Self {
        let memory = Memory { known: LruCache::unbounded(), bytes: 0 };
        Self { memory: Arc::new(Mutex::new(memory)) }
    }
}

impl Resolutions {
    /// The resolution of `roots`, which are sorted, if it is remembered.
    pub(super) fn find(&self, room: &RoomId, roots: &[StateRoot]) -> Option<Arc<Resolved>> {
        let forks = (room.to_owned(), roots.to_vec());
        self.memory.lock().known.get(&forks).cloned()
    }

    /// Remembers a resolution of `roots`, which are sorted.
    pub(super) fn insert(&self, room: &RoomId, roots: &[StateRoot], resolved: &Arc<Resolved>) {
        let bytes = size(roots.len(), resolved);
        let mut memory = self.memory.lock();
        if bytes > BYTES_MAX / 2 {
            return;
        }
        memory.bytes += bytes;
        let forks = (room.to_owned(), roots.to_vec());
        if memory.known.put(forks, Arc::clone(resolved)).is_some() {
            memory.bytes -= bytes;
        }
        while memory.bytes > BYTES_MAX {
            let Some(((_, roots), old)) = memory.known.pop_lru() else { break };
            memory.bytes -= size(roots.len(), &old);
        }
    }
}

fn size(roots: usize, resolved: &Resolved) -> usize {
    RESOLUTION_BYTES + roots * size_of::<StateRoot>() + resolved.changes.len() * CHANGE_BYTES
}
