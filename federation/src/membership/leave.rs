//! Leaving a room, rejecting an invitation or taking back a knock, wherever the room is (spec:
//! Server-Server API, Leaving Rooms).

use std::time::Duration;

use millrace_domain::rooms::{leave, membership::MembershipError, outside, residence};
use millrace_store::{Read, tables::USER_ROOMS};
use ruma::{
    CanonicalJsonObject, RoomId, RoomVersionId, ServerName, UserId,
    api::federation::membership::{
        create_leave_event::v2 as send_leave, prepare_leave_event::v1 as make_leave,
    },
    events::room::member::MembershipState,
};

use super::{
    candidates::{Candidates, NobodyHelped},
    template::Wanted,
};
use crate::{Federation, transport::ExchangeLimits};

/// A user who wants to be rid of an invitation does not wait long for a server that is gone.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(10), answer_bytes_max: 1 << 20 };

/// Why a room was not left.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The room is here, and the user cannot leave it.
    #[error(transparent)]
    Here(#[from] MembershipError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Takes a user out of a room. Where this server is not in the room, the servers in it are told; that
/// none of them answers does not keep the user from leaving.
///
/// # Errors
/// Where the user has nothing to do with the room, or is banned from it.
pub async fn leave(
    federation: &Federation,
    room: &RoomId,
    user: &UserId,
    reason: Option<&str>,
) -> Result<(), LeaveError> {
    let (env, rooms) = (&federation.env, &federation.rooms);
    let _turn = federation.handshakes.turn(room).await;
    let read = env.store.snapshot();
    let row = read.get(&USER_ROOMS, user, room).await?;
    let outside = row.is_some_and(|row| {
        matches!(row.membership, MembershipState::Invite | MembershipState::Knock)
    });
    if !outside || residence::is_resident(&read, room).await? {
        return Ok(leave::leave(rooms, room, user, reason).await?);
    }
    let mut content = CanonicalJsonObject::new();
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    let wanted = Wanted { room, user, membership: MembershipState::Leave, content: &content };
    for server in Candidates::of(env, room, user, &[]).await?.iter() {
        match leave_by(federation, &wanted, server).await {
            Ok(()) => {
                outside::left(rooms, room, user).await?;
                return Ok(());
            }
            Err(error) => {
                tracing::info!(%server, %room, %error, "a server does not let a user leave");
            }
        }
    }
    outside::left(rooms, room, user).await?;
    Ok(())
}

async fn leave_by(
    federation: &Federation,
    wanted: &Wanted<'_>,
    server: &ServerName,
) -> Result<(), NobodyHelped> {
    let unusable = |error: &dyn std::fmt::Display| NobodyHelped::unusable(server, error);
    let (room, user) = (wanted.room.to_owned(), wanted.user.to_owned());
    let ask = make_leave::Request::new(room.clone(), user);
    let peers = federation.peers.insisting();
    let template = peers.ask_within(server, ask, LIMITS).await?;
    let version = template.room_version.unwrap_or(RoomVersionId::V1);
    let event = wanted
        .sign(&federation.env, server, &version, &template.event)
        .map_err(|error| unusable(&error))?;
    let pdu = event.to_raw().map_err(|error| unusable(&error))?;
    let ask = send_leave::Request::new(room, event.event_id.clone(), pdu);
    peers.ask_within(server, ask, LIMITS).await?;
    Ok(())
}
