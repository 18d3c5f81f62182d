//! Whether an event that was received is allowed (spec: Server-Server API, Checks performed on
//! receipt of a PDU, 4 to 6).

use std::{collections::HashSet, sync::Arc};

use millrace_model::{
    Pdu,
    rules::auth::{self, Refused},
};
use millrace_store::{Read, rows::room::EventHeader, state_tree::StateRoot, tables::EVENT_NUMBERS};
use ruma::{
    OwnedEventId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};

use super::{AppendError, Event, ReceiveError, RoomTx, events};

/// What became of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// Allowed where it stands in the graph, and not by the current state.
    SoftFailed(Refused),
    Rejected(Refused),
}

/// Checks an event by what its auth events say. `create` is the room's create event, which is not
/// among them in room version 12.
pub(super) fn check_by_auth_events(
    pdu: &Pdu,
    auth_events: &[&Pdu],
    create: Option<&Pdu>,
    rules: &RoomVersionRules,
) -> Result<(), Refused> {
    let known = || auth_events.iter().copied().chain(create);
    auth::check_auth_events(pdu, rules, |id| known().find(|event| event.event_id == *id))?;
    auth::check(pdu, rules, |kind, key| look_up(known(), kind, key))
}

/// The verdict on an event without predecessors: it is the room's create event, which was checked
/// when the room was taken over, or none of the room's.
fn first_event(pdu: &Pdu, create: &Pdu) -> Verdict {
    if pdu.event_id == create.event_id {
        return Verdict::Allowed;
    }
    Verdict::Rejected(Refused("only the room's first event follows nothing".to_owned()))
}

/// The event that sets a place of the state.
pub(super) fn look_up<'a>(
    mut known: impl Iterator<Item = &'a Pdu>,
    kind: &StateEventType,
    key: &str,
) -> Option<&'a Pdu> {
    let kind = TimelineEventType::from(kind.to_string());
    known.find(|event| event.is_state_of(&kind, key))
}

impl RoomTx<'_> {
    /// Judges an event by its auth events, the state before it and the `current` state.
    pub(super) async fn judge(
        &self,
        pdu: &Pdu,
        auth_events: &[Arc<Event>],
        (before, current): (StateRoot, StateRoot),
    ) -> Result<Verdict, AppendError> {
        let create = self.create_event().await?;
        if pdu.prev_events.is_empty() {
            return Ok(first_event(pdu, &create.pdu));
        }
        let cited: Vec<&Pdu> = auth_events.iter().map(|event| &event.pdu).collect();
        if let Err(refused) = check_by_auth_events(pdu, &cited, Some(&create.pdu), self.rules) {
            return Ok(Verdict::Rejected(refused));
        }
        if let Err(refused) = self.check_at(pdu, before, auth_events).await? {
            return Ok(Verdict::Rejected(refused));
        }
        if before != current
            && let Err(refused) = self.check_at(pdu, current, auth_events).await?
        {
            return Ok(Verdict::SoftFailed(refused));
        }
        Ok(Verdict::Allowed)
    }

    /// As [`RoomTx::judge`], for an event of the past, which the current state does not concern.
    pub(super) async fn judge_past(
        &self,
        pdu: &Pdu,
        auth_events: &[Arc<Event>],
        before: StateRoot,
    ) -> Result<Verdict, AppendError> {
        let create = self.create_event().await?;
        if pdu.prev_events.is_empty() {
            return Ok(first_event(pdu, &create.pdu));
        }
        let cited: Vec<&Pdu> = auth_events.iter().map(|event| &event.pdu).collect();
        if let Err(refused) = check_by_auth_events(pdu, &cited, Some(&create.pdu), self.rules) {
            return Ok(Verdict::Rejected(refused));
        }
        Ok(match self.check_at(pdu, before, auth_events).await? {
            Ok(()) => Verdict::Allowed,
            Err(refused) => Verdict::Rejected(refused),
        })
    }

    /// Checks an event by a state. Where that has just the event's auth events for it, which have
    /// been asked already, there is nothing to do.
    async fn check_at(
        &self,
        pdu: &Pdu,
        root: StateRoot,
        asked: &[Arc<Event>],
    ) -> Result<Result<(), Refused>, AppendError> {
        let (sender, state_key) = (&pdu.sender, pdu.state_key.as_deref());
        let places =
            auth::auth_types_for_event(&pdu.kind, sender, state_key, &pdu.content, self.rules);
        let places = match places {
            Ok(places) => places,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut places: Vec<_> =
            places.into_iter().map(|(kind, key)| (kind.to_string(), key)).collect();
        let create = ("m.room.create".to_owned(), String::new());
        if !places.contains(&create) {
            places.push(create);
        }
        let keys: Vec<_> = places.iter().map(|(kind, key)| (kind.as_str(), key.as_str())).collect();
        let root = self.with_members_claimed(root, asked).await?;
        let numbers = self.at_places(root, &keys).await?;
        let numbers = self.with_members_named(&keys, numbers, asked);
        let asked: HashSet<u64> =
            asked.iter().map(|event| event.number).chain([self.head.create]).collect();
        if numbers.len() == asked.len() && numbers.iter().all(|number| asked.contains(number)) {
            return Ok(Ok(()));
        }
        let (events, version) = (&self.rooms.events, &self.head.version);
        let state = events.load(self.tx, &self.room_id, version, &numbers).await?;
        Ok(auth::check(pdu, self.rules, |kind, key| {
            look_up(state.iter().map(|event| &event.pdu), kind, key)
        }))
    }

    /// An event's auth events, all of which must be stored.
    pub(super) async fn auth_events_of(&self, pdu: &Pdu) -> Result<Vec<Arc<Event>>, ReceiveError> {
        let ids = &pdu.auth_events;
        let numbers = self.tx.get_many(&EVENT_NUMBERS, &self.room_id, ids.iter()).await?;
        let missing: Vec<OwnedEventId> = ids
            .iter()
            .zip(&numbers)
            .filter(|(_, number)| number.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        if !missing.is_empty() {
            return Err(ReceiveError::MissingAuthEvents(missing));
        }
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let (events, version) = (&self.rooms.events, &self.head.version);
        let loaded = events.load(self.tx, &self.room_id, version, &numbers).await;
        Ok(loaded.map_err(AppendError::from)?)
    }

    /// The state before an event: that of the states after its predecessors, resolved. An error
    /// where one of those has no state.
    pub(super) async fn state_before(&self, pdu: &Pdu) -> Result<StateRoot, ReceiveError> {
        let mut roots = Vec::with_capacity(pdu.prev_events.len());
        let mut missing = Vec::new();
        for id in &pdu.prev_events {
            match self.state_after_known(id).await? {
                Some(root) if roots.contains(&root) => {}
                Some(root) => roots.push(root),
                None => missing.push(id.clone()),
            }
        }
        if missing.is_empty() {
            Ok(self.resolved(&roots).await?)
        } else {
            Err(ReceiveError::MissingPrevEvents(missing))
        }
    }

    /// The state after an event of the room's graph; `None` where the event is not part of it.
    async fn state_after_known(&self, id: &OwnedEventId) -> Result<Option<StateRoot>, AppendError> {
        if let Some(end) = self.head.extremities.iter().find(|end| end.event.event_id == *id) {
            return Ok(Some(end.after));
        }
        let found = events::find(self.tx, &self.room_id, id).await?;
        let Some((number, EventHeader { before: Some(before), rejected, .. })) = found else {
            return Ok(None);
        };
        if rejected {
            return Ok(Some(before));
        }
        let event = self.event(number).await?;
        self.state_after(&event, before).await.map(Some)
    }
}
