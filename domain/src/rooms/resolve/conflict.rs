//! Where forks differ, and the rest of their state as far as it is needed.

use millrace_store::{
    Read,
    state_tree::{StateKey, StateRoot},
};
use ruma::RoomId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::ResolveStateError;
use crate::rooms::Rooms;

/// What a resolution reads from.
pub(super) struct Source<'a, R> {
    pub rooms: &'a Rooms,
    pub read: &'a R,
    pub room: &'a RoomId,
}

/// The places at which forks differ.
pub(super) struct Conflict<'r> {
    /// The states of the forks, two or more, all different.
    pub roots: &'r [StateRoot],
    /// What each fork has at each place that not all have the same at.
    pub places: FxHashMap<StateKey, Vec<Option<u64>>>,
}

impl<'r> Conflict<'r> {
    /// Compares every fork with the first one: what differs between any two differs from it.
    pub async fn of(
        source: &Source<'_, impl Read>,
        roots: &'r [StateRoot],
    ) -> Result<Self, ResolveStateError> {
        let mut places: FxHashMap<StateKey, Vec<Option<u64>>> = FxHashMap::default();
        for (fork, root) in roots.iter().enumerate().skip(1) {
            let states = &source.rooms.states;
            for found in states.diff(source.read, source.room, roots[0], *root).await? {
                let values = places.entry(found.key);
                values.or_insert_with(|| vec![found.old; roots.len()])[fork] = found.new;
            }
        }
        Ok(Self { roots, places })
    }

    /// The conflicted events: all that some, but not all forks hold.
    pub fn events(&self) -> Vec<u64> {
        let events: FxHashSet<u64> = self.places.values().flatten().flatten().copied().collect();
        events.into_iter().collect()
    }

    /// Whether the forks differ at a place.
    pub fn has_place(&self, event_type: &str, state_key: &str) -> bool {
        let (event_type, state_key) = (event_type.to_owned(), state_key.to_owned());
        self.places.contains_key(&StateKey { event_type, state_key })
    }

    /// What all forks hold at those of `places` at which none differs.
    pub async fn shared(
        &self,
        source: &Source<'_, impl Read>,
        places: impl IntoIterator<Item = StateKey>,
    ) -> Result<Vec<(StateKey, u64)>, ResolveStateError> {
        let mut wanted: Vec<StateKey> =
            places.into_iter().filter(|place| !self.places.contains_key(place)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let keys: Vec<_> = wanted.iter().map(as_key).collect();
        let states = &source.rooms.states;
        let held = states.get_many(source.read, source.room, self.roots[0], &keys).await?;
        Ok(wanted.into_iter().zip(held).filter_map(|(place, held)| Some((place, held?))).collect())
    }
}

pub(super) fn as_key(place: &StateKey) -> (&str, &str) {
    (&place.event_type, &place.state_key)
}
