//! A state without its members, for clients that load members lazily.

use std::sync::Arc;

use lru::LruCache;
use millrace_store::{Read, Scan, state_tree::StateRoot, tables::CURRENT_STATE};
use parking_lot::Mutex;

use super::view::{ReadError, RoomView};

const MEMBER: &str = "m.room.member";
/// So many states are remembered.
const REMEMBERED_MAX: usize = 4_096;
/// Those with more events are not.
const EVENTS_MAX: usize = 512;

/// What was last found, by root. A root names the same state for ever, so none of it gets stale.
pub(super) struct LazyStates(Mutex<LruCache<StateRoot, Arc<[u64]>>>);

impl Default for LazyStates {
    fn default() -> Self {
        let capacity = REMEMBERED_MAX.try_into().expect("the capacity is not zero");
        Self(Mutex::new(LruCache::new(capacity)))
    }
}

impl RoomView<'_> {
    /// Numbers of the events of a state but for its members: read from the flat current state, so
    /// that a room of 100,000 members costs no more than one of ten, then put right by what differs.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub async fn state_without_members(&self, root: StateRoot) -> Result<Arc<[u64]>, ReadError> {
        let remembered = self.rooms.lazy_states.0.lock().get(&root).cloned();
        if let Some(numbers) = remembered {
            return Ok(numbers);
        }
        let numbers = self.read_without_members(root).await?;
        if numbers.len() <= EVENTS_MAX {
            self.rooms.lazy_states.0.lock().put(root, Arc::clone(&numbers));
        }
        Ok(numbers)
    }

    async fn read_without_members(&self, root: StateRoot) -> Result<Arc<[u64]>, ReadError> {
        let before = Scan::all().before(MEMBER);
        let after = Scan::all().from("m.room.member\u{1}");
        let mut state = self.snapshot.scan(&CURRENT_STATE, self.room_id, before).await?;
        state.extend(self.snapshot.scan(&CURRENT_STATE, self.room_id, after).await?);
        let states = &self.rooms.states;
        for change in states.diff(self.snapshot, self.room_id, self.head.root, root).await? {
            if change.key.event_type == MEMBER {
                continue;
            }
            let key = (change.key.event_type, change.key.state_key);
            state.retain(|(other, _)| *other != key);
            state.extend(change.new.map(|number| (key, number)));
        }
        Ok(state.into_iter().map(|(_, number)| number).collect())
    }
}
