//! The state of forks, resolved on whole states.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use millrace_model::{
    Pdu,
    rules::{
        room_version,
        state_res::{self, ResolveError, StateMap},
    },
};
use millrace_store::{
    Error, Read,
    state_tree::{Difference, StateKey, StateRoot},
    tables::EVENT_NUMBERS,
};
use ruma::{OwnedEventId, RoomId, RoomVersionId, events::StateEventType};

use super::{Rooms, events::LoadError, states::StateError};

/// Why forks cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveStateError {
    /// The rules fail on them.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What forks are resolved to.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The state of one of the forks.
    pub base: StateRoot,
    /// What is to be changed in it.
    pub changes: Vec<Difference>,
}

/// Resolves forks.
///
/// # Errors
/// Where something cannot be read.
pub async fn resolve(
    rooms: &Rooms,
    read: &impl Read,
    room: &RoomId,
    version: &RoomVersionId,
    roots: &[StateRoot],
) -> Result<Resolved, ResolveStateError> {
    let rules =
        room_version::rules(version).ok_or_else(|| ResolveStateError::Version(version.clone()))?;
    let base = roots.first().copied().unwrap_or(StateRoot::EMPTY);
    let mut forks = Vec::new();
    let mut numbers = BTreeSet::new();
    for root in roots {
        let listed = rooms.states.list(read, room, *root, None).await?;
        numbers.extend(listed.iter().map(|(_, number)| *number));
        forks.push(listed);
    }
    let (events, of) = load_chains(rooms, read, room, version, numbers).await?;
    let maps: Vec<StateMap> = forks.iter().map(|fork| to_map(fork, &of)).collect();
    let lookup = |id: &ruma::EventId| events.get(id).map(|(_, pdu)| Arc::clone(pdu));
    let difference = state_res::auth_difference(&maps, lookup)?;
    let resolved = state_res::resolve(rules, &maps, difference, lookup)?;
    let mut changes = Vec::new();
    let base_map = &maps[0];
    for (place, id) in &resolved {
        if base_map.get(place) != Some(id) {
            let new = events.get(id).map(|(number, _)| *number);
            changes.push(Difference { key: key(place), old: None, new });
        }
    }
    for place in base_map.keys().filter(|place| !resolved.contains_key(*place)) {
        changes.push(Difference { key: key(place), old: None, new: None });
    }
    Ok(Resolved { base, changes })
}

fn key((kind, state_key): &(StateEventType, String)) -> StateKey {
    StateKey { event_type: kind.to_string(), state_key: state_key.clone() }
}

type Known = HashMap<OwnedEventId, (u64, Arc<Pdu>)>;

fn to_map(fork: &[(StateKey, u64)], of: &HashMap<u64, OwnedEventId>) -> StateMap {
    let entry = |(key, number): &(StateKey, u64)| {
        let place = (StateEventType::from(key.event_type.as_str()), key.state_key.clone());
        Some((place, of.get(number)?.clone()))
    };
    fork.iter().filter_map(entry).collect()
}

/// Loads events and all of their auth chains.
async fn load_chains(
    rooms: &Rooms,
    read: &impl Read,
    room: &RoomId,
    version: &RoomVersionId,
    numbers: BTreeSet<u64>,
) -> Result<(Known, HashMap<u64, OwnedEventId>), ResolveStateError> {
    let (mut known, mut of) = (Known::new(), HashMap::new());
    let mut open: Vec<u64> = numbers.into_iter().collect();
    while !open.is_empty() {
        let loaded = rooms.events.load(read, room, version, &open).await?;
        let mut next = BTreeSet::new();
        for event in loaded {
            next.extend(event.pdu.auth_events.iter().cloned());
            let id = event.pdu.event_id.clone();
            of.insert(event.number, id.clone());
            known.insert(id, (event.number, Arc::new(event.pdu.clone())));
        }
        next.retain(|id| !known.contains_key(id));
        let found = read.get_many(&EVENT_NUMBERS, room, next.iter()).await?;
        open = found.into_iter().flatten().collect();
    }
    Ok((known, of))
}
