//! How far users have read (spec: Client-Server API, Receipts; Read and unread markers).

mod advance;
mod thread;

pub use self::{
    advance::{Advance, AdvanceError, NewReceipt, ReadMarkers, Scope, advance, set_markers},
    thread::{MAIN, thread_of},
};

use millrace_store::{
    Read, Scan,
    rows::receipt::{ReadUpTo, Receipt},
    tables::RECEIPTS,
};
use ruma::{EventId, RoomId, UserId};

/// The receipts of one user in a room, by kind and thread.
///
/// # Errors
/// Where the store cannot be read.
pub async fn of_user(
    read: &impl Read,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<Vec<(String, Receipt)>> {
    let rows = read.scan(&RECEIPTS, room, Scan::prefix((user, EMPTY))).await?;
    Ok(rows.into_iter().map(|((_, _, thread), receipt)| (thread, receipt)).collect())
}

/// No bytes: a prefix needs no second part.
const EMPTY: () = ();

/// The newest receipts of a user in a room, public or private.
///
/// # Errors
/// Where the store cannot be read.
pub async fn read_up_to(
    read: &impl Read,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<ReadUpTo> {
    let mut up_to = ReadUpTo::default();
    for (thread, receipt) in of_user(read, room, user).await? {
        match thread.as_str() {
            "" => up_to.all = up_to.all.max(receipt.n),
            MAIN => up_to.main = up_to.main.max(receipt.n),
            root => {
                let Ok(root) = EventId::parse(root) else { continue };
                match up_to.threads.iter_mut().find(|(known, _)| *known == root) {
                    Some((_, n)) => *n = receipt.n.max(*n),
                    None => up_to.threads.push((root, receipt.n)),
                }
            }
        }
    }
    Ok(up_to)
}
