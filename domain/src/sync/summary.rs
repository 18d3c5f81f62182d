//! A room's summary: how many members, and of whom a client makes a name where there is none
//! (spec: Client-Server API, Calculating the display name for a room).

use millrace_store::{Read, Scan, Snapshot, rows::room::RoomHead, tables::MEMBERS};
use ruma::{
    OwnedUserId, RoomId, UInt, UserId, api::client::sync::sync_events::v3::RoomSummary,
    events::room::member::MembershipState,
};

use super::SyncError;

/// The specification's number of heroes.
const HEROES_MAX: usize = 5;
/// So many members are looked through for them.
const LOOKED_AT_MAX: usize = 50;

/// The summary of a room for `user`. Heroes only where the room has no name of its own.
///
/// # Errors
/// Where the store cannot be read.
pub async fn read(
    snapshot: &Snapshot,
    (room, head): (&RoomId, &RoomHead),
    user: &UserId,
    named: bool,
) -> Result<RoomSummary, SyncError> {
    let mut summary = RoomSummary::new();
    summary.joined_member_count = Some(UInt::new_saturating(head.joined));
    summary.invited_member_count = Some(UInt::new_saturating(head.invited));
    if !named {
        summary.heroes = heroes(snapshot, room, user).await?;
    }
    Ok(summary)
}

/// The members of whom a room without a name is called, as `user` sees it (spec: `m.heroes`).
///
/// # Errors
/// Where the store cannot be read.
pub async fn heroes(
    snapshot: &Snapshot,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<Vec<OwnedUserId>> {
    let members = snapshot.scan(&MEMBERS, room, Scan::all().limit(LOOKED_AT_MAX)).await?;
    let others = || members.iter().filter(|(member, _)| member != user);
    let (mut present, mut gone) = (Vec::new(), Vec::new());
    for (member, row) in others() {
        match row.membership {
            MembershipState::Join | MembershipState::Invite => present.push(member.clone()),
            _ => gone.push(member.clone()),
        }
    }
    // Only a room that all others have left is named after who is gone.
    let mut heroes = if present.is_empty() { gone } else { present };
    heroes.truncate(HEROES_MAX);
    Ok(heroes)
}
