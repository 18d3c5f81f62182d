//! Knocking on a room, wherever it is (spec: Server-Server API, Knocking upon a room).

use millrace_domain::rooms::{knock, membership::MembershipError, outside, profile, residence};
use millrace_model::rules::room_version;
use ruma::{
    CanonicalJsonObject, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    api::federation::membership::{
        create_knock_event::v1 as send_knock, prepare_knock_event::v1 as make_knock,
    },
    events::room::member::MembershipState,
};

use super::{
    candidates::{Candidates, NobodyHelped},
    shown,
    template::Wanted,
};
use crate::Federation;

/// Why a knock was not made.
#[derive(Debug, thiserror::Error)]
pub enum KnockError {
    /// The room is here, and takes no knock of the user.
    #[error(transparent)]
    Here(#[from] MembershipError),
    /// The room is elsewhere, and nobody there took the knock.
    #[error(transparent)]
    Elsewhere(#[from] NobodyHelped),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Knocks on a room: here where this server is in it, else by another server's help.
///
/// # Errors
/// Where the room takes no knock of the user or nobody can be reached who is in it.
pub async fn knock(
    federation: &Federation,
    (room, user): (&RoomId, &UserId),
    reason: Option<&str>,
    via: &[OwnedServerName],
) -> Result<(), KnockError> {
    let env = &federation.env;
    let _turn = federation.handshakes.turn(room).await;
    let read = env.store.snapshot();
    if residence::is_resident(&read, room).await? {
        return Ok(knock::knock(&federation.rooms, room, user, reason).await?);
    }
    let mut content = CanonicalJsonObject::new();
    content.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    profile::add_profile(&read, user, &mut content).await?;
    let wanted = Wanted { room, user, membership: MembershipState::Knock, content: &content };
    let candidates = Candidates::of(env, room, user, via).await?;
    let mut failure = NobodyHelped::NoCandidates;
    for server in candidates.iter() {
        match knock_at(federation, &wanted, server).await {
            Ok(shown) => {
                let rooms = &federation.rooms;
                outside::knocked(rooms, room, user, shown, server.clone()).await?;
                return Ok(());
            }
            Err(error) => {
                tracing::info!(%server, %room, %error, "a knock did not come about");
                failure = failure.or(error);
            }
        }
    }
    Err(failure.into())
}

async fn knock_at(
    federation: &Federation,
    wanted: &Wanted<'_>,
    server: &ServerName,
) -> Result<Vec<String>, NobodyHelped> {
    let unusable = |error: &dyn std::fmt::Display| NobodyHelped::unusable(server, error);
    let mut ask = make_knock::Request::new(wanted.room.to_owned(), wanted.user.to_owned());
    ask.ver = knockable();
    let peers = federation.peers.insisting();
    let template = peers.ask(server, ask).await?;
    let version = template.room_version;
    let event = wanted
        .sign(&federation.env, server, &version, &template.event)
        .map_err(|error| unusable(&error))?;
    let pdu = event.to_raw().map_err(|error| unusable(&error))?;
    let ask = send_knock::Request::new(wanted.room.to_owned(), event.event_id.clone(), pdu);
    let answer = peers.ask(server, ask).await?;
    // The knock is made, so what is shown badly cannot undo it: then less is shown.
    let place = (wanted.room, &version);
    let shown = match shown::shown(federation, place, answer.knock_room_state, &event).await {
        Ok(shown) => shown,
        Err(error) => {
            tracing::info!(%server, %error, "a room on which a user knocks cannot be shown");
            shown::only(&event)
        }
    };
    Ok(shown)
}

/// The room versions in which one can knock.
fn knockable() -> Vec<RoomVersionId> {
    let knockable = |version: &RoomVersionId| {
        room_version::rules(version).is_some_and(|rules| rules.authorization.knocking)
    };
    room_version::supported().filter(knockable).collect()
}
