//! The rooms that the user is not in: invited, knocked, left, banned.

use millrace_store::rows::room::UserRoom;
use ruma::{
    OwnedRoomId,
    api::client::sync::sync_events::v3::{
        InvitedRoom, KnockedRoom, LeftRoom, Response, State, StateEvents,
    },
    events::room::member::MembershipState,
    serde::Raw,
};

use super::{
    Step, SyncError,
    joined::{first_after, prev_batch, root_before},
    state, timeline,
    user::{self, News},
};

pub(super) async fn fill(
    step: &Step<'_>,
    news: &News,
    response: &mut Response,
) -> Result<(), SyncError> {
    let initial = step.since.is_none();
    for (room, row) in &step.interest.other {
        let told = if initial { true } else { news.rooms.contains(room) };
        if !told || !step.request.filter.rooms.admits(room) {
            continue;
        }
        match row.membership {
            MembershipState::Invite if step.viewer.ignored.contains(&row.sender) => {}
            MembershipState::Invite => {
                let mut invited = InvitedRoom::new();
                invited.invite_state.events = stripped(row)?;
                response.rooms.invite.insert(room.clone(), invited);
            }
            MembershipState::Knock => {
                let mut knocked = KnockedRoom::new();
                knocked.knock_state.events = stripped(row)?;
                response.rooms.knock.insert(room.clone(), knocked);
            }
            _ if initial && (row.forgotten || !step.request.filter.include_leave) => {}
            _ => {
                let left = left(step, room, row).await?;
                response.rooms.leave.extend(left.map(|left| (room.clone(), left)));
            }
        }
    }
    Ok(())
}

fn stripped<T>(row: &UserRoom) -> Result<Vec<Raw<T>>, SyncError> {
    row.stripped.iter().map(|event| user::raw(event.clone()).map(Raw::from_json)).collect()
}

/// A room up to the user's leaving; none where a room was only forgotten.
async fn left(
    step: &Step<'_>,
    room: &OwnedRoomId,
    row: &UserRoom,
) -> Result<Option<LeftRoom>, SyncError> {
    let mut left = LeftRoom::new();
    let Some(mut view) = step.view(room).await? else { return Ok(Some(left)) };
    let request = step.request;
    let first_new = match step.since {
        Some(since) if !request.full_state => {
            first_after(step, room, &view.head, &since.view).await?
        }
        _ => 1,
    };
    if row.forgotten && first_new > row.n {
        return Ok(None);
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
    if !row.was_joined && timeline.events.is_empty() {
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
    left.timeline.events = step.render(&view, &timeline.events).await?;
    left.timeline.limited = timeline.limited;
    left.timeline.prev_batch = Some(prev_batch(timeline.start));
    let mut events = StateEvents::default();
    events.events = step.render(&view, &state).await?;
    left.state = if request.state_after { State::After(events) } else { State::Before(events) };
    Ok(Some(left))
}
