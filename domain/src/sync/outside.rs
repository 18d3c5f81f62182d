//! The rooms that the user is not in: invited, knocked, left, banned.

use millrace_store::rows::room::UserRoom;
use ruma::{OwnedRoomId, events::room::member::MembershipState};

use super::{
    Step, SyncError,
    joined::{first_after, root_before},
    state, timeline,
    user::News,
};
use crate::{account_data::InvitePermission, json::Object, rooms::server_notices};

/// Adds the rooms that the user is invited to, knocks on, or has left.
pub(super) async fn put(
    step: &Step<'_>,
    news: &News,
    rooms: &mut Object<'_>,
) -> Result<(), SyncError> {
    let initial = step.since.is_none();
    let (mut invited, mut knocked, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for (room, row) in &step.interest.other {
        if !(initial || news.rooms.contains(room)) || !step.request.filter.rooms.admits(room) {
            continue;
        }
        match row.membership {
            MembershipState::Invite if !is_wanted(step, row).await? => {}
            MembershipState::Invite => invited.push((room, row)),
            MembershipState::Knock => knocked.push((room, row)),
            _ if initial && (row.forgotten || !step.request.filter.include_leave) => {}
            _ => left.push((room, row)),
        }
    }
    put_stripped(rooms, ("invite", "invite_state"), &invited);
    put_stripped(rooms, ("knock", "knock_state"), &knocked);
    let mut leave = rooms.object("leave");
    for (room, row) in left {
        put_left(step, room, row, &mut leave).await?;
    }
    leave.end_unless_empty();
    Ok(())
}

/// Whether the user is told of an invitation by its sender: not where they want none, but for those
/// of the server itself.
pub(super) async fn is_wanted(step: &Step<'_>, row: &UserRoom) -> Result<bool, SyncError> {
    let allowed = step.interest.invites.of(&row.sender) == InvitePermission::Allow
        && !step.viewer.ignored.contains(&row.sender);
    Ok(allowed || server_notices::is_sender(&step.snapshot, &row.sender).await?)
}

/// Rooms of which the user is shown only some state.
fn put_stripped(
    rooms: &mut Object<'_>,
    (section, state): (&str, &str),
    rows: &[(&OwnedRoomId, &UserRoom)],
) {
    let mut section = rooms.object(section);
    for (room, row) in rows {
        let mut object = section.object(room.as_str());
        object.put_events(state, &row.stripped);
        object.end();
    }
    section.end_unless_empty();
}

/// The end of an invitation or knock that came while we were not in the room: the event itself.
fn put_end(room: &OwnedRoomId, row: &UserRoom, leave: &mut Object<'_>) {
    let mut left = leave.object(room.as_str());
    left.put_events("timeline", &row.stripped);
    left.end();
}

/// A room up to the user's leaving; nothing where a room was only forgotten.
async fn put_left(
    step: &Step<'_>,
    room: &OwnedRoomId,
    row: &UserRoom,
    leave: &mut Object<'_>,
) -> Result<(), SyncError> {
    let request = step.request;
    let Some(mut view) = step.view(room, row).await? else {
        put_end(room, row, leave);
        return Ok(());
    };
    if row.event == 0 && step.since.is_some() {
        put_end(room, row, leave);
        return Ok(());
    }
    let first_new = match step.since {
        Some(since) if !request.full_state => {
            first_after(step, room, &view.head, &since.view).await?
        }
        _ => 1,
    };
    if row.forgotten && first_new > row.n {
        return Ok(());
    }
    // As of the leaving: what came later is not the user's to see.
    view.head.root = root_before(step, room, row.n + 1).await?;
    view.head.last = row.n;
    let wanted = timeline::Wanted {
        first_new,
        last: row.n,
        limit: request.filter.timeline_limit,
        filter: &request.filter.timeline,
    };
    let mut timeline = timeline::read(&view, &wanted).await?;
    if !row.was_joined && row.event != 0 && timeline.events.is_empty() {
        // Whoever may read nothing, as after a rejected invite, is shown their own leaving.
        timeline.events = view.state_events(&[row.event]).await?;
    }
    let mut state = Vec::new();
    if row.was_joined {
        let old = match step.since {
            Some(_) => Some(root_before(step, room, first_new).await?),
            None => None,
        };
        let new = if request.state_after { view.head.root } else { timeline.state_before };
        let wanted = state::Wanted { old, new, filter: &request.filter.state, lazy: None };
        state = state::read(&step.syncs.rooms, &view, &wanted).await?;
    }
    let mut left = leave.object(room.as_str());
    timeline::put(step, &view, &timeline, &mut left).await?;
    state::put(step, &view, &state, &mut left).await?;
    left.end();
    Ok(())
}
