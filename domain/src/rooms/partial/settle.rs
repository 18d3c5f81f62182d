//! Taking over the complete state before an event that was told without members.

use std::collections::HashMap;

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    rows::partial::{Before, Ending},
    state_tree::{Change, StateRoot},
    tables::{AUTH_LINKS, COMPLETION, EVENT_HEADERS, EVENT_NUMBERS, PARTIAL_EVENTS, ROOM_HEAD},
};
use ruma::{OwnedEventId, RoomId, RoomVersionId, ServerName};

use super::CompleteError;
use crate::rooms::{AppendError, ReceiveError, Rooms, import::write_nodes};

/// Rows that one step reads.
const ROWS_PER_STEP: usize = 1000;

/// An event of a partial room, before which a state is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// Its number.
    pub number: u64,
    /// Its ID.
    pub event_id: OwnedEventId,
    /// The events before it.
    pub prev_events: Vec<OwnedEventId>,
    /// Whether the room was joined anew since: then it matters for history only.
    pub superseded: bool,
}

/// What is wanted for completing a room.
#[derive(Debug, Clone)]
pub struct Want {
    /// The room's version.
    pub version: RoomVersionId,
    /// The server that told the state without members.
    pub told_by: Option<ruma::OwnedServerName>,
    /// The events, in the order of their coming.
    pub events: Vec<Incomplete>,
    /// Whether somebody of ours is in the room: else nobody would tell us.
    pub is_resident: bool,
}

/// The events of a partial room before which a state is wanted; `None` where the room is complete.
///
/// # Errors
/// Where the store cannot be read.
pub async fn wanted(rooms: &Rooms, room: &RoomId) -> Result<Option<Want>, CompleteError> {
    let snapshot = rooms.env.store.snapshot();
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(None) };
    if head.partial.is_none() {
        return Ok(None);
    }
    let completion = snapshot.get(&COMPLETION, room, ()).await?.unwrap_or_default();
    let mut events: Vec<Incomplete> = Vec::new();
    let mut scan = Scan::all();
    loop {
        let rows = snapshot.scan(&PARTIAL_EVENTS, room, scan.limit(ROWS_PER_STEP)).await?;
        let Some((last, _)) = rows.last() else { break };
        scan = Scan::all().after(*last);
        for (_, row) in rows {
            if row.ending == Ending::Only && row.before != Before::Predecessors {
                events.iter_mut().for_each(|event| event.superseded = true);
            }
            let known = completion.states.iter().any(|(number, _)| *number == row.event);
            if row.before != Before::Omitted || known {
                continue;
            }
            let event = rooms.events.load_one(&snapshot, room, &head.version, row.event).await;
            let pdu = &event.map_err(AppendError::from)?.pdu;
            let (event_id, prev_events) = (pdu.event_id.clone(), pdu.prev_events.clone());
            let number = row.event;
            events.push(Incomplete { number, event_id, prev_events, superseded: false });
        }
    }
    let told_by = completion.told_by;
    let is_resident = head.joined_here > 0;
    Ok(Some(Want { version: head.version, told_by, events, is_resident }))
}

/// The state before an event, as another server told it: all of it is stored.
#[derive(Debug, Clone)]
pub struct ToldState {
    /// The events of the state before the event, or before the one that it follows.
    pub state: Vec<OwnedEventId>,
    /// The one that it follows, which itself may be a part of the state.
    pub then: Option<OwnedEventId>,
}

/// Takes over the complete state before the event of this number.
///
/// # Errors
/// [`CompleteError::OtherState`] where it cannot be a state of the room.
pub async fn settle(
    rooms: &Rooms,
    room: &RoomId,
    number: u64,
    told: &ToldState,
) -> Result<(), CompleteError> {
    let snapshot = rooms.env.store.snapshot();
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
    let header = snapshot.get(&EVENT_HEADERS, room, number).await?;
    let known = header.and_then(|header| header.before).unwrap_or(StateRoot::EMPTY);
    let mut state: HashMap<(String, String), u64> = HashMap::with_capacity(told.state.len());
    let ids: Vec<&OwnedEventId> = told.state.iter().chain(&told.then).collect();
    for step in ids.chunks(ROWS_PER_STEP) {
        // What the event before it sets comes last.
        state.extend(places_of(&snapshot, room, step).await?);
    }
    let create = ("m.room.create".to_owned(), String::new());
    if state.get(&create) != Some(&head.create) {
        return Err(CompleteError::OtherState(room.to_owned()));
    }
    let root = write_state(rooms, room, known, state).await?;
    note(rooms, room, (number, root)).await
}

/// What is known of the state before an event is taken for all of it: nobody tells more.
///
/// # Errors
/// Where the store fails.
pub async fn give_up(rooms: &Rooms, room: &RoomId, number: u64) -> Result<(), CompleteError> {
    let header = rooms.env.store.snapshot().get(&EVENT_HEADERS, room, number).await?;
    let known = header.and_then(|header| header.before).unwrap_or(StateRoot::EMPTY);
    note(rooms, room, (number, known)).await
}

/// Remembers which server told the state without members: it is asked first.
pub(in crate::rooms) async fn told_by(
    tx: &Tx,
    room: &RoomId,
    server: &ServerName,
) -> millrace_store::Result<()> {
    let mut completion = tx.get(&COMPLETION, room, ()).await?.unwrap_or_default();
    completion.told_by = Some(server.to_owned());
    tx.put(&COMPLETION, room, (), &completion);
    Ok(())
}

/// The places that these events set, as far as they were not rejected.
async fn places_of(
    read: &impl Read,
    room: &RoomId,
    ids: &[&OwnedEventId],
) -> Result<Vec<((String, String), u64)>, CompleteError> {
    let numbers = read.get_many(&EVENT_NUMBERS, room, ids.iter().copied()).await?;
    let missing = ids.iter().zip(&numbers).filter(|(_, number)| number.is_none());
    let missing: Vec<OwnedEventId> = missing.map(|(id, _)| (*id).clone()).collect();
    if !missing.is_empty() {
        return Err(ReceiveError::MissingAuthEvents(missing).into());
    }
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    let headers = read.get_many(&EVENT_HEADERS, room, numbers.iter().copied()).await?;
    let links = read.get_many(&AUTH_LINKS, room, numbers.iter().copied()).await?;
    let mut places = Vec::with_capacity(numbers.len());
    for ((number, header), links) in numbers.into_iter().zip(headers).zip(links) {
        // What has no links is no state event.
        if let (Some(false), Some(links)) = (header.map(|header| header.rejected), links) {
            places.push(((links.kind, links.state_key), number));
        }
    }
    Ok(places)
}

/// Writes a state that differs from a known one, in small commits that nobody sees.
async fn write_state(
    rooms: &Rooms,
    room: &RoomId,
    known: StateRoot,
    mut state: HashMap<(String, String), u64>,
) -> Result<StateRoot, CompleteError> {
    let snapshot = rooms.env.store.snapshot();
    let listed = rooms.states.list(&snapshot, room, known, None).await;
    let mut gone = Vec::new();
    for (key, number) in listed.map_err(AppendError::from)? {
        let place = (key.event_type, key.state_key);
        match state.get(&place) {
            Some(told) if *told == number => _ = state.remove(&place),
            Some(_) => {}
            None => gone.push(place),
        }
    }
    let told = state.iter().map(|((kind, key), number)| (kind, key, Some(*number)));
    let gone = gone.iter().map(|(kind, key)| (kind, key, None));
    let changes: Vec<Change<'_>> = told
        .chain(gone)
        .map(|(kind, key, event)| Change { event_type: kind, state_key: key, event })
        .collect();
    let changed = rooms.states.changed(&snapshot, room, known, &changes).await;
    let changed = changed.map_err(AppendError::from)?;
    write_nodes(rooms, room, &changed.nodes).await?;
    Ok(changed.root)
}

async fn note(rooms: &Rooms, room: &RoomId, state: (u64, StateRoot)) -> Result<(), CompleteError> {
    let body = |tx: Tx| {
        async move {
            let Some(mut completion) = tx.get(&COMPLETION, room, ()).await? else { return Ok(()) };
            completion.states.retain(|(number, _)| *number != state.0);
            completion.states.push(state);
            tx.put(&COMPLETION, room, (), &completion);
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact_in(room, body).await
}
