//! Writing an event that the auth rules allow, be it made here or received: the event, its place in
//! the timeline, the room's ends and current state, what it relates to and what it redacts.

use std::{collections::BTreeSet, sync::Arc};

use millrace_model::Pdu;
use millrace_store::{
    Read, Tx,
    rows::room::{EventHeader, Extremity, TimelineRow},
    state_tree::{Change, Difference, StateKey, StateRoot},
    tables::{CURRENT_STATE, EVENT_HEADERS, EVENT_NUMBERS, EVENT_ROOMS, EVENTS, TIMELINE},
};
use ruma::{OwnedEventId, RoomId};

use super::{AppendError, Event, RoomTx, Rooms, resolve};

/// So many rejected and soft-failed events are passed on the way to the ends that an event follows.
const PASSED_MAX: usize = 256;

/// Whether events that are here already follow an event that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// They do: it is no end of the graph.
    Yes,
    /// None does.
    No,
}

impl RoomTx<'_> {
    /// Writes an event as the room's newest. `before` is the state before it.
    pub(super) async fn accept(
        &mut self,
        number: u64,
        pdu: Pdu,
        before: StateRoot,
        followed: Followed,
    ) -> Result<Arc<Event>, AppendError> {
        let event = self.body(number, pdu).await?;
        self.head.last += 1;
        if self.head.create == 0 {
            self.head.create = number;
        }
        let place = (self.head.last, 0);
        let replaces = self.replaced_by(&event, before).await?;
        let header = EventHeader { replaces, ..placed(&event, before, place) };
        self.write_header(number, header).await?;
        let after = self.state_after(&event, before).await?;
        let old_roots = self.roots();
        self.follow_ends(&event.pdu.prev_events).await?;
        if followed == Followed::No {
            let event = event.pdu.reference(self.rules)?;
            self.head.extremities.push(Extremity { event, after });
        }
        let roots = self.roots();
        let root = match roots == old_roots {
            true => self.head.root,
            false => self.resolved(&Vec::from_iter(roots)).await?,
        };
        if before == self.head.root && after == root {
            let change = difference(&event, replaces);
            self.follow(root, change.as_slice()).await?;
        } else {
            self.set_root(root).await?;
        }
        self.write_relations(&event, place).await?;
        self.write_redaction(&event, before).await?;
        let row = TimelineRow { event: number, before, after: self.head.root };
        self.tx.put(&TIMELINE, &self.room_id, place, &row);
        Ok(event)
    }

    /// The states after the room's ends, each once.
    pub(super) fn roots(&self) -> BTreeSet<StateRoot> {
        self.head.extremities.iter().map(|end| end.after).collect()
    }

    /// As [`store`].
    pub(super) async fn body(&self, number: u64, pdu: Pdu) -> Result<Arc<Event>, AppendError> {
        let event = Event::new(number, pdu, self.rules);
        Ok(store(self.tx, self.rooms, &self.room_id, event).await?)
    }

    /// Writes an event's header. Where it was stored before, as an outlier, what others made of it
    /// stays.
    pub(super) async fn write_header(
        &mut self,
        number: u64,
        header: EventHeader,
    ) -> Result<(), AppendError> {
        match self.tx.get(&EVENT_HEADERS, &self.room_id, number).await? {
            None => self.tx.put(&EVENT_HEADERS, &self.room_id, number, &header),
            Some(old) => {
                let (redacted_by, related, aggregated) =
                    (old.redacted_by, old.related, old.aggregated);
                self.amend(number, &EventHeader { redacted_by, related, aggregated, ..header });
            }
        }
        Ok(())
    }

    /// The state after an event that was not rejected; writes its nodes.
    pub(super) async fn state_after(
        &self,
        event: &Event,
        before: StateRoot,
    ) -> Result<StateRoot, AppendError> {
        let Some(state_key) = event.pdu.state_key.as_deref() else { return Ok(before) };
        let kind = event.pdu.kind.to_string();
        let change = Change { event_type: &kind, state_key, event: Some(event.number) };
        let states = &self.rooms.states;
        Ok(states.change(self.tx, &self.room_id, before, &[change]).await?)
    }

    /// The state of forks; writes its nodes.
    pub(super) async fn resolved(&self, roots: &[StateRoot]) -> Result<StateRoot, AppendError> {
        let Some((first, others)) = roots.split_first() else { return Ok(StateRoot::EMPTY) };
        if others.iter().all(|other| other == first) {
            return Ok(*first);
        }
        let (rooms, room, version) = (self.rooms, &self.room_id, &self.head.version);
        let resolved = resolve::resolve(rooms, self.tx, room, version, roots).await?;
        let changes: Vec<_> = resolved
            .changes
            .iter()
            .map(|Difference { key, new, .. }| Change {
                event_type: &key.event_type,
                state_key: &key.state_key,
                event: *new,
            })
            .collect();
        Ok(rooms.states.change(self.tx, room, resolved.base, &changes).await?)
    }

    /// Number of the event at one place of a state of this room.
    pub(super) async fn at_place(
        &self,
        root: StateRoot,
        place: (&str, &str),
    ) -> Result<Option<u64>, AppendError> {
        Ok(self.at_places(root, &[place]).await?.pop().flatten())
    }

    /// Numbers of the events at places of a state of this room, in the order of the places.
    pub(super) async fn at_places(
        &self,
        root: StateRoot,
        places: &[(&str, &str)],
    ) -> Result<Vec<Option<u64>>, AppendError> {
        let (tx, room) = (self.tx, &self.room_id);
        if root == self.flat {
            return Ok(tx.get_many(&CURRENT_STATE, room, places.iter().copied()).await?);
        }
        Ok(self.rooms.states.get_many(tx, room, root, places).await?)
    }

    /// The state event whose place a new event takes.
    pub(super) async fn replaced_by(
        &self,
        event: &Event,
        before: StateRoot,
    ) -> Result<Option<u64>, AppendError> {
        let Some(state_key) = event.pdu.state_key.as_deref() else { return Ok(None) };
        self.at_place(before, (&event.pdu.kind.to_string(), state_key)).await
    }

    /// Takes away the ends that these events are or follow: what a rejected or soft-failed event
    /// followed is followed by whoever comes after it.
    pub(super) async fn follow_ends(&mut self, prev: &[OwnedEventId]) -> Result<(), AppendError> {
        let mut open: Vec<OwnedEventId> = prev.to_vec();
        let mut passed = 0;
        while let Some(id) = open.pop() {
            let ends = &mut self.head.extremities;
            let count = ends.len();
            ends.retain(|end| end.event.event_id != id);
            if ends.is_empty() || ends.len() < count || passed == PASSED_MAX {
                continue;
            }
            let found = super::events::find(self.tx, &self.room_id, &id).await?;
            let Some((number, header)) = found else { continue };
            if header.rejected || header.soft_failed {
                passed += 1;
                open.extend(self.event(number).await?.pdu.prev_events.iter().cloned());
            }
        }
        Ok(())
    }
}

/// Writes an event's body and number and what authorises it, and remembers it. To be called after its auth events were
/// written.
pub(super) async fn store(
    tx: &Tx,
    rooms: &Rooms,
    room: &RoomId,
    event: Event,
) -> millrace_store::Result<Arc<Event>> {
    let event = Arc::new(event);
    rooms.events.insert(&event);
    tx.put(&EVENTS, room, event.number, &event.pdu.json().to_string());
    tx.put(&EVENT_NUMBERS, room, &event.pdu.event_id, &event.number);
    tx.put(&EVENT_ROOMS, event.pdu.event_id.as_str(), room, &());
    rooms.links.write(tx, room, &event).await?;
    Ok(event)
}

/// The header of an event that has a place in the timeline.
pub(super) fn placed(event: &Event, before: StateRoot, place: (i64, i32)) -> EventHeader {
    EventHeader { place: Some(place), ..unplaced(event, before) }
}

/// The header of an event that has a state before it and no place in the timeline.
pub(super) fn unplaced(event: &Event, before: StateRoot) -> EventHeader {
    EventHeader {
        event_id: event.pdu.event_id.clone(),
        place: None,
        before: Some(before),
        outlier: false,
        rejected: event.pdu.rejected,
        soft_failed: false,
        redacted_by: None,
        related: false,
        aggregated: false,
        replaces: None,
    }
}

/// How an event changes the state that it is put on.
fn difference(event: &Event, old: Option<u64>) -> Option<Difference> {
    let state_key = event.pdu.state_key.as_deref()?;
    let key = StateKey { event_type: event.pdu.kind.to_string(), state_key: state_key.to_owned() };
    Some(Difference { key, old, new: Some(event.number) })
}
