//! Rooms of which only a part of the state is known: shown to clients that load members lazily, and
//! kept from others until they are complete (as Synapse does).

use std::collections::BTreeSet;

use millrace_store::{
    Read, View,
    rows::partial::Completed,
    tables::{COMPLETED, EVENT_NUMBERS},
};
use ruma::{OwnedEventId, UserId, events::TimelineEventType};

use super::{Step, SyncError, lazy::Known, timeline::Timeline};
use crate::rooms::{RoomView, Seen};

/// Whether a room is not shown yet.
pub(super) const fn is_hidden(step: &Step<'_>, view: &RoomView<'_>) -> bool {
    view.head.partial.is_some() && step.lazy.is_none()
}

/// Whether a room was not shown at the token, and is now.
pub(super) async fn was_hidden(
    step: &Step<'_>,
    view: &RoomView<'_>,
    since: &View,
) -> Result<bool, SyncError> {
    Ok(step.lazy.is_none() && completed_since(step, view, since).await?.is_some())
}

async fn completed_since(
    step: &Step<'_>,
    view: &RoomView<'_>,
    since: &View,
) -> Result<Option<Completed>, SyncError> {
    if !view.head.was_partial {
        return Ok(None);
    }
    let completed = step.snapshot.get_stamped(&COMPLETED, view.room_id, ()).await?;
    let news = completed.filter(|(position, _)| !since.covers(*position));
    Ok(news.map(|(_, completed)| completed))
}

/// Adds the state that took the place of what a client may have been told up to `since`, when the room
/// was completed.
pub(super) async fn add_turned(
    step: &Step<'_>,
    view: &RoomView<'_>,
    since: &View,
    state: &mut Vec<Seen>,
) -> Result<(), SyncError> {
    let Some(completed) = completed_since(step, view, since).await? else {
        return Ok(());
    };
    let told: BTreeSet<u64> = state.iter().map(|seen| seen.event.number).collect();
    let turned = completed.turned.into_iter().filter(|number| !told.contains(number));
    let turned = view.state_events(&turned.collect::<Vec<_>>()).await?.into_iter();
    let filter = &step.request.filter.state;
    state.extend(turned.filter(|seen| filter.admits_in_room(&seen.event.pdu)));
    Ok(())
}

/// Adds the members who sent the timeline's events and are not in the state that is known yet: as
/// their events name them among those that authorise them.
pub(super) async fn add_senders(
    step: &Step<'_>,
    view: &RoomView<'_>,
    timeline: &Timeline,
    (state, known): (&mut Vec<Seen>, Option<&Known>),
) -> Result<(), SyncError> {
    if view.head.partial.is_none() {
        return Ok(());
    }
    let is_member = |seen: &&Seen| seen.event.pdu.kind == TimelineEventType::RoomMember;
    let told = state.iter().filter(is_member);
    let mut told: BTreeSet<String> =
        told.filter_map(|seen| seen.event.pdu.state_key.as_deref()).map(str::to_owned).collect();
    let mut added = Vec::new();
    for event in timeline.events.iter().map(|seen| &seen.event.pdu) {
        if told.insert(event.sender.to_string()) {
            let (sender, auth_events) = (&*event.sender, &*event.auth_events);
            added.extend(member_among(step, view, sender, auth_events).await?);
        }
    }
    added.retain(|number| !known.is_some_and(|known| known.has(view.room_id, *number)));
    let added = view.state_events(&added).await?.into_iter();
    let filter = &step.request.filter.state;
    state.extend(added.filter(|seen| filter.admits_in_room(&seen.event.pdu)));
    Ok(())
}

/// Number of the member event of a user among the auth events of one of theirs.
async fn member_among(
    step: &Step<'_>,
    view: &RoomView<'_>,
    user: &UserId,
    auth_events: &[OwnedEventId],
) -> Result<Option<u64>, SyncError> {
    let numbers = step.snapshot.get_many(&EVENT_NUMBERS, view.room_id, auth_events.iter()).await?;
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    let events = &step.syncs.rooms.events;
    let loaded = events.load(&step.snapshot, view.room_id, &view.head.version, &numbers).await?;
    let is_it = |pdu: &millrace_model::Pdu| {
        pdu.is_state_of(&TimelineEventType::RoomMember, user.as_str()) && !pdu.rejected
    };
    Ok(loaded.iter().find(|event| is_it(&event.pdu)).map(|event| event.number))
}
