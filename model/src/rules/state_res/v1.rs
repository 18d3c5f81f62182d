//! The first version of state resolution, which only room version 1 uses (spec: room version 1,
//! State resolution).

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};
use sha1::{Digest, Sha1};

use super::{ResolveError, StateMap};
use crate::{pdu::Pdu, rules::auth};

type Place = (StateEventType, String);

/// The kinds of events whose conflicts are resolved first, each in the light of those before it.
const AUTH_KINDS: [StateEventType; 3] =
    [StateEventType::RoomPowerLevels, StateEventType::RoomJoinRules, StateEventType::RoomMember];

/// The state as resolved so far (*R* in the specification), with the events it holds.
struct Resolved<'a> {
    rules: &'a RoomVersionRules,
    state: StateMap,
    events: RefCell<HashMap<OwnedEventId, Arc<Pdu>>>,
}

/// Resolves `forks`, whatever their order.
pub(super) fn resolve(
    rules: &RoomVersionRules,
    forks: &[StateMap],
    event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<StateMap, ResolveError> {
    let mut candidates: HashMap<&Place, BTreeSet<&OwnedEventId>> = HashMap::new();
    for (place, id) in forks.iter().flatten() {
        candidates.entry(place).or_default().insert(id);
    }
    // An event that some forks lack conflicts with nothing.
    let (settled, conflicts): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|(_, ids)| ids.len() == 1);
    let state = settled
        .into_iter()
        .filter_map(|(place, ids)| Some((place.clone(), (*ids.first()?).clone())))
        .collect();
    let mut sorted: BTreeMap<&Place, Vec<Arc<Pdu>>> = BTreeMap::new();
    for (place, ids) in conflicts {
        let load = |id: &OwnedEventId| event(id).ok_or_else(|| ResolveError::Missing(id.clone()));
        let mut events = ids.into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        events.sort_by_cached_key(|event| (event.depth, Reverse(sha1(&event.event_id))));
        sorted.insert(place, events);
    }
    let mut resolved = Resolved { rules, state, events: RefCell::default() };
    for kind in AUTH_KINDS {
        for (place, events) in sorted.iter().filter(|(place, _)| place.0 == kind) {
            resolved.settle_in_order(place, events, &event);
        }
    }
    for (place, events) in sorted.iter().filter(|(place, _)| !AUTH_KINDS.contains(&place.0)) {
        resolved.settle_by_latest(place, events, &event);
    }
    Ok(resolved.state)
}

impl Resolved<'_> {
    /// Takes the first event, then each next one for as long as it is allowed after those before.
    fn settle_in_order(
        &mut self,
        place: &Place,
        events: &[Arc<Pdu>],
        lookup: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
    ) {
        for (n, event) in events.iter().enumerate() {
            if n > 0 && !self.allows(event, lookup) {
                return;
            }
            self.state.insert(place.clone(), event.event_id.clone());
        }
    }

    /// Takes the last event that is allowed.
    fn settle_by_latest(
        &mut self,
        place: &Place,
        events: &[Arc<Pdu>],
        lookup: &impl Fn(&EventId) -> Option<Arc<Pdu>>,
    ) {
        if let Some(event) = events.iter().rev().find(|event| self.allows(event, lookup)) {
            self.state.insert(place.clone(), event.event_id.clone());
        }
    }

    fn allows(&self, event: &Pdu, lookup: &impl Fn(&EventId) -> Option<Arc<Pdu>>) -> bool {
        let in_state = |kind: &StateEventType, key: &str| {
            let id = self.state.get(&(kind.clone(), key.to_owned()))?;
            if let Some(known) = self.events.borrow().get(id) {
                return Some(Arc::clone(known));
            }
            let found = lookup(id)?;
            self.events.borrow_mut().insert(id.clone(), Arc::clone(&found));
            Some(found)
        };
        auth::check(event, self.rules, in_state).is_ok()
    }
}

fn sha1(id: &EventId) -> [u8; 20] {
    Sha1::digest(id.as_bytes()).into()
}
