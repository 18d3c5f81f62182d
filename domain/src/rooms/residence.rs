//! Whether this server is in a room: only then does it hear what happens there.

use millrace_store::{Read, Scan, tables::MEMBERS};
use ruma::{RoomId, events::room::member::MembershipState};

use crate::Env;

/// Rows that one step of the search reads.
const MEMBERS_PER_STEP: usize = 500;

/// Whether any user of this server is joined to the room.
///
/// # Errors
/// Where the store cannot be read.
pub async fn is_resident(
    read: &impl Read,
    env: &Env,
    room: &RoomId,
) -> millrace_store::Result<bool> {
    let mut scan = Scan::all();
    loop {
        let rows = read.scan(&MEMBERS, room, scan.limit(MEMBERS_PER_STEP)).await?;
        let Some((last, _)) = rows.last() else { return Ok(false) };
        let next = Scan::all().after(last);
        let ours = |(user, member): &(ruma::OwnedUserId, millrace_store::rows::room::Member)| {
            member.membership == MembershipState::Join && env.is_local(user)
        };
        if rows.iter().any(ours) {
            return Ok(true);
        }
        scan = next;
    }
}
