//! Receiving the events of other servers (spec: Server-Server API, Checks performed on receipt of a
//! PDU; Soft failure; Rejection).

use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use millrace_model::{Pdu, rules::auth::Refused};
use millrace_store::{
    Read, Snapshot, Tx,
    rows::{
        partial::{Before, Ending},
        room::EventHeader,
    },
    state_tree::{Change, StateRoot},
    tables::{EVENT_HEADERS, EVENT_NUMBERS, ROOM_HEAD},
};
use ruma::{OwnedEventId, OwnedRoomId, RoomId, RoomVersionId};

use super::{
    AppendError, Numbers, RoomTx, Rooms,
    accept::{Followed, unplaced},
    events,
    judge::Verdict,
    policy, resolve,
};

/// What became of an event that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It is part of the room.
    Accepted,
    /// It is kept and nobody is shown it: the room's current state does not allow it.
    SoftFailed,
    /// It is kept as one that the room's rules refuse.
    Rejected,
    /// It was here before. Nothing has changed.
    Known,
}

/// Why an event could not be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// No user of this server is in the room.
    #[error("nobody of this server is in the room {0}")]
    NotInRoom(OwnedRoomId),
    /// The event belongs to another room.
    #[error("event {event} is not one of the room {room}")]
    WrongRoom {
        /// The event.
        event: OwnedEventId,
        /// The room in which it was received.
        room: OwnedRoomId,
    },
    /// These predecessors are not part of the room's graph here.
    #[error("{} predecessors are not known", .0.len())]
    MissingPrevEvents(Vec<OwnedEventId>),
    /// These auth events are not stored, or these events of a state.
    #[error("{} auth events are not known", .0.len())]
    MissingAuthEvents(Vec<OwnedEventId>),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// The room cannot be read or written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<ReceiveError> for AppendError {
    /// For events of ours, of which all that comes before them is here.
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Append(error) => error,
            ReceiveError::Version(version) => Self::Version(version),
            ReceiveError::UnknownRoom(_)
            | ReceiveError::NotInRoom(_)
            | ReceiveError::WrongRoom { .. }
            | ReceiveError::MissingPrevEvents(_)
            | ReceiveError::MissingAuthEvents(_) => Self::Refused(Refused(error.to_string())),
        }
    }
}

impl From<millrace_store::Error> for ReceiveError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// A live event of another server whose form, signatures and hash were checked. It is checked by its
/// auth events and the state before it (else it is rejected), and by the current state (else it
/// fails softly). Receiving it again changes nothing.
///
/// # Errors
/// [`ReceiveError::MissingAuthEvents`] and then [`ReceiveError::MissingPrevEvents`] where those have
/// to be had first.
pub async fn receive(rooms: &Rooms, room: &RoomId, pdu: Pdu) -> Result<Received, ReceiveError> {
    receive_on(rooms, room, &pdu, None).await
}

/// As [`receive`], for an event whose predecessors cannot be had: `state` are the IDs of the events
/// of the state before it, as another server told, all of them stored. Leaves a gap before it in the
/// timeline.
///
/// # Errors
/// [`ReceiveError::MissingAuthEvents`] where auth events or events of `state` are not stored.
pub async fn receive_after_gap(
    rooms: &Rooms,
    room: &RoomId,
    pdu: Pdu,
    state: &[OwnedEventId],
) -> Result<Received, ReceiveError> {
    receive_on(rooms, room, &pdu, Some((state, Before::Told))).await
}

/// As [`receive_after_gap`] for a room that is partial, where `state` is without members.
///
/// # Errors
/// As [`receive_after_gap`].
pub(super) async fn receive_after_gap_without_members(
    rooms: &Rooms,
    room: &RoomId,
    pdu: Pdu,
    state: &[OwnedEventId],
) -> Result<Received, ReceiveError> {
    receive_on(rooms, room, &pdu, Some((state, Before::Omitted))).await
}

/// The state before an event, as another server told it.
type Given<'a> = (&'a [OwnedEventId], Before);

async fn receive_on(
    rooms: &Rooms,
    room_id: &RoomId,
    pdu: &Pdu,
    given: Option<Given<'_>>,
) -> Result<Received, ReceiveError> {
    if pdu.room_id != room_id {
        let (event, room) = (pdu.event_id.clone(), room_id.to_owned());
        return Err(ReceiveError::WrongRoom { event, room });
    }
    let snapshot = rooms.env.store.snapshot();
    match events::find(&snapshot, room_id, &pdu.event_id).await? {
        Some((_, header)) if !header.outlier => return Ok(Received::Known),
        _ => {}
    }
    resolve_ahead(rooms, &snapshot, room_id, pdu).await?;
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| ReceiveError::UnknownRoom(room_id.to_owned()))?;
            let received = room.receive(pdu, given).await?;
            if received != Received::Known {
                room.finish();
            }
            Ok(received)
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}

/// Resolves the ends that an event joins before the transaction, which then finds it remembered.
async fn resolve_ahead(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
    pdu: &Pdu,
) -> Result<(), ReceiveError> {
    if pdu.prev_events.len() < 2 {
        return Ok(());
    }
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
    let joined =
        head.extremities.iter().filter(|end| pdu.prev_events.contains(&end.event.event_id));
    let roots: Vec<StateRoot> = joined.map(|end| end.after).collect();
    let resolved = resolve::resolve(rooms, snapshot, room, &head.version, &roots).await;
    resolved.map_err(AppendError::from)?;
    Ok(())
}

/// Those of the events that the room does not have. What is known only as state or auth event of
/// others counts as had; see [`without_state`].
///
/// # Errors
/// Where the store cannot be read.
pub async fn unknown(
    read: &impl Read,
    room: &RoomId,
    ids: &[OwnedEventId],
) -> millrace_store::Result<Vec<OwnedEventId>> {
    let numbers = read.get_many(&EVENT_NUMBERS, room, ids.iter()).await?;
    let unknown = ids.iter().zip(numbers).filter(|(_, number)| number.is_none());
    Ok(unknown.map(|(id, _)| id.clone()).collect())
}

/// Those of the events that are not part of the room's graph here: that are unknown, or known only
/// as state or auth events of others.
///
/// # Errors
/// Where the store cannot be read.
pub async fn without_state(
    read: &impl Read,
    room: &RoomId,
    ids: &[OwnedEventId],
) -> millrace_store::Result<Vec<OwnedEventId>> {
    let numbers = read.get_many(&EVENT_NUMBERS, room, ids.iter()).await?;
    let known: Vec<u64> = numbers.iter().flatten().copied().collect();
    let mut headers = read.get_many(&EVENT_HEADERS, room, known).await?.into_iter();
    let mut without = Vec::new();
    for (id, number) in ids.iter().zip(numbers) {
        let header = number.and_then(|_| headers.next().flatten());
        if header.is_none_or(|header| header.before.is_none()) {
            without.push(id.clone());
        }
    }
    Ok(without)
}

impl RoomTx<'_> {
    /// Receives an event: see [`receive`]. `given` is the state before it, where its predecessors
    /// do not tell.
    pub(super) async fn receive(
        &mut self,
        pdu: &Pdu,
        given: Option<Given<'_>>,
    ) -> Result<Received, ReceiveError> {
        let found = events::find(self.tx, &self.room_id, &pdu.event_id).await?;
        let (number, mut pdu) = match &found {
            Some((_, header)) if !header.outlier => return Ok(Received::Known),
            // In room versions 1 and 2 two texts may have one ID; the first one counts.
            Some((number, _)) => (*number, self.event(*number).await?.pdu.clone()),
            None => (self.next_number(), pdu.clone()),
        };
        if self.head.joined_here == 0 {
            return Err(ReceiveError::NotInRoom(self.room_id.clone()));
        }
        let auth_events = self.auth_events_of(&pdu).await?;
        let before = match given {
            None => self.state_before(&pdu).await?,
            Some((state, _)) => self.state_of(state).await?,
        };
        let current = match given {
            None => self.head.root,
            // After a gap much may have changed of which we have not heard: else whoever joined
            // meanwhile would not be heard either.
            Some(_) => {
                let ends = self.head.extremities.iter().map(|end| end.after);
                let roots: Vec<StateRoot> = ends.chain([before]).collect();
                self.resolved(&roots).await?
            }
        };
        let judged = self.judge(&pdu, &auth_events, (before, current)).await?;
        let by_rules = judged == Verdict::Allowed;
        let verdict = match judged {
            Verdict::Allowed if self.is_end_too_many(&pdu).await? => {
                let reason = "its server has left too many ends of the room's graph";
                Verdict::SoftFailed(Refused(reason.to_owned()))
            }
            Verdict::Allowed => match self.is_vouched(&mut pdu).await? {
                Ok(()) => Verdict::Allowed,
                Err(refused) => Verdict::SoftFailed(refused),
            },
            verdict => verdict,
        };
        let (followed, ending) = match self.is_missing(&pdu.event_id).await? {
            _ if by_rules && verdict != Verdict::Allowed => (Followed::No, Ending::KeptBack),
            true => (Followed::Yes, Ending::Followed),
            false => (Followed::No, Ending::New),
        };
        let from = given.map_or(Before::Predecessors, |(_, from)| from);
        self.note_partial(number, from, ending);
        match verdict {
            Verdict::Allowed => {
                let missing = match given {
                    Some(_) => self.unplaced_among(&pdu.prev_events).await?,
                    None => Vec::new(),
                };
                let event = self.accept(number, pdu, before, followed).await?;
                self.settle_late(&event, found.as_ref().map(|(_, header)| header)).await?;
                self.found_missing(&event.pdu.event_id, &[]).await?;
                if !missing.is_empty() {
                    self.open_gap(self.head.last, missing);
                }
                Ok(Received::Accepted)
            }
            Verdict::SoftFailed(refused) => {
                tracing::info!(event = %pdu.event_id, %refused, "an event failed softly");
                let event = self.body(number, pdu).await?;
                let header = EventHeader { soft_failed: true, ..unplaced(&event, before) };
                self.write_header(number, header).await?;
                self.found_missing(&event.pdu.event_id, &event.pdu.prev_events).await?;
                Ok(Received::SoftFailed)
            }
            Verdict::Rejected(refused) => {
                tracing::info!(event = %pdu.event_id, %refused, "an event was rejected");
                pdu.rejected = true;
                let event = self.body(number, pdu).await?;
                self.write_header(number, unplaced(&event, before)).await?;
                self.found_missing(&event.pdu.event_id, &event.pdu.prev_events).await?;
                Ok(Received::Rejected)
            }
        }
    }

    /// The state that holds these events, all of which must be stored; writes its nodes. Rejected
    /// ones are left out.
    pub(super) async fn state_of(&self, ids: &[OwnedEventId]) -> Result<StateRoot, ReceiveError> {
        let (tx, room, rooms) = (self.tx, &self.room_id, self.rooms);
        let numbers = tx.get_many(&EVENT_NUMBERS, room, ids.iter()).await?;
        let missing = ids.iter().zip(&numbers).filter(|(_, number)| number.is_none());
        let missing: Vec<OwnedEventId> = missing.map(|(id, _)| id.clone()).collect();
        if !missing.is_empty() {
            return Err(ReceiveError::MissingAuthEvents(missing));
        }
        let mut numbers: HashSet<u64> = numbers.into_iter().flatten().collect();
        // Most of it is what the room holds now: only what differs is looked at.
        let now = rooms.states.list(tx, room, self.head.root, None).await;
        let mut now = now.map_err(AppendError::from)?;
        now.retain(|(_, number)| !numbers.remove(number));
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let loaded = rooms.events.load(tx, room, &self.head.version, &numbers).await;
        let loaded = loaded.map_err(AppendError::from)?;
        let mut wanted = HashMap::new();
        for event in loaded.iter().filter(|event| !event.pdu.rejected) {
            if let Some(key) = event.pdu.state_key.as_deref() {
                wanted.insert((event.pdu.kind.to_string(), key.to_owned()), event.number);
            }
        }
        let mut changes = Vec::new();
        for (key, _) in now {
            let new = wanted.remove(&(key.event_type.clone(), key.state_key.clone()));
            changes.push((key.event_type, key.state_key, new));
        }
        changes.extend(wanted.into_iter().map(|((kind, key), new)| (kind, key, Some(new))));
        let changes: Vec<_> = changes
            .iter()
            .map(|(kind, key, event)| Change { event_type: kind, state_key: key, event: *event })
            .collect();
        let changed = rooms.states.change(tx, room, self.head.root, &changes).await;
        Ok(changed.map_err(AppendError::from)?)
    }
}
