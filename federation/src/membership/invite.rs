//! Inviting users of other servers (spec: Server-Server API, Inviting to a room).

use millrace_domain::rooms::{
    self, RelayError,
    invite::{self, Invitation, Prepared},
    membership::{Direct, MembershipError},
    receive::{self, ReceiveError, Received},
};
use millrace_model::{Pdu, json::canonical_object, rules::room_version};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedUserId, RoomId, RoomVersionId,
    ServerName, UserId,
    api::federation::membership::{RawStrippedState, create_invite::v2 as invite_v2},
};
use serde_json::value::RawValue;

use super::{candidates::NobodyHelped, invite_v1::InviteV1};
use crate::{Federation, PeerError};

/// Why somebody was not invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The room does not allow it.
    #[error(transparent)]
    Here(#[from] MembershipError),
    /// The other server does not take the invitation.
    #[error(transparent)]
    There(#[from] NobodyHelped),
    /// The room changed meanwhile so that it does not allow it any more.
    #[error("the room does not allow this invitation any more")]
    NoLonger,
    /// It could not be put into the room.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It could not be queued for the other servers.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Invites a user, of this server or of another: then their server signs the invitation before the
/// room has it. Returns the invitation, or nothing where the same one is there already.
///
/// # Errors
/// Where the room does not allow it, or the other server does not take it.
pub async fn invite(
    federation: &Federation,
    invitation: &Invitation<'_>,
) -> Result<Option<OwnedEventId>, InviteError> {
    let (rooms, room) = (&federation.rooms, invitation.room);
    let server = invitation.invited.server_name();
    if federation.env.is_local(invitation.invited) {
        return Ok(invite::invite_as(rooms, invitation).await?);
    }
    let Some(prepared) = invite::prepare_remote(rooms, invitation).await? else {
        return Ok(None);
    };
    let signed = countersigned(federation, server, &prepared).await?;
    let event = signed.event_id.clone();
    match receive::receive(rooms, room, signed).await? {
        Received::Accepted | Received::Known => {}
        Received::SoftFailed | Received::Rejected => return Err(InviteError::NoLonger),
    }
    rooms::relay(rooms, room, &event, &federation.env.identity.name).await?;
    Ok(Some(event))
}

/// Invites those of `invited` who belong to other servers to a room that was just created. That one
/// of them cannot be invited does not undo the room. Goes on when its caller gives up.
pub async fn invite_others(
    federation: &Federation,
    room: &RoomId,
    sender: &UserId,
    (mut invited, direct): (Vec<OwnedUserId>, Direct),
) {
    invited.retain(|user| !federation.env.is_local(user));
    if invited.is_empty() {
        return;
    }
    let (federation, room, sender) = (federation.clone(), room.to_owned(), sender.to_owned());
    let work = tokio::spawn(async move {
        for invited in &invited {
            let (room, sender, reason) = (&*room, &*sender, None);
            let invitation = Invitation { room, sender, invited, direct, reason, content: None };
            if let Err(error) = invite(&federation, &invitation).await {
                tracing::warn!(%room, %invited, %error, "a user could not be invited to a new room");
            }
        }
    });
    if let Err(error) = work.await {
        tracing::error!(%error, "inviting users to a new room failed");
    }
}

/// The invitation with the other server's signature.
async fn countersigned(
    federation: &Federation,
    server: &ServerName,
    prepared: &Prepared,
) -> Result<Pdu, NobodyHelped> {
    let answer = match by_v2(federation, server, prepared).await {
        Err(error) if asks_for_v1(&error, &prepared.version) => {
            by_v1(federation, server, prepared).await
        }
        answer => answer,
    };
    with_signature(prepared, server, &answer?)
        .ok_or_else(|| NobodyHelped::unusable(server, "the invitation came back unsigned"))
}

async fn by_v2(
    federation: &Federation,
    server: &ServerName,
    prepared: &Prepared,
) -> Result<Box<RawValue>, PeerError> {
    let unwritable = |error: serde_json::Error| PeerError::Request(error.to_string());
    let event = &prepared.event;
    let shown = prepared.shown.iter().map(|event| event.pdu.to_raw().map(RawStrippedState::Pdu));
    let request = invite_v2::Request::new(
        event.room_id.clone(),
        event.event_id.clone(),
        prepared.version.clone(),
        event.to_raw().map_err(unwritable)?,
        shown.collect::<Result<_, _>>().map_err(unwritable)?,
    );
    Ok(federation.peers.insisting().ask(server, request).await?.event)
}

/// An older server, which knows only version 1, has only rooms of these versions.
fn asks_for_v1(error: &PeerError, version: &RoomVersionId) -> bool {
    let old = matches!(version, RoomVersionId::V1 | RoomVersionId::V2);
    let PeerError::Refused { status, .. } = error else { return false };
    old && matches!(status.as_u16(), 400 | 404)
}

async fn by_v1(
    federation: &Federation,
    server: &ServerName,
    prepared: &Prepared,
) -> Result<Box<RawValue>, PeerError> {
    let unwritable = |error: serde_json::Error| PeerError::Request(error.to_string());
    let shown = prepared.shown.iter().map(|event| event.pdu.to_raw().map(RawStrippedState::Pdu));
    let shown = shown.collect::<Result<Vec<_>, _>>().map_err(unwritable)?;
    let request = InviteV1::new(&prepared.event, &shown).map_err(unwritable)?;
    Ok(federation.peers.insisting().ask(server, request).await?.event)
}

/// Our event with the signatures that came back. Nothing else of the answer is looked at.
fn with_signature(prepared: &Prepared, server: &ServerName, answer: &RawValue) -> Option<Pdu> {
    fn signatures(event: &CanonicalJsonObject) -> Option<&CanonicalJsonObject> {
        event.get("signatures")?.as_object()
    }
    let answer = canonical_object(answer.get()).ok()?;
    let theirs = signatures(&answer)?.get(server.as_str())?;
    if !theirs.as_object().is_some_and(|keys| keys.values().all(CanonicalJsonValue::is_string)) {
        return None;
    }
    let mut event = prepared.event.to_canonical().ok()?;
    let mut signed = signatures(&event)?.clone();
    signed.insert(server.to_string(), theirs.clone());
    event.insert("signatures".to_owned(), CanonicalJsonValue::Object(signed));
    Pdu::from_canonical(&event, room_version::rules(&prepared.version)?).ok()
}
