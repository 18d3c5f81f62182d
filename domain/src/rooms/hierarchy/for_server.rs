//! A space as another server may see it (spec: Server-Server API, Spaces).

use millrace_store::Snapshot;
use ruma::{
    OwnedRoomId, RoomId, ServerName,
    room::{JoinRuleSummary, RoomSummary},
};

use super::{SpaceRoom, sorted, space_room};
use crate::rooms::{ReadError, Rooms, servers, summary::summarise};

/// The most children that are told of.
const CHILDREN_MAX: usize = 100;

/// A room, and what lies one step below it.
#[derive(Debug)]
pub struct SpaceForServer {
    /// The room itself.
    pub room: SpaceRoom,
    /// Its children that this server has and the other may see.
    pub children: Vec<RoomSummary>,
    /// Its children that this server has and the other may not see.
    pub inaccessible: Vec<OwnedRoomId>,
}

/// A room and its children for another server; `None` where there is no such room here, or the
/// server may not see it.
///
/// # Errors
/// Where the store cannot be read.
pub async fn for_server(
    rooms: &Rooms,
    server: &ServerName,
    room: &RoomId,
    suggested_only: bool,
) -> Result<Option<SpaceForServer>, ReadError> {
    let snapshot = &rooms.env.store.snapshot();
    let Some(SpaceRoom { summary, children }) = space_room(rooms, snapshot, room).await? else {
        return Ok(None);
    };
    if !is_visible_to(snapshot, server, &summary).await? {
        return Ok(None);
    }
    let links = sorted(children, suggested_only);
    let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
    for link in links.iter().take(CHILDREN_MAX) {
        match summarise(rooms, snapshot, &link.room).await? {
            None => {}
            Some(child) if is_visible_to(snapshot, server, &child).await? => children.push(child),
            Some(child) => inaccessible.push(child.room_id),
        }
    }
    let room = SpaceRoom { summary, children: links.into_iter().map(|link| link.event).collect() };
    Ok(Some(SpaceForServer { room, children, inaccessible }))
}

/// Whether a server may know of a room: it is in it, or its users may read, join or knock.
async fn is_visible_to(
    snapshot: &Snapshot,
    server: &ServerName,
    summary: &RoomSummary,
) -> Result<bool, ReadError> {
    let allowed = match &summary.join_rule {
        JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_) => {
            return Ok(true);
        }
        JoinRuleSummary::Restricted(restricted) => &restricted.allowed_room_ids[..],
        _ => &[],
    };
    if summary.world_readable {
        return Ok(true);
    }
    for room in allowed.iter().chain([&summary.room_id]) {
        if servers::is_in_room(snapshot, room, server).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
