//! Which state events a sync returns beside the timeline.

use std::collections::BTreeSet;

use millrace_model::filter::EventFilter;
use millrace_store::{Snapshot, state_tree::StateRoot};
use ruma::{OwnedUserId, RoomId};

use super::{Step, SyncError, lazy::Known};
use crate::{
    json::Object,
    rooms::{RoomView, Rooms, Seen},
};

const MEMBER: &str = "m.room.member";

/// What state a client has and wants.
pub struct Wanted<'a> {
    /// The state it has; `None` where it is to get all of it.
    pub old: Option<StateRoot>,
    /// The state it is to have.
    pub new: StateRoot,
    /// Which events.
    pub filter: &'a EventFilter,
    /// Only the members named here, where members are loaded lazily.
    pub lazy: Option<Lazy<'a>>,
}

/// Members of whom the client needs to know.
pub struct Lazy<'a> {
    /// They: senders of the timeline, and the user.
    pub members: BTreeSet<OwnedUserId>,
    /// What the device knows, which is not told again.
    pub known: Option<&'a Known>,
}

/// The state events that bring the client from the old state to the new.
///
/// # Errors
/// Where the store cannot be read.
pub async fn read(
    rooms: &Rooms,
    view: &RoomView<'_>,
    wanted: &Wanted<'_>,
) -> Result<Vec<Seen>, SyncError> {
    let (snapshot, room) = (view.snapshot, view.room_id);
    let mut numbers = match (wanted.old, &wanted.lazy) {
        (Some(old), lazy) => {
            changed(rooms, snapshot, room, (old, wanted.new), lazy.as_ref()).await?
        }
        (None, None) => rooms.states.numbers(snapshot, room, wanted.new, None).await?,
        (None, Some(_)) => view.state_without_members(wanted.new).await?.to_vec(),
    };
    if let Some(lazy) = &wanted.lazy {
        let members = members(rooms, snapshot, room, wanted.new, &lazy.members).await?;
        let members = members.into_iter().filter(|number| !numbers.contains(number));
        let known = |number| lazy.known.is_some_and(|known| known.has(room, number));
        let members: Vec<u64> = members.filter(|number| !known(*number)).collect();
        numbers.extend(members);
    }
    let mut events = view.state_events(&numbers).await?;
    events.retain(|seen| wanted.filter.admits_in_room(&seen.event.pdu));
    Ok(events)
}

/// Adds state to a room that is told of. Who asked for the state after the timeline is told where
/// there is none.
pub(super) async fn put(
    step: &Step<'_>,
    view: &RoomView<'_>,
    state: &[Seen],
    room: &mut Object<'_>,
) -> Result<(), SyncError> {
    let after = step.request.state_after;
    if state.is_empty() && (room.is_empty() || !after) {
        return Ok(());
    }
    let mut object = room.object(if after { "state_after" } else { "state" });
    step.put_events(view, state, &mut object).await?;
    object.end();
    Ok(())
}

async fn changed(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
    (old, new): (StateRoot, StateRoot),
    lazy: Option<&Lazy<'_>>,
) -> Result<Vec<u64>, SyncError> {
    let mut changes = rooms.states.diff(snapshot, room, old, new).await?;
    if let Some(lazy) = lazy {
        changes.retain(|change| {
            change.key.event_type != MEMBER
                || lazy.members.iter().any(|member| *member == *change.key.state_key)
        });
    }
    Ok(changes.into_iter().filter_map(|change| change.new).collect())
}

async fn members(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
    root: StateRoot,
    members: &BTreeSet<OwnedUserId>,
) -> Result<Vec<u64>, SyncError> {
    let places: Vec<_> = members.iter().map(|user| (MEMBER, user.as_str())).collect();
    let found = rooms.states.get_many(snapshot, room, root, &places).await?;
    Ok(found.into_iter().flatten().collect())
}
