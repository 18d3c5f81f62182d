//! In which rooms somebody may search.

use std::collections::BTreeSet;

use millrace_domain::rooms::{RoomView, Viewer};
use millrace_store::{
    Read, Scan, Snapshot,
    tables::{CURRENT_STATE, ROOM_HEAD, USER_ROOMS},
};
use ruma::{OwnedRoomId, RoomId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{Group, Request, SearchError};
use crate::{Search, follow::is_encrypted};

/// Rooms that were upgraded one after another are followed back so far.
const PREDECESSORS_MAX: usize = 32;

#[derive(Deserialize)]
struct CreateContent {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

impl Search {
    /// The rooms in which the viewer is or was, and that the request asks for, those included that
    /// they took the place of.
    pub(super) async fn scope(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        request: &Request,
    ) -> Result<Vec<OwnedRoomId>, SearchError> {
        let rows = snapshot.scan(&USER_ROOMS, &viewer.user, Scan::all()).await?;
        let own: BTreeSet<OwnedRoomId> = rows
            .into_iter()
            .filter(|(_, row)| {
                row.membership == MembershipState::Join || (row.was_joined && !row.forgotten)
            })
            .map(|(room, _)| room)
            .collect();
        let wanted = match &request.rooms {
            None => own,
            Some(rooms) => {
                let mut wanted = BTreeSet::new();
                for room in rooms.iter().filter(|room| own.contains(*room)) {
                    let mut next = Some(room.clone());
                    for _ in 0..PREDECESSORS_MAX {
                        let Some(room) = next.take().filter(|room| own.contains(room)) else {
                            break;
                        };
                        next = self.predecessor(snapshot, &room).await?;
                        if !wanted.insert(room) {
                            break;
                        }
                    }
                }
                wanted
            }
        };
        let group = request.next_batch.as_ref().and_then(|token| token.group.as_ref());
        let in_group = |room: &OwnedRoomId| match group {
            Some(Group::Room(only)) => room == only,
            Some(Group::Sender(_)) | None => true,
        };
        let admitted = |room: &OwnedRoomId| request.filter.admits_room(room);
        Ok(wanted.into_iter().filter(|room| in_group(room) && admitted(room)).collect())
    }

    async fn predecessor(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
    ) -> Result<Option<OwnedRoomId>, SearchError> {
        let head = snapshot.get(&ROOM_HEAD, room, ()).await?;
        let number = snapshot.get(&CURRENT_STATE, room, ("m.room.create", "")).await?;
        let Some((head, number)) = head.zip(number) else { return Ok(None) };
        let create = self.rooms.events.load_one(snapshot, room, &head.version, number).await;
        let create = create.map_err(millrace_domain::rooms::ReadError::from)?;
        let content = create.pdu.content_as::<CreateContent>().ok();
        Ok(content.and_then(|content| content.predecessor).map(|old| old.room_id))
    }

    /// A room as the viewer may search it; none where it is encrypted, or they may see nothing of it.
    pub(super) async fn searchable<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        room: &'a RoomId,
        viewer: &'a Viewer,
    ) -> Result<Option<RoomView<'a>>, SearchError> {
        if is_encrypted(snapshot, room).await? {
            return Ok(None);
        }
        let view = RoomView::open(&self.rooms, snapshot, room, viewer).await?;
        match view {
            Some(view) if view.end().await?.is_some() => Ok(Some(view)),
            _ => Ok(None),
        }
    }
}
