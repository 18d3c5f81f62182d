//! The rooms that two users share (spec: Client-Server API, Mutual rooms).

use millrace_store::{Read, tables::MEMBERS};
use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState};

use super::members::joined_rooms;
use crate::Env;

/// Rooms of one answer.
const PAGE: usize = 100;

/// Some of the rooms that two users share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutual {
    /// The rooms.
    pub rooms: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub count: usize,
    /// Where to go on; none where there are no more.
    pub next: Option<OwnedRoomId>,
}

/// The rooms that both `user` and `other` are joined to, from the one after `from` on.
///
/// # Errors
/// Where the store cannot be read.
pub async fn mutual_rooms(
    env: &Env,
    user: &UserId,
    other: &UserId,
    from: Option<&OwnedRoomId>,
) -> millrace_store::Result<Mutual> {
    let snapshot = env.store.snapshot();
    let mut shared = Vec::new();
    // In order of their IDs, as they are stored.
    for room in joined_rooms(&snapshot, user).await? {
        let member = snapshot.get(&MEMBERS, &room, other).await?;
        if member.is_some_and(|member| member.membership == MembershipState::Join) {
            shared.push(room);
        }
    }
    let count = shared.len();
    let begin = from.map_or(0, |from| shared.partition_point(|room| room <= from));
    let rooms: Vec<_> = shared.drain(begin..).take(PAGE).collect();
    let is_more = begin + rooms.len() < count;
    let next = rooms.last().filter(|_| is_more).cloned();
    Ok(Mutual { rooms, count, next })
}
