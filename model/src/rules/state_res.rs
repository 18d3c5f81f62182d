//! State resolution: one state out of several forks (spec: Server-Server API, Room State Resolution;
//! room versions 1, 2 and 12).
//!
//! Versions 2 and 2.1 of the algorithm are ruma's, version 1 is here. All of it works on what it is
//! given: the forks may be whole states, or only those entries of them that differ and that the auth
//! rules may read, as long as the auth difference is that of the whole states.

mod v1;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules, StateResolutionVersion},
    state_res::{self, utils::event_id_set::EventIdSet},
};

use super::{owned_state, room_version};
use crate::pdu::Pdu;

/// A room's state: which event each `(type, state_key)` holds.
pub type StateMap = state_res::StateMap<OwnedEventId>;

/// Why forks could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// An event of the forks or of their auth chains is not there.
    #[error("event {0} is needed to resolve the state and is not known")]
    Missing(OwnedEventId),
    /// An accepted event turned out to be malformed.
    #[error("the state cannot be resolved: {0}")]
    Malformed(String),
}

impl From<state_res::Error> for ResolveError {
    fn from(error: state_res::Error) -> Self {
        match error {
            state_res::Error::NotFound(id) => Self::Missing(id),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Resolves `forks` into one state. `auth_difference` is every event that is in the auth chain of
/// some, but not all of the whole states (see [`auth_difference`]); version 1 does not look at it.
/// `event` looks up an event by its ID.
///
/// # Errors
/// Where an event is missing or malformed.
pub fn resolve(
    rules: &RoomVersionRules,
    forks: &[StateMap],
    auth_difference: HashSet<OwnedEventId>,
    event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    let StateResolutionVersion::V2(v2) = &rules.state_res else {
        return v1::resolve(rules, forks, event);
    };
    // Ruma takes the difference of auth chains itself: of this one and an empty one it is this one.
    let chains = vec![auth_difference.into_iter().collect(), EventIdSet::new()];
    if room_version::owns_state(rules) {
        return resolve_owned(rules, *v2, forks, chains, event);
    }
    let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
        Some(conflicted_subgraph(conflicted.values().flatten(), &event))
    };
    Ok(state_res::resolve(&rules.authorization, v2, forks, chains, &event, subgraph)?)
}

/// As [`resolve`] of version 2, where state has owners: ruma sees it under marked keys.
fn resolve_owned(
    rules: &RoomVersionRules,
    v2: StateResolutionV2Rules,
    forks: &[StateMap],
    chains: Vec<EventIdSet<OwnedEventId>>,
    event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    let mark = |((kind, key), id): (&(StateEventType, String), &OwnedEventId)| {
        let owned = owned_state::is_owned(&kind.to_string().into(), Some(key));
        let key = if owned { owned_state::marked(key) } else { key.clone() };
        ((kind.clone(), key), id.clone())
    };
    let forks: Vec<StateMap> = forks.iter().map(|fork| fork.iter().map(mark).collect()).collect();
    let event = |id: &EventId| event(id).map(owned_state::Marked::new);
    let subgraph = |_: &state_res::StateMap<Vec<OwnedEventId>>| Some(EventIdSet::new());
    let resolved = state_res::resolve(&rules.authorization, &v2, &forks, chains, event, subgraph)?;
    let unmark = |((kind, key), id)| ((kind, owned_state::unmarked(key)), id);
    Ok(resolved.into_iter().map(unmark).collect())
}

/// The auth difference of whole states: every event that is in the auth chain of at least one, but
/// not of all. Walks the whole chains; whoever knows what the forks share passes less to
/// [`resolve`].
///
/// # Errors
/// Where an event is missing.
pub fn auth_difference(
    forks: &[StateMap],
    event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<HashSet<OwnedEventId>, ResolveError> {
    let mut seen_in: HashMap<OwnedEventId, usize> = HashMap::new();
    for fork in forks {
        for id in auth_chain(fork.values(), &event)? {
            *seen_in.entry(id).or_default() += 1;
        }
    }
    let all = forks.len();
    Ok(seen_in.into_iter().filter(|&(_, count)| count < all).map(|(id, _)| id).collect())
}

/// All auth events of `events`, and theirs, and so on; without `events` themselves unless they are
/// auth events of another.
fn auth_chain<'a>(
    events: impl Iterator<Item = &'a OwnedEventId>,
    event: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<HashSet<OwnedEventId>, ResolveError> {
    let load = |id: &EventId| event(id).ok_or_else(|| ResolveError::Missing(id.to_owned()));
    let mut chain = HashSet::new();
    let mut open = Vec::new();
    for id in events {
        open.extend(load(id)?.auth_events.iter().cloned());
    }
    while let Some(id) = open.pop() {
        if !chain.contains(&id) {
            open.extend(load(&id)?.auth_events.iter().cloned());
            chain.insert(id);
        }
    }
    Ok(chain)
}

/// The events on all paths along `auth_events` from one conflicted event to another, ends included.
fn conflicted_subgraph<'a>(
    conflicted: impl Iterator<Item = &'a OwnedEventId>,
    event: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> EventIdSet<OwnedEventId> {
    let mut subgraph: HashSet<OwnedEventId> = conflicted.cloned().collect();
    // Every event reachable from a conflicted one is visited once, after its auth events, so that
    // it is known then whether a conflicted event can be reached from it.
    let mut visited: HashSet<OwnedEventId> = HashSet::new();
    let mut open: Vec<(OwnedEventId, bool)> =
        subgraph.iter().map(|id| (id.clone(), false)).collect();
    while let Some((id, is_left)) = open.pop() {
        let Some(pdu) = event(&id) else {
            continue;
        };
        if is_left {
            if pdu.auth_events.iter().any(|auth| subgraph.contains(auth)) {
                subgraph.insert(id);
            }
        } else if visited.insert(id.clone()) {
            open.push((id, true));
            open.extend(pdu.auth_events.iter().map(|auth| (auth.clone(), false)));
        }
    }
    subgraph.into_iter().collect()
}

#[cfg(test)]
mod tests;
