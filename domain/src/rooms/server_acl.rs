//! Which servers may take part in a room (spec: Server-Server API, Server Access Control Lists).

use millrace_model::rules::room_version;
use millrace_store::{
    Read,
    tables::{CURRENT_STATE, EVENT_HEADERS, ROOM_HEAD},
};
use ruma::{RoomId, ServerName, events::room::server_acl::RoomServerAclEventContent};

use super::{ReadError, Rooms};

/// Whether the room's `m.room.server_acl` admits `server`. A room without one, or with one that
/// cannot be read, admits all, as does a room that we do not have.
///
/// # Errors
/// Where the store cannot be read.
pub async fn admits(
    rooms: &Rooms,
    read: &impl Read,
    room: &RoomId,
    server: &ServerName,
) -> Result<bool, ReadError> {
    let place = ("m.room.server_acl", "");
    let Some(number) = read.get(&CURRENT_STATE, room, place).await? else { return Ok(true) };
    let Some(head) = read.get(&ROOM_HEAD, room, ()).await? else { return Ok(true) };
    let event = rooms.events.load_one(read, room, &head.version, number).await?;
    let header = read.get(&EVENT_HEADERS, room, number).await?;
    let content = if header.is_some_and(|header| header.redacted_by.is_some()) {
        let rules = room_version::rules(&head.version)
            .ok_or_else(|| ReadError::Version(head.version.clone()))?;
        event.redacted(rules)?.pdu.content_as::<RoomServerAclEventContent>()
    } else {
        event.pdu.content_as()
    };
    Ok(content.map_or(true, |acl| acl.is_allowed(server)))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;
    use crate::rooms::test_room::{TestRoom, state};

    #[tokio::test]
    async fn a_room_admits_whom_its_newest_list_admits() {
        let room = TestRoom::with_visibility("shared").await;
        let admitted = async |server| {
            let snapshot = room.rooms.env.store.snapshot();
            admits(&room.rooms, &snapshot, &room.id, server).await.unwrap()
        };
        let (good, bad) = (server_name!("good.example:8448"), server_name!("x.bad.example"));
        assert!(admitted(good).await && admitted(bad).await);
        let list = json!({ "allow": ["*"], "deny": ["*.BAD.example"], "allow_ip_literals": false });
        room.append(state("alice", "m.room.server_acl", "", list)).await;
        assert!(admitted(good).await && !admitted(bad).await);
        assert!(!admitted(server_name!("1.2.3.4")).await);
        room.append(state("alice", "m.room.server_acl", "", json!({ "allow": [5] }))).await;
        assert!(admitted(bad).await, "what cannot be read bans nobody");
    }
}
