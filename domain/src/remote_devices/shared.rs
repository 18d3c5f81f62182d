//! Which rooms we share with a user of another server, and since when without a break: only while we
//! do does their server tell us of their devices.

use millrace_store::{
    Error, Read, Scan, Snapshot,
    rows::{inbound::Anchor, outbox::ServerInRoom, room::Member},
    tables::{MEMBERS, ROOM_SERVERS, SERVER_ROOMS},
};
use ruma::{OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};

use crate::Env;

/// So many rooms shared with one server are looked at.
const ROOMS_MAX: usize = 100_000;

/// The rooms that we share with a user of another server.
pub(super) async fn shared_rooms(
    snapshot: &Snapshot,
    env: &Env,
    user: &UserId,
) -> Result<Vec<OwnedRoomId>, Error> {
    let mut shared = Vec::new();
    for room in rooms_of_server(snapshot, user).await? {
        if stay(snapshot, env, &room, user).await?.is_some() {
            shared.push(room);
        }
    }
    Ok(shared)
}

/// A room that we share with a user of another server; none where there is none.
pub(super) async fn find_anchor(
    snapshot: &Snapshot,
    env: &Env,
    user: &UserId,
) -> Result<Option<Anchor>, Error> {
    for room in rooms_of_server(snapshot, user).await? {
        if let Some((member, since)) = stay(snapshot, env, &room, user).await? {
            return Ok(Some(Anchor { room, member, since }));
        }
    }
    Ok(None)
}

/// Whether a room has been shared all the time since it became the anchor.
pub(super) async fn holds(
    snapshot: &Snapshot,
    env: &Env,
    user: &UserId,
    anchor: &Anchor,
) -> Result<bool, Error> {
    let stay = stay(snapshot, env, &anchor.room, user).await?;
    Ok(stay == Some((anchor.member, anchor.since)))
}

async fn rooms_of_server(snapshot: &Snapshot, user: &UserId) -> Result<Vec<OwnedRoomId>, Error> {
    let scan = Scan::all().limit(ROOMS_MAX);
    let rows = snapshot.scan(&SERVER_ROOMS, user.server_name(), scan).await?;
    Ok(rows.into_iter().map(|(room, ())| room).collect())
}

/// The user's member event in a room, and `n` from which on we have been in it, where both are in it
/// now.
async fn stay(
    snapshot: &Snapshot,
    env: &Env,
    room: &RoomId,
    user: &UserId,
) -> Result<Option<(u64, i64)>, Error> {
    let Some(Member { membership: MembershipState::Join, event }) =
        snapshot.get(&MEMBERS, room, user).await?
    else {
        return Ok(None);
    };
    let ours = snapshot.get(&ROOM_SERVERS, room, &*env.identity.name).await?;
    let stays = ours.filter(|ours| ours.joined > 0).map(|ServerInRoom { stays, .. }| stays);
    let since = stays.as_ref().and_then(|stays| stays.last()).map(|(since, _)| *since);
    Ok(since.map(|since| (event, since)))
}
