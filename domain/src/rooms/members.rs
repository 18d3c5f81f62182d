//! Who is in a room (spec: Client-Server API, Getting the members of a room).

use millrace_model::TimelineIndex;
use millrace_store::{
    Read, Scan, Snapshot,
    state_tree::StateRoot,
    tables::{MEMBERS, TIMELINE, USER_ROOMS},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{
    Rooms,
    history::{self, HistoryError},
    view::{ReadError, RoomView, Seen, Viewer},
};

/// Which members are wanted; with both, those who pass either.
#[derive(Debug, Clone, Default)]
pub struct MemberFilter {
    /// Only those with this membership.
    pub membership: Option<MembershipState>,
    /// Only those with another membership.
    pub not_membership: Option<MembershipState>,
}

impl MemberFilter {
    fn admits(&self, membership: &MembershipState) -> bool {
        let is = self.membership.as_ref().map(|wanted| wanted == membership);
        let is_not = self.not_membership.as_ref().map(|unwanted| unwanted != membership);
        match (is, is_not) {
            (None, None) => true,
            (is, is_not) => is.unwrap_or(false) || is_not.unwrap_or(false),
        }
    }
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

/// The member events of a room's state: as the viewer may read it now, or at an earlier point.
///
/// # Errors
/// [`HistoryError::Forbidden`] where the viewer may not see what happened at that point.
pub async fn members(
    view: &RoomView<'_>,
    at: Option<TimelineIndex>,
    filter: &MemberFilter,
) -> Result<Vec<Seen>, HistoryError> {
    let (end, root) = history::readable_end(view).await?;
    let earlier = at.filter(|at| *at <= end);
    let root = match earlier {
        Some(at) => state_before(view, at).await?,
        None => root,
    };
    let numbers = if root == view.head.root {
        current(view, filter).await?
    } else {
        let states = &view.rooms.states;
        let numbers = states.numbers(view.snapshot, view.room_id, root, Some("m.room.member"));
        numbers.await.map_err(ReadError::from)?
    };
    let mut members = view.state_events(&numbers).await?;
    members.retain(|seen| {
        let content = seen.event.pdu.content_as::<MemberContent>();
        content.is_ok_and(|content| filter.admits(&content.membership))
    });
    Ok(members)
}

/// Numbers of the member events of the current state that pass the filter.
async fn current(view: &RoomView<'_>, filter: &MemberFilter) -> millrace_store::Result<Vec<u64>> {
    let members = view.snapshot.scan(&MEMBERS, view.room_id, Scan::all()).await?;
    let wanted = members.into_iter().filter(|(_, member)| filter.admits(&member.membership));
    Ok(wanted.map(|(_, member)| member.event).collect())
}

/// The state at a point of the timeline. Where the point lies before the room's history, as the
/// `prev_batch` of a sync from the beginning does, the room is taken as its creator joined it: an
/// empty room is of no use to a client that asks who was in it.
async fn state_before(view: &RoomView<'_>, at: TimelineIndex) -> Result<StateRoot, HistoryError> {
    const CREATION_EVENTS: usize = 2;
    let scan = Scan::all().before((at.n, at.k)).reverse().limit(1);
    let mut rows = view.snapshot.scan(&TIMELINE, view.room_id, scan).await?;
    if rows.is_empty() {
        let scan = Scan::all().limit(CREATION_EVENTS);
        rows = view.snapshot.scan(&TIMELINE, view.room_id, scan).await?;
    }
    let forbidden = || HistoryError::Forbidden {
        user: view.viewer.user.clone(),
        room: view.room_id.to_owned(),
    };
    let newest = rows.pop().ok_or_else(forbidden)?;
    if view.look_at_rows(&[newest]).await?.is_empty() {
        return Err(forbidden());
    }
    Ok(newest.1.after)
}

/// A joined member and how they present themselves in the room.
#[derive(Debug)]
pub struct JoinedMember {
    /// The user.
    pub user: OwnedUserId,
    /// Their `displayname`.
    pub display_name: Option<String>,
    /// Their `avatar_url`.
    pub avatar_url: Option<String>,
}

#[derive(Deserialize)]
struct ProfileContent {
    displayname: Option<String>,
    avatar_url: Option<String>,
}

/// The joined members of a room that the viewer is joined to.
///
/// # Errors
/// [`HistoryError::Forbidden`] where they are not.
pub async fn joined_members(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room_id: &RoomId,
    viewer: &Viewer,
) -> Result<Vec<JoinedMember>, HistoryError> {
    let view = history::open(rooms, snapshot, room_id, viewer).await?;
    if view.membership() != MembershipState::Join {
        let (user, room) = (viewer.user.clone(), room_id.to_owned());
        return Err(HistoryError::Forbidden { user, room });
    }
    let mut users = snapshot.scan(&MEMBERS, room_id, Scan::all()).await?;
    users.retain(|(_, member)| member.membership == MembershipState::Join);
    let numbers: Vec<u64> = users.iter().map(|(_, member)| member.event).collect();
    let events = view.load_events(&numbers).await.map_err(ReadError::from)?;
    let joined = users.into_iter().zip(events).map(|((user, _), event)| {
        let profile = event.pdu.content_as::<ProfileContent>().ok();
        let (display_name, avatar_url) =
            profile.map_or((None, None), |profile| (profile.displayname, profile.avatar_url));
        JoinedMember { user, display_name, avatar_url }
    });
    Ok(joined.collect())
}

/// The rooms that a user is joined to.
///
/// # Errors
/// Where the store cannot be read.
pub async fn joined_rooms(
    snapshot: &Snapshot,
    user: &UserId,
) -> millrace_store::Result<Vec<OwnedRoomId>> {
    let rooms = snapshot.scan(&USER_ROOMS, user, Scan::all()).await?;
    let joined = rooms.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
    Ok(joined.map(|(room, _)| room).collect())
}
