//! Receipts of users of other servers (spec: Server-Server API, Receipts).

use futures::FutureExt;
use millrace_store::{Read, Tx, tables::MEMBERS};
use ruma::{OwnedUserId, RoomId, events::room::member::MembershipState};

use super::{AdvanceError, NewReceipt, advance::move_receipt};
use crate::rooms::{Rooms, events, partial};

/// A receipt of a user of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReceipt {
    /// Who has read.
    pub user: OwnedUserId,
    /// What.
    pub receipt: NewReceipt,
    /// When, in milliseconds since 1970, as their server says.
    pub ts: u64,
}

/// Moves receipts forward, in one commit. Returns those that come too early: their events are not
/// known (yet), or their users not joined. Those that do not fit their thread are dropped.
///
/// # Errors
/// Where the store fails.
pub async fn receive(
    rooms: &Rooms,
    room: &RoomId,
    receipts: &[RemoteReceipt],
) -> Result<Vec<RemoteReceipt>, AdvanceError> {
    let write = |tx: Tx| {
        async move {
            let mut early = Vec::new();
            for remote in receipts {
                let RemoteReceipt { user, receipt, ts } = remote;
                if !is_in_time(&tx, room, remote).await? {
                    early.push(remote.clone());
                    continue;
                }
                match move_receipt(&tx, rooms, (room, user), receipt, *ts).await {
                    Ok(_) | Err(AdvanceError::OtherThread { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(early)
        }
        .boxed()
    };
    rooms.env.store.transact(write).await
}

async fn is_in_time(tx: &Tx, room: &RoomId, remote: &RemoteReceipt) -> Result<bool, AdvanceError> {
    let member = tx.get(&MEMBERS, room, &remote.user).await?;
    let joined = match member {
        Some(member) => member.membership == MembershipState::Join,
        None => partial::may_be_member(tx.unprotected(), room, &remote.user).await?,
    };
    if !joined {
        return Ok(false);
    }
    let found = events::find(tx.unprotected(), room, &remote.receipt.event_id).await?;
    Ok(found.is_some_and(|(_, header)| header.place.is_some()))
}
