//! Outliers: events that are known only as state or auth events of others. They have no place in
//! the room's graph, and no state before them is known.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures::FutureExt;
use millrace_model::{Pdu, rules::room_version};
use millrace_store::{
    Read, Tx,
    rows::room::EventHeader,
    tables::{EVENT_HEADERS, EVENT_NUMBERS},
};
use ruma::{
    EventId, OwnedEventId, RoomId, RoomVersionId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};

use super::{
    AppendError, Event, Numbers, ReceiveError, Rooms, accept, judge::check_by_auth_events,
    receive::unknown,
};

/// So many events, and about so many bytes of them, are written by one commit.
const EVENTS_PER_COMMIT: usize = 256;
const BYTES_PER_COMMIT: usize = 1 << 20;

/// Stores events that are known only as state or auth events of others, in any order; their auth
/// events must be among them or stored. They are checked by their auth events, and kept as rejected
/// where those do not allow them. Written in small commits; what is stored already is left as it is.
///
/// # Errors
/// [`ReceiveError::MissingAuthEvents`] before anything is written.
pub async fn store_outliers(
    rooms: &Rooms,
    room: &RoomId,
    version: &RoomVersionId,
    pdus: Vec<Pdu>,
) -> Result<(), ReceiveError> {
    let rules = (rooms.env.rules)(version).ok_or_else(|| ReceiveError::Version(version.clone()))?;
    if let Some(pdu) = pdus.iter().find(|pdu| pdu.room_id != room) {
        let (event, room) = (pdu.event_id.clone(), room.to_owned());
        return Err(ReceiveError::WrongRoom { event, room });
    }
    let snapshot = rooms.env.store.snapshot();
    let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id.clone()).collect();
    let new: HashSet<OwnedEventId> = unknown(&snapshot, room, &ids).await?.into_iter().collect();
    let pdus: Vec<Pdu> = pdus.into_iter().filter(|pdu| new.contains(&pdu.event_id)).collect();
    let known = load_cited(rooms, (room, version), &pdus).await?;
    let judged = judge(authority_first(pdus), known, rules);
    let mut rest = &judged[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(EVENTS_PER_COMMIT).take_while(|pdu| {
            bytes += pdu.json().len();
            bytes <= BYTES_PER_COMMIT
        });
        let (chunk, later) = rest.split_at(fits.count().max(1));
        write(rooms, room, rules, chunk).await?;
        rest = later;
    }
    Ok(())
}

/// Loads the auth events that are stored. An error where one is neither stored nor among `pdus`.
async fn load_cited(
    rooms: &Rooms,
    (room, version): (&RoomId, &RoomVersionId),
    pdus: &[Pdu],
) -> Result<HashMap<OwnedEventId, Arc<Event>>, ReceiveError> {
    let here: HashSet<&EventId> = pdus.iter().map(|pdu| &*pdu.event_id).collect();
    let mut cited: HashSet<OwnedEventId> =
        pdus.iter().flat_map(|pdu| &pdu.auth_events).cloned().collect();
    // In room version 12 the create event is named by the room.
    cited.extend(create_of(room, version).filter(|_| !pdus.is_empty()));
    let cited: Vec<OwnedEventId> = cited.into_iter().filter(|id| !here.contains(&**id)).collect();
    let snapshot = rooms.env.store.snapshot();
    let numbers = snapshot.get_many(&EVENT_NUMBERS, room, cited.iter()).await?;
    let missing = cited.iter().zip(&numbers).filter(|(_, number)| number.is_none());
    let missing: Vec<OwnedEventId> = missing.map(|(id, _)| id.clone()).collect();
    if !missing.is_empty() {
        return Err(ReceiveError::MissingAuthEvents(missing));
    }
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    let events = rooms.events.load(&snapshot, room, version, &numbers).await;
    let events = events.map_err(AppendError::from)?;
    Ok(cited.into_iter().zip(events).collect())
}

/// The create event that a room's ID names, from room version 12 on.
pub(super) fn create_of(room: &RoomId, version: &RoomVersionId) -> Option<OwnedEventId> {
    let rules = room_version::rules(version)?;
    let named = rules.authorization.room_create_event_id_as_room_id;
    named.then(|| EventId::parse(format!("${}", &room.as_str()[1..])).ok()).flatten()
}

/// Judges events by their auth events; those come first.
fn judge(
    pdus: Vec<Pdu>,
    known: HashMap<OwnedEventId, Arc<Event>>,
    rules: &RoomVersionRules,
) -> Vec<Arc<Pdu>> {
    let mut judged: Vec<Arc<Pdu>> = Vec::with_capacity(pdus.len());
    let mut at: HashMap<OwnedEventId, usize> = HashMap::with_capacity(pdus.len());
    for mut pdu in pdus {
        let find = |id: &EventId| match at.get(id) {
            Some(at) => Some(&*judged[*at]),
            None => known.get(id).map(|event| &event.pdu),
        };
        let auth_events: Vec<&Pdu> = pdu.auth_events.iter().filter_map(|id| find(id)).collect();
        let create = EventId::parse(format!("${}", &pdu.room_id.as_str()[1..])).ok();
        let create = create.as_deref().and_then(find);
        let checked = check_by_auth_events(&pdu, &auth_events, create, rules);
        if let Err(refused) = checked {
            tracing::info!(event = %pdu.event_id, %refused, "an outlier was rejected");
            pdu.rejected = true;
        }
        at.insert(pdu.event_id.clone(), judged.len());
        judged.push(Arc::new(pdu));
    }
    judged
}

async fn write(
    rooms: &Rooms,
    room: &RoomId,
    rules: &'static RoomVersionRules,
    pdus: &[Arc<Pdu>],
) -> Result<(), ReceiveError> {
    let numbers = &Numbers::draw(rooms, pdus.len()).await?.take();
    let body = |tx: Tx| {
        async move {
            let ids = pdus.iter().map(|pdu| &*pdu.event_id);
            let stored = tx.get_many(&EVENT_NUMBERS, room, ids).await?;
            let new = pdus.iter().zip(stored).filter(|(_, stored)| stored.is_none());
            for ((pdu, _), number) in new.zip(numbers) {
                let event = Event::new(*number, Pdu::clone(pdu), rules);
                let event = accept::store(&tx, rooms, room, event).await?;
                let header = EventHeader {
                    event_id: event.pdu.event_id.clone(),
                    place: None,
                    before: None,
                    outlier: true,
                    rejected: event.pdu.rejected,
                    soft_failed: false,
                    redacted_by: None,
                    related: false,
                    aggregated: false,
                    replaces: None,
                };
                tx.put(&EVENT_HEADERS, room, *number, &header);
            }
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}

/// Orders events so that each comes after its auth events, and each once.
fn authority_first(mut pdus: Vec<Pdu>) -> Vec<Pdu> {
    let mut ids = HashSet::new();
    pdus.retain(|pdu| ids.insert(pdu.event_id.clone()));
    let at: HashMap<&EventId, usize> =
        pdus.iter().enumerate().map(|(at, pdu)| (&*pdu.event_id, at)).collect();
    let mut citing: Vec<Vec<usize>> = vec![Vec::new(); pdus.len()];
    let mut waits_for = vec![0usize; pdus.len()];
    for (citer, pdu) in pdus.iter().enumerate() {
        for cited in pdu.auth_events.iter().filter_map(|id| at.get(&**id)) {
            citing[*cited].push(citer);
            waits_for[citer] += 1;
        }
    }
    let mut first: Vec<usize> = (0..pdus.len()).filter(|at| waits_for[*at] == 0).collect();
    // In room version 12 the create event authorises all others without being named.
    first.sort_by_key(|at| pdus[*at].kind != TimelineEventType::RoomCreate);
    let mut open = VecDeque::from(first);
    let mut order = Vec::with_capacity(pdus.len());
    while let Some(next) = open.pop_front() {
        order.push(next);
        for citer in &citing[next] {
            waits_for[*citer] -= 1;
            if waits_for[*citer] == 0 {
                open.push_back(*citer);
            }
        }
    }
    let mut pdus: Vec<Option<Pdu>> = pdus.into_iter().map(Some).collect();
    // Events that authorise each other in a circle, as only made-up IDs can, are left out.
    order.into_iter().filter_map(|at| pdus[at].take()).collect()
}
