//! A member event that another server made of our template and signed (spec: Server-Server API,
//! `send_join`, `send_knock`, `send_leave`).

use millrace_domain::rooms::{
    self, ReadError, RelayError,
    membership::MembershipError,
    partial::{
        self,
        waiting::{self, MOMENT},
    },
    receive::{self, ReceiveError, Received},
    residence, server_acl,
    template::{self, Intent},
};
use millrace_model::{
    Pdu,
    json::{NotCanonical, canonical_object},
    rules::room_version,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedRoomId, RoomId, RoomVersionId,
    ServerName, UserId,
    signatures::{self},
};
use serde_json::value::RawValue;

use super::template::AUTHORISED_VIA;
use crate::{Federation, check::Refusal};

/// What another server hands in.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The server.
    pub origin: &'a ServerName,
    /// The room, as the path has it.
    pub room: &'a RoomId,
    /// The event's ID, as the path has it.
    pub event_id: &'a EventId,
    /// The event.
    pub pdu: &'a RawValue,
}

/// An event that came into the room.
#[derive(Debug)]
pub struct Accepted {
    /// The room's version.
    pub version: RoomVersionId,
    /// The event, with all its signatures.
    pub pdu: Pdu,
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// We are not in the room.
    #[error("this server is not in room {0}")]
    UnknownRoom(OwnedRoomId),
    /// We do not know the room's members yet, and cannot let anybody in.
    #[error("this server is still joining room {0} itself")]
    Partial(OwnedRoomId),
    /// The room's `m.room.server_acl` excludes the server.
    #[error("your server is excluded from this room")]
    Excluded,
    /// Not canonical JSON.
    #[error("the event is malformed: {0}")]
    Json(#[from] NotCanonical),
    /// It is not the event that this endpoint takes, or not that server's to send.
    #[error("the event's {0} is not what it must be")]
    Field(&'static str),
    /// Its form, signatures or hash do not hold.
    #[error("the event cannot be accepted: {0}")]
    Check(#[from] Refusal),
    /// The room's rules do not allow it.
    #[error("the room does not allow this")]
    NotAllowed,
    /// The room does not admit the user.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// We could not sign it.
    #[error("the event cannot be signed: {0}")]
    Sign(#[from] signatures::JsonError),
    /// It could not be put into the room.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It could not be queued for the others.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Takes a member event into its room and queues it for the other servers.
///
/// # Errors
/// Where it is not what `intent` says, or the room does not allow it.
pub async fn submit(
    federation: &Federation,
    submission: &Submission<'_>,
    intent: Intent,
) -> Result<Accepted, SubmitError> {
    let (room, rooms) = (submission.room, &federation.rooms);
    admitted(federation, room, submission.origin).await?;
    if intent != Intent::Leave {
        known_whole(federation, room).await?;
    }
    let version = template::version(rooms, room).await?;
    let mut event = canonical_object(submission.pdu.get())?;
    check_fields(&event, submission, intent)?;
    if intent == Intent::Join {
        vouch(federation, room, &version, &mut event).await?;
    }
    let signed = serde_json::value::to_raw_value(&event).map_err(NotCanonical::from)?;
    let mut checked = federation.check_pdus(&version, vec![signed]).await;
    let pdu = checked.pop().ok_or(SubmitError::Field("form"))??;
    if pdu.event_id != submission.event_id {
        return Err(SubmitError::Field("event_id"));
    }
    match receive::receive(rooms, room, pdu.clone()).await? {
        Received::Accepted | Received::Known => {}
        Received::SoftFailed | Received::Rejected => return Err(SubmitError::NotAllowed),
    }
    match rooms::relay(rooms, room, &pdu.event_id, submission.origin).await {
        // Known, but not as a part of the room's history: it was refused when it came first.
        Err(RelayError::UnknownEvent(_)) => Err(SubmitError::NotAllowed),
        relayed => Ok(relayed.map(|()| Accepted { version, pdu })?),
    }
}

/// Whether we are in the room and it admits the server.
pub(super) async fn admitted(
    federation: &Federation,
    room: &RoomId,
    server: &ServerName,
) -> Result<(), SubmitError> {
    let read = federation.env.store.snapshot();
    if !residence::is_resident(&read, room).await? {
        return Err(SubmitError::UnknownRoom(room.to_owned()));
    }
    if !server_acl::admits(&federation.rooms, &read, room, server).await? {
        return Err(SubmitError::Excluded);
    }
    Ok(())
}

/// Whether all of a room's state is known here: who comes in is told it, and judged by it.
pub(super) async fn known_whole(federation: &Federation, room: &RoomId) -> Result<(), SubmitError> {
    // Another server may hear of the room as soon as we have joined it.
    _ = waiting::completed(&federation.rooms, room, MOMENT).await;
    // Another server may hear of the room as soon as we have joined it.
    _ = waiting::completed(&federation.rooms, room, MOMENT).await;
    match partial::is_partial(&federation.env.store.snapshot(), room).await? {
        true => Err(SubmitError::Partial(room.to_owned())),
        false => Ok(()),
    }
}

fn check_fields(
    event: &CanonicalJsonObject,
    submission: &Submission<'_>,
    intent: Intent,
) -> Result<(), SubmitError> {
    let text = |field: &str| event.get(field).and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.member") {
        return Err(SubmitError::Field("type"));
    }
    if text("room_id") != Some(submission.room.as_str()) {
        return Err(SubmitError::Field("room_id"));
    }
    if content_text(event, "membership") != Some(intent.membership().as_str()) {
        return Err(SubmitError::Field("membership"));
    }
    let sender = text("sender").and_then(|sender| <&UserId>::try_from(sender).ok());
    if sender.is_none_or(|sender| sender.server_name() != submission.origin) {
        return Err(SubmitError::Field("sender"));
    }
    if text("state_key") != text("sender") {
        return Err(SubmitError::Field("state_key"));
    }
    Ok(())
}

fn content_text<'a>(event: &'a CanonicalJsonObject, field: &str) -> Option<&'a str> {
    event.get("content")?.as_object()?.get(field)?.as_str()
}

/// Signs a join that names a user of ours as having admitted the newcomer, where that is true (spec:
/// Restricted rooms).
async fn vouch(
    federation: &Federation,
    room: &RoomId,
    version: &RoomVersionId,
    event: &mut CanonicalJsonObject,
) -> Result<(), SubmitError> {
    let rules =
        room_version::rules(version).ok_or_else(|| Refusal::RoomVersion(version.clone()))?;
    let by = content_text(event, AUTHORISED_VIA).and_then(|by| <&UserId>::try_from(by).ok());
    let ours = by.is_some_and(|by| federation.env.is_local(by));
    if !ours || !rules.authorization.restricted_join_rule {
        return Ok(());
    }
    let user = event.get("sender").and_then(CanonicalJsonValue::as_str);
    let user = user.and_then(|user| <&UserId>::try_from(user).ok());
    template::vouch(&federation.rooms, room, user.ok_or(SubmitError::Field("sender"))?).await?;
    let identity = &federation.env.identity;
    // The content hash was made by the sender's server, and is checked later.
    let name = identity.name.as_str();
    signatures::sign_event(name, &identity.key, event, &rules.redaction)?;
    Ok(())
}
