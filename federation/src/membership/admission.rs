//! What a server answered to our join, checked before anything of it is stored.

use std::collections::{HashMap, HashSet};

use millrace_domain::rooms::import::{Admission, Omitted};
use millrace_model::{
    Pdu,
    rules::{
        auth::{self, Refused},
        room_version,
    },
};
use ruma::{
    EventId, OwnedEventId, RoomId, RoomVersionId,
    events::{StateEventType, TimelineEventType},
};
use serde::Deserialize;
use std::sync::Arc;

/// Why an answer to a join cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    /// An event of another room.
    #[error("{0} belongs to another room")]
    OtherRoom(OwnedEventId),
    /// Something in the state that is no state event.
    #[error("{0} is no state event")]
    NotState(OwnedEventId),
    /// Two events for one place of the state.
    #[error("two events claim to be the {kind} of {state_key:?}")]
    Twice {
        /// The type.
        kind: TimelineEventType,
        /// The state key.
        state_key: String,
    },
    /// The state has no usable create event.
    #[error("the state has no create event")]
    NoCreate,
    /// The create event is that of a room of another version than was said.
    #[error("the room has version {0}, not the one that was said")]
    OtherVersion(RoomVersionId),
    /// The join event that came back is not ours.
    #[error("another event than our join came back")]
    OtherJoin,
    /// What authorises the join is not among what was sent.
    #[error("{0}, which authorises the join, is missing")]
    Missing(OwnedEventId),
    /// The state does not allow our join.
    #[error("the state that was sent does not admit the user: {0}")]
    NotAdmitted(#[from] Refused),
}

/// What an answer says, its events checked each by itself.
#[derive(Debug)]
pub(super) struct Answer {
    pub state: Vec<Pdu>,
    pub auth_chain: Vec<Pdu>,
    /// Our event as the other server has it.
    pub join: Option<Pdu>,
    /// What is told in the place of the members.
    pub omitted: Option<Omitted>,
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<RoomVersionId>,
}

/// The room as it can be stored. What the chains of some events lack makes those events useless, and
/// they are left out; without the create event or what authorises our join, there is no room.
pub(super) fn admission(
    room: &RoomId,
    version: &RoomVersionId,
    join: Pdu,
    answer: Answer,
) -> Result<Admission, BadAnswer> {
    let Answer { state, auth_chain, join: returned, omitted } = answer;
    for pdu in state.iter().chain(&auth_chain) {
        if pdu.room_id != room {
            return Err(BadAnswer::OtherRoom(pdu.event_id.clone()));
        }
    }
    let join = match returned {
        None => join,
        Some(returned) if returned.event_id == join.event_id && returned.room_id == room => {
            returned
        }
        Some(_) => return Err(BadAnswer::OtherJoin),
    };
    let founded = founded(state.iter().chain(&auth_chain));
    let state: Vec<Pdu> = state.into_iter().filter(|pdu| founded.contains(&pdu.event_id)).collect();
    let mut known: HashSet<OwnedEventId> = state.iter().map(|pdu| pdu.event_id.clone()).collect();
    let auth_chain: Vec<Pdu> = auth_chain
        .into_iter()
        .filter(|pdu| founded.contains(&pdu.event_id) && known.insert(pdu.event_id.clone()))
        .collect();
    if let Some(missing) = join.auth_events.iter().find(|id| !known.contains(*id)) {
        return Err(BadAnswer::Missing(missing.clone()));
    }
    // Members whom the state is told without are those that authorise the join.
    let named = auth_chain.iter().filter(|pdu| join.auth_events.contains(&pdu.event_id));
    let named = named.filter(|pdu| omitted.is_some() && pdu.kind == TimelineEventType::RoomMember);
    check_state(version, (&state, &named.collect::<Vec<_>>()), &join)?;
    let (room, version) = (room.to_owned(), version.clone());
    Ok(Admission { room, version, join, state, auth_chain, omitted })
}

fn check_state(
    version: &RoomVersionId,
    (state, named): (&[Pdu], &[&Pdu]),
    join: &Pdu,
) -> Result<(), BadAnswer> {
    let mut places: HashMap<(String, &str), &Pdu> = HashMap::with_capacity(state.len());
    for pdu in state {
        let not_state = || BadAnswer::NotState(pdu.event_id.clone());
        let key = pdu.state_key.as_deref().ok_or_else(not_state)?;
        if places.insert((pdu.kind.to_string(), key), pdu).is_some() {
            return Err(BadAnswer::Twice { kind: pdu.kind.clone(), state_key: key.to_owned() });
        }
    }
    let create = places.get(&("m.room.create".to_owned(), "")).ok_or(BadAnswer::NoCreate)?;
    let content: CreateContent = create.content_as().map_err(|_| BadAnswer::NoCreate)?;
    let said = content.room_version.unwrap_or(RoomVersionId::V1);
    if said != *version {
        return Err(BadAnswer::OtherVersion(said));
    }
    let rules = room_version::rules(version).ok_or(BadAnswer::OtherVersion(said))?;
    auth::check(join, rules, |kind: &StateEventType, key| {
        let held = places.get(&(kind.to_string(), key)).copied();
        let is_it = |pdu: &&&Pdu| pdu.state_place() == Some((kind.clone(), key));
        let named = || named.iter().find(is_it).copied();
        held.or_else(named).map(|pdu| Arc::new(pdu.clone()))
    })?;
    Ok(())
}

/// The events whose auth chains are whole, down to events that need none.
fn founded<'a>(events: impl Iterator<Item = &'a Pdu>) -> HashSet<OwnedEventId> {
    let events: HashMap<&EventId, &Pdu> = events.map(|pdu| (&*pdu.event_id, pdu)).collect();
    let mut lacking: HashMap<&EventId, usize> = HashMap::with_capacity(events.len());
    let mut dependents: HashMap<&EventId, Vec<&EventId>> = HashMap::new();
    let mut ready = Vec::new();
    for (id, pdu) in &events {
        let needs: HashSet<&EventId> = pdu.auth_events.iter().map(|id| &**id).collect();
        if needs.is_empty() {
            ready.push(*id);
        }
        lacking.insert(id, needs.len());
        for need in needs {
            dependents.entry(need).or_default().push(id);
        }
    }
    let mut founded = HashSet::with_capacity(events.len());
    while let Some(id) = ready.pop() {
        founded.insert(id.to_owned());
        for dependent in dependents.get(id).into_iter().flatten() {
            if let Some(count) = lacking.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(*dependent);
                }
            }
        }
    }
    founded
}
