//! The state of forks, resolved from what differs (spec: Server-Server API, Room State Resolution;
//! room versions 1, 2 and 12).
//!
//! Forks are given as roots of state trees. Read are: the differences of the trees, the auth
//! difference and, in room version 12, the conflicted subgraph, and of what all forks share only
//! the entries that the auth rules read. What the rules then decide is what they would decide on
//! whole states: the tests compare.

mod conflict;
mod difference;
mod links;
mod mainline;
mod remembered;
mod shared;
mod subgraph;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use millrace_model::{
    Pdu,
    rules::{
        auth,
        state_res::{self, ResolveError, StateMap},
    },
};
use millrace_store::{
    Read,
    state_tree::{Difference, StateKey, StateRoot},
};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId, RoomVersionId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{RoomVersionRules, StateResolutionVersion},
};
use rustc_hash::{FxHashMap, FxHashSet};

use self::{
    conflict::{Conflict, Source, as_key},
    mainline::mainlines,
    shared::SearchRows,
};
use super::{Event, Rooms, events::LoadError, states::StateError};

pub use self::{links::Links, remembered::Resolutions};

/// With more events than this, a resolution does not hold up the other tasks of its thread.
const EVENTS_INLINE_MAX: usize = 64;
/// Rows that are read in search of shared events before the whole state is read instead.
const SEARCH_ROWS: SearchRows = SearchRows(10_000);

/// The state of forks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The state of one of the forks, that which differs least.
    pub base: StateRoot,
    /// What is to be changed in it, sorted by key. `old` is what the base holds.
    pub changes: Vec<Difference>,
}

/// Why forks cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveStateError {
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// It is not recorded what authorises an event of the state (see [`Links::write`]).
    #[error("it is not recorded what authorises event number {number} of {room}")]
    Unlinked {
        /// The room.
        room: OwnedRoomId,
        /// The event's number.
        number: u64,
    },
    /// The rules cannot be applied.
    #[error(transparent)]
    Rules(#[from] ResolveError),
}

/// Resolves the states `roots` of forks of a room into one. Reads differences only. What was
/// resolved from a snapshot is remembered, also for transactions; the caller writes the result.
///
/// # Errors
/// Where something that was stored cannot be read.
pub async fn resolve(
    rooms: &Rooms,
    read: &impl Read,
    room: &RoomId,
    version: &RoomVersionId,
    roots: &[StateRoot],
) -> Result<Arc<Resolved>, ResolveStateError> {
    let mut roots = roots.to_vec();
    roots.sort_unstable();
    roots.dedup();
    if let [] | [_] = *roots {
        let base = roots.first().copied().unwrap_or(StateRoot::EMPTY);
        return Ok(Arc::new(Resolved { base, changes: Vec::new() }));
    }
    if let Some(known) = rooms.resolutions.find(room, &roots) {
        return Ok(known);
    }
    let rules =
        (rooms.env.rules)(version).ok_or_else(|| ResolveStateError::Version(version.clone()))?;
    let source = Source { rooms, read, room };
    let conflict = Conflict::of(&source, &roots).await?;
    let gathering = Gathering { source, version, rules, conflict, events: FxHashMap::default() };
    let resolved = Arc::new(gathering.resolve(SEARCH_ROWS).await?);
    if read.is_durable() {
        rooms.resolutions.insert(room, &roots, &resolved);
    }
    Ok(resolved)
}

/// What a resolution has read so far.
struct Gathering<'a, R> {
    source: Source<'a, R>,
    version: &'a RoomVersionId,
    rules: &'static RoomVersionRules,
    conflict: Conflict<'a>,
    events: FxHashMap<u64, Arc<Event>>,
}

/// All that the rules are to see.
struct Input {
    forks: Vec<StateMap>,
    difference: Vec<OwnedEventId>,
    known: HashMap<OwnedEventId, Arc<Pdu>>,
}

impl<R: Read> Gathering<'_, R> {
    async fn resolve(mut self, rows: SearchRows) -> Result<Resolved, ResolveStateError> {
        let input = self.gather(rows).await?;
        let rules = self.rules;
        let decide = move || {
            let Input { forks, difference, known } = input;
            let event = |id: &ruma::EventId| known.get(id).cloned();
            state_res::resolve(rules, &forks, difference.into_iter().collect(), event)
        };
        let state = match self.events.len() {
            ..=EVENTS_INLINE_MAX => decide()?,
            _ => match tokio::task::spawn_blocking(decide).await {
                Ok(decided) => decided?,
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
            },
        };
        self.changes(state).await
    }

    /// Reads whatever the rules may ask for.
    async fn gather(&mut self, rows: SearchRows) -> Result<Input, ResolveStateError> {
        let conflicted = self.conflict.events();
        self.load(&conflicted).await?;
        let (mut difference, mut between) = (Vec::new(), Vec::new());
        if let StateResolutionVersion::V2(v2) = &self.rules.state_res {
            let core = self.conflict.shared(&self.source, self.places_read(&conflicted)).await?;
            let core: Vec<u64> = core.into_iter().map(|(_, event)| event).collect();
            let (source, conflict) = (&self.source, &self.conflict);
            difference = difference::auth_difference(source, conflict, &core, rows).await?;
            if v2.consider_conflicted_state_subgraph {
                between = subgraph::between(source, &conflicted).await?;
            }
        }
        let mut full = conflicted;
        full.extend(difference.iter().chain(&between));
        full.sort_unstable();
        full.dedup();
        self.load(&full).await?;
        let shared = self.conflict.shared(&self.source, self.places_read(&full)).await?;
        self.load(&shared.iter().map(|(_, event)| *event).collect::<Vec<_>>()).await?;
        let known = match self.rules.state_res {
            StateResolutionVersion::V2(_) => self.with_auth_events(&full, &shared).await?,
            _ => self.events.values().map(as_known).collect(),
        };
        let ids = |events: Vec<u64>| events.iter().map(|event| self.id(*event)).collect();
        Ok(Input { forks: self.forks(&shared), difference: ids(difference), known })
    }

    async fn load(&mut self, numbers: &[u64]) -> Result<(), ResolveStateError> {
        let mut absent = numbers.to_vec();
        absent.retain(|number| !self.events.contains_key(number));
        let Source { rooms, read, room } = self.source;
        for event in rooms.events.load(read, room, self.version, &absent).await? {
            self.events.insert(event.number, event);
        }
        Ok(())
    }

    /// The places of the state that the auth rules read for any of these events.
    fn places_read(&self, events: &[u64]) -> FxHashSet<StateKey> {
        // In room version 12 it is no auth event, but is read all the same.
        let create = (StateEventType::RoomCreate, String::new());
        let mut places = FxHashSet::from_iter([state_key(&create)]);
        for pdu in events.iter().map(|event| &self.events[event].pdu) {
            let key = pdu.state_key.as_deref();
            let read =
                auth::auth_types_for_event(&pdu.kind, &pdu.sender, key, &pdu.content, self.rules);
            // Where the content does not say, the rules refuse the event unseen.
            places.extend(read.iter().flatten().map(state_key));
        }
        places
    }

    /// The events loaded, the auth events of `full`, and what the mainline ordering reads.
    async fn with_auth_events(
        &mut self,
        full: &[u64],
        shared: &[(StateKey, u64)],
    ) -> Result<HashMap<OwnedEventId, Arc<Pdu>>, ResolveStateError> {
        let (links, room) = (&self.source.rooms.links, self.source.room);
        let linked = links.load(self.source.read, room, full).await?;
        let mut auth: Vec<u64> =
            linked.iter().flat_map(|links| links.auth.iter().copied()).collect();
        auth.sort_unstable();
        auth.dedup();
        self.load(&auth).await?;
        let levels = TimelineEventType::RoomPowerLevels.to_string();
        let is_levels = |place: &StateKey| as_key(place) == (&levels, "");
        let mut starts = full.to_vec();
        starts.extend(shared.iter().filter(|(place, _)| is_levels(place)).map(|(_, event)| *event));
        let whole: FxHashSet<u64> = full.iter().copied().collect();
        let steps = mainlines(&self.source, &starts, &whole).await?;
        self.load(&steps.iter().map(|step| step.event).collect::<Vec<_>>()).await?;
        let mut known: HashMap<_, _> = self.events.values().map(as_known).collect();
        for step in steps.iter().filter(|step| !whole.contains(&step.event)) {
            // Only read for the next one of its mainline, and for its content.
            let mut pdu = self.events[&step.event].pdu.clone();
            pdu.auth_events = step.before.map(|event| self.id(event)).into_iter().collect();
            known.insert(pdu.event_id.clone(), Arc::new(pdu));
        }
        Ok(known)
    }

    fn id(&self, event: u64) -> OwnedEventId {
        self.events[&event].pdu.event_id.clone()
    }

    /// The forks as far as they differ, each with what was read of what they share.
    fn forks(&self, shared: &[(StateKey, u64)]) -> Vec<StateMap> {
        let entry = |place: &StateKey, event: u64| {
            ((place.event_type.as_str().into(), place.state_key.clone()), self.id(event))
        };
        let shared = StateMap::from_iter(shared.iter().map(|(place, event)| entry(place, *event)));
        let fork = |fork: usize| {
            let held = self.conflict.places.iter();
            let held = held.filter_map(|(place, held)| Some(entry(place, held[fork]?)));
            shared.clone().into_iter().chain(held).collect()
        };
        (0..self.conflict.roots.len()).map(fork).collect()
    }

    /// How the resolved `state` differs from the fork that it differs least from.
    async fn changes(&self, state: StateMap) -> Result<Resolved, ResolveStateError> {
        let numbers: FxHashMap<_, _> =
            self.events.values().map(|event| (&*event.pdu.event_id, event.number)).collect();
        let mut resolved: FxHashMap<StateKey, u64> =
            state.iter().map(|(place, id)| (state_key(place), numbers[&**id])).collect();
        let places = &self.conflict.places;
        let unlike = |fork: usize| {
            places
                .iter()
                .filter(|(place, held)| held[fork] != resolved.get(*place).copied())
                .count()
        };
        let forks = 0..self.conflict.roots.len();
        let fork = forks.min_by_key(|fork| unlike(*fork)).unwrap_or_default();
        let mut changes: Vec<Difference> = places
            .iter()
            .map(|(key, held)| Difference {
                key: key.clone(),
                old: held[fork],
                new: resolved.remove(key),
            })
            .filter(|change| change.old != change.new)
            .collect();
        // What the auth difference has put where no fork has anything. Where all have the same,
        // that is what stays.
        let shared = self.conflict.shared(&self.source, resolved.keys().cloned()).await?;
        for (place, _) in shared {
            resolved.remove(&place);
        }
        let added = resolved.into_iter();
        changes.extend(added.map(|(key, new)| Difference { key, old: None, new: Some(new) }));
        changes.sort_unstable();
        Ok(Resolved { base: self.conflict.roots[fork], changes })
    }
}

fn state_key((kind, key): &(StateEventType, String)) -> StateKey {
    StateKey { event_type: kind.to_string(), state_key: key.clone() }
}

fn as_known(event: &Arc<Event>) -> (OwnedEventId, Arc<Pdu>) {
    (event.pdu.event_id.clone(), Arc::new(event.pdu.clone()))
}
