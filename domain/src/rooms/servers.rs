//! Which servers are in a room, and which rooms we share with a server.

use millrace_store::{
    Read, Scan, Tx,
    rows::{outbox::ServerInRoom, room::RoomHead},
    tables::{ROOM_SERVERS, SERVER_ROOMS},
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId, events::room::member::MembershipState,
};

use super::{AppendError, RoomTx};
use crate::{Env, outbox};

/// So many rooms that are shared with one server are told of at most.
const ROOMS_MAX: usize = 100_000;

impl RoomTx<'_> {
    /// Notes that the newest event of the room changed a user's membership in the current state. For
    /// whoever writes [`millrace_store::tables::MEMBERS`], before the head is written.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub(super) async fn note_server(
        &mut self,
        user: &UserId,
        old: &MembershipState,
        new: &MembershipState,
    ) -> Result<(), AppendError> {
        let (was, is) = (*old == MembershipState::Join, *new == MembershipState::Join);
        let asked = matches!(old, MembershipState::Invite | MembershipState::Knock);
        if asked && !is && !self.rooms.env.is_local(user) {
            self.turned_away = Some(user.server_name().to_owned());
        }
        if was == is {
            return Ok(());
        }
        if is && self.head.remote_servers > 0 {
            let partial = self.head.partial.is_some();
            introduce(self.tx, &self.rooms.env, &self.room_id, (user, partial));
        }
        let server = user.server_name();
        let n = self.head.last;
        let place = Place { room: &self.room_id, n };
        count(self.tx, &self.rooms.env, place, (server, joins(is)), &mut self.head).await?;
        Ok(())
    }
}

/// Lets the other servers of a room, which may be known in part, know of the devices of a user of ours who
/// came into it.
fn introduce(tx: &Tx, env: &Env, room: &RoomId, (user, partial): (&UserId, bool)) {
    if env.is_local(user) {
        let (room, user) = (room.to_owned(), user.to_owned());
        outbox::announce(tx, &outbox::News::Joined { room, user, partial });
    }
}

fn joins(is: bool) -> i64 {
    if is { 1 } else { -1 }
}

/// An event of a room.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// `n` of the event in its timeline.
    pub n: i64,
}

pub(super) async fn count(
    tx: &Tx,
    env: &Env,
    Place { room, n }: Place<'_>,
    (server, joins): (&ServerName, i64),
    head: &mut RoomHead,
) -> millrace_store::Result<()> {
    let mut row = tx.get(&ROOM_SERVERS, room, server).await?.unwrap_or_default();
    let before = row.joined;
    row.count(joins, n);
    tx.put(&ROOM_SERVERS, room, server, &row);
    if server != env.identity.name && (before == 0) != (row.joined == 0) {
        if row.joined > 0 {
            head.remote_servers += 1;
            tx.put(&SERVER_ROOMS, server, room, &());
        } else {
            // The row of SERVER_ROOMS goes once the server was told of its leaving.
            head.remote_servers -= 1;
        }
        let (room, server) = (room.to_owned(), server.to_owned());
        outbox::announce(tx, &outbox::News::Server { room, server });
    }
    Ok(())
}

/// The servers that have joined users in a room, ours too if it has.
///
/// # Errors
/// Where the store cannot be read.
pub async fn servers_of(
    read: &impl Read,
    room: &RoomId,
) -> millrace_store::Result<Vec<OwnedServerName>> {
    let rows = read.scan(&ROOM_SERVERS, room, Scan::all()).await?;
    Ok(rows.into_iter().filter(|(_, row)| row.joined > 0).map(|(server, _)| server).collect())
}

/// When a server had users in a room; `None` where it never had.
///
/// # Errors
/// Where the store cannot be read.
pub async fn server_in_room(
    read: &impl Read,
    room: &RoomId,
    server: &ServerName,
) -> millrace_store::Result<Option<ServerInRoom>> {
    read.get(&ROOM_SERVERS, room, server).await
}

/// Whether a server has joined users in a room.
///
/// # Errors
/// Where the store cannot be read.
pub async fn is_in_room(
    read: &impl Read,
    room: &RoomId,
    server: &ServerName,
) -> millrace_store::Result<bool> {
    Ok(server_in_room(read, room, server).await?.is_some_and(|row| row.joined > 0))
}

/// The rooms in which both another server and ours have joined users.
///
/// # Errors
/// Where the store cannot be read.
pub async fn rooms_shared_with(
    read: &impl Read,
    env: &Env,
    server: &ServerName,
) -> millrace_store::Result<Vec<OwnedRoomId>> {
    let rows = read.scan(&SERVER_ROOMS, server, Scan::all().limit(ROOMS_MAX)).await?;
    let mut rooms = Vec::with_capacity(rows.len());
    for (room, ()) in rows {
        if is_in_room(read, &room, server).await?
            && is_in_room(read, &room, &env.identity.name).await?
        {
            rooms.push(room);
        }
    }
    Ok(rooms)
}

#[cfg(test)]
mod tests {
    use millrace_store::tables::ROOM_HEAD;
    use ruma::{server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::rooms::{
        Draft,
        test_room::{TestRoom, object, user},
    };

    async fn set(room: &TestRoom, sender: &UserId, target: &UserId, membership: &str) {
        let content = object(json!({ "membership": membership }));
        let kind = ruma::events::TimelineEventType::RoomMember;
        room.append(Draft::state(sender, kind, target.as_str(), content)).await;
    }

    #[tokio::test]
    async fn servers_are_in_a_room_as_long_as_a_user_of_theirs_is() {
        let room = TestRoom::with_visibility("shared").await;
        let env = &room.rooms.env;
        let (one, two) = (user_id!("@one:far.example"), user_id!("@two:far.example"));
        let (alice, far) = (user("alice"), server_name!("far.example"));
        set(&room, one, one, "join").await;
        set(&room, two, two, "join").await;
        let servers = servers_of(&env.store.snapshot(), &room.id).await.unwrap();
        assert_eq!(servers, ["far.example", "test.example"]);
        let shared = rooms_shared_with(&env.store.snapshot(), env, far).await.unwrap();
        assert_eq!(shared, std::slice::from_ref(&room.id));
        set(&room, &alice, one, "leave").await;
        assert!(is_in_room(&env.store.snapshot(), &room.id, far).await.unwrap());
        set(&room, &alice, two, "leave").await;
        let snapshot = env.store.snapshot();
        assert!(!is_in_room(&snapshot, &room.id, far).await.unwrap());
        assert!(rooms_shared_with(&snapshot, env, far).await.unwrap().is_empty());
        let head = snapshot.get(&ROOM_HEAD, &room.id, ()).await.unwrap().unwrap();
        assert_eq!(head.remote_servers, 0);
        let row = server_in_room(&snapshot, &room.id, far).await.unwrap().unwrap();
        assert!(row.sees(head.last), "it sees the event that ended its stay");
        assert!(!row.sees(head.last + 1));
    }
}
