//! Auth chains: what authorises events, what authorises that, and so on (spec: Server-Server API,
//! Definitions).

use std::collections::{BTreeSet, HashSet};

use millrace_model::Pdu;
use millrace_store::{
    Read,
    tables::{EVENT_NUMBERS, ROOM_HEAD},
};
use ruma::{OwnedEventId, RoomId, RoomVersionId};

use super::{Rooms, events::LoadError};

/// Events that one step of the walk loads.
const EVENTS_PER_STEP: usize = 500;

/// Those of the events that are stored here and were not rejected, with all that authorises them.
///
/// # Errors
/// Where an event cannot be loaded.
pub async fn stored(
    rooms: &Rooms,
    room: &RoomId,
    ids: &[OwnedEventId],
) -> Result<Vec<Pdu>, LoadError> {
    let snapshot = rooms.env.store.snapshot();
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(Vec::new()) };
    let numbers = snapshot.get_many(&EVENT_NUMBERS, room, ids.iter()).await?;
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    let mut all = auth_chain(rooms, &snapshot, (room, &head.version), &numbers).await?;
    all.extend(numbers);
    let all: Vec<u64> = all.into_iter().collect();
    let events = rooms.events.load(&snapshot, room, &head.version, &all).await?;
    let accepted = events.iter().filter(|event| !event.pdu.rejected);
    Ok(accepted.map(|event| event.pdu.clone()).collect())
}

/// Numbers of all events in the auth chains of `events`, in order of their number. An event of
/// `events` is among them only where another one builds on it.
///
/// # Errors
/// Where an event cannot be loaded.
pub async fn auth_chain(
    rooms: &Rooms,
    read: &impl Read,
    (room, version): (&RoomId, &RoomVersionId),
    events: &[u64],
) -> Result<BTreeSet<u64>, LoadError> {
    let mut chain = BTreeSet::new();
    let mut walked: HashSet<u64> = HashSet::new();
    let mut named: HashSet<OwnedEventId> = HashSet::new();
    let mut open: Vec<u64> = events.to_vec();
    while !open.is_empty() {
        let step = open.split_off(open.len().saturating_sub(EVENTS_PER_STEP));
        let step: Vec<u64> = step.into_iter().filter(|number| walked.insert(*number)).collect();
        let mut next = Vec::new();
        for event in rooms.events.load(read, room, version, &step).await? {
            for id in &event.pdu.auth_events {
                if named.insert(id.clone()) {
                    next.push(id.clone());
                }
            }
        }
        let numbers = read.get_many(&EVENT_NUMBERS, room, next.iter().map(|id| &**id)).await?;
        for number in numbers.into_iter().flatten() {
            chain.insert(number);
            open.push(number);
        }
    }
    Ok(chain)
}
