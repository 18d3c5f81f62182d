//! Reporting content to the people who run the server (spec: Client-Server API, Reporting Content).

use futures::FutureExt;
pub use millrace_store::rows::report::Subject;
use millrace_store::{
    Node, Read, Scan, Tx,
    rows::report::Report,
    tables::{ACCOUNTS, MEMBERS, REPORTS, ROOM_HEAD},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::room::member::MembershipState,
};

use super::{Rooms, events};

/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 16 * 1024;

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No such event in a room in which the reporter is.
    #[error("there is no event {0} that you can report")]
    UnknownEvent(OwnedEventId),
    /// No such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// No such user here.
    #[error("there is no user {0}")]
    UnknownUser(OwnedUserId),
    /// The reason is too long.
    #[error("a reason is at most {REASON_BYTES_MAX} bytes long")]
    ReasonTooLong,
    /// The store failed.
    #[error("could not keep the report")]
    Store(#[from] millrace_store::Error),
}

/// Keeps a report.
///
/// # Errors
/// Where what is reported does not exist for the reporter.
pub async fn report(
    rooms: &Rooms,
    reporter: &UserId,
    subject: &Subject,
    reason: &str,
) -> Result<(), ReportError> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(ReportError::ReasonTooLong);
    }
    let number = rooms.env.store.next_event_number().await?;
    let at_ms = u64::from(rooms.env.now().0);
    let body = |tx: Tx| {
        async move {
            match subject {
                Subject::Event { room, event } => check_event(&tx, reporter, room, event).await?,
                Subject::Room { room } => {
                    if tx.get(&ROOM_HEAD, room, ()).await?.is_none() {
                        return Err(ReportError::UnknownRoom(room.clone()));
                    }
                }
                // Of users of other servers we may never have heard.
                Subject::User { user } if rooms.env.is_local(user) => {
                    if tx.get(&ACCOUNTS, user, ()).await?.is_none() {
                        return Err(ReportError::UnknownUser(user.clone()));
                    }
                }
                Subject::User { .. } => {}
            }
            let (reporter, reason) = (reporter.to_owned(), reason.to_owned());
            let row = Report { reporter, subject: subject.clone(), reason };
            tx.put(&REPORTS, Node, (at_ms, number), &row);
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}

/// An event can be reported by who is in its room.
async fn check_event(
    tx: &Tx,
    reporter: &UserId,
    room: &RoomId,
    event: &EventId,
) -> Result<(), ReportError> {
    let member = tx.get(&MEMBERS, room, reporter).await?;
    let joined = member.is_some_and(|member| member.membership == MembershipState::Join);
    if joined && events::find(tx, room, event).await?.is_some() {
        return Ok(());
    }
    Err(ReportError::UnknownEvent(event.to_owned()))
}

/// All reports, oldest first, with their times in milliseconds since 1970.
///
/// # Errors
/// Where the store cannot be read.
pub async fn reports(rooms: &Rooms) -> millrace_store::Result<Vec<(u64, Report)>> {
    let rows = rooms.env.store.snapshot().scan(&REPORTS, Node, Scan::all()).await?;
    Ok(rows.into_iter().map(|((at_ms, _), report)| (at_ms, report)).collect())
}

#[cfg(test)]
mod tests;
