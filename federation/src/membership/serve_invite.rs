//! Invitations of our users by other servers (spec: Server-Server API, Inviting to a room).

use millrace_domain::{
    account_data::{InvitePermission, InvitePermissions},
    rooms::{ReadError, outside, residence, server_acl},
};
use millrace_model::{
    Pdu,
    json::{NotCanonical, canonical_object},
    pdu::InvalidPdu,
    rules::room_version,
};
use millrace_store::{
    Read,
    tables::{ACCOUNTS, ROOM_HEAD},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::federation::membership::RawStrippedState, signatures,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    shown::{self, BadShownState},
    submit::Submission,
};
use crate::{Federation, check::Refusal};

/// Why an invitation is not taken.
#[derive(Debug, thiserror::Error)]
pub enum InviteRefusal {
    /// We do not have the room's version.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// Not canonical JSON.
    #[error("the event is malformed: {0}")]
    Json(#[from] NotCanonical),
    /// It is not an invitation of a user of ours by the server that sent it.
    #[error("the event's {0} is not what it must be")]
    Field(&'static str),
    /// Its form, signatures or hash do not hold.
    #[error("the event cannot be accepted: {0}")]
    Check(#[from] Refusal),
    /// What it shows of the room does not hold.
    #[error(transparent)]
    Shown(#[from] BadShownState),
    /// There is no such user here.
    #[error("there is no user {0}")]
    NoUser(OwnedUserId),
    /// The user wants no invitations by the sender.
    #[error("{0} does not want to be invited")]
    Blocked(OwnedUserId),
    /// The room is here, and its `m.room.server_acl` excludes the server.
    #[error("your server is excluded from this room")]
    Excluded,
    /// It could not be signed.
    #[error("the event cannot be signed: {0}")]
    Sign(#[from] signatures::JsonError),
    /// The signed event is no event.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Takes an invitation and returns it with our signature. `version` is that of the room, as the other
/// server says; where it does not, that of the room if it is here, else 1.
///
/// # Errors
/// Where it is not an invitation of a user of ours by that server.
pub async fn invited(
    federation: &Federation,
    submission: &Submission<'_>,
    version: Option<RoomVersionId>,
    state: Vec<RawStrippedState>,
) -> Result<Pdu, InviteRefusal> {
    let room = submission.room;
    let read = federation.env.store.snapshot();
    let version = match version {
        Some(version) => version,
        None => {
            let head = read.get(&ROOM_HEAD, room, ()).await?;
            head.map_or(RoomVersionId::V1, |head| head.version)
        }
    };
    let rules =
        room_version::rules(&version).ok_or_else(|| InviteRefusal::Version(version.clone()))?;
    let event = canonical_object(submission.pdu.get())?;
    let user = check_fields(federation, &event, submission)?;
    let mut checked = federation.check_pdus(&version, vec![submission.pdu.to_owned()]).await;
    let pdu = checked.pop().ok_or(InviteRefusal::Field("form"))??;
    if pdu.event_id != submission.event_id {
        return Err(InviteRefusal::Field("event_id"));
    }
    let account = read.get(&ACCOUNTS, &user, ()).await?;
    if account.is_none_or(|account| account.deactivated.is_some()) {
        return Err(InviteRefusal::NoUser(user));
    }
    if InvitePermissions::load(&read, &user).await?.of(&pdu.sender) == InvitePermission::Block {
        return Err(InviteRefusal::Blocked(user));
    }
    if !server_acl::admits(&federation.rooms, &read, room, submission.origin).await? {
        return Err(InviteRefusal::Excluded);
    }
    let shown = shown::shown(federation, (room, &version), state, &pdu).await?;
    let identity = &federation.env.identity;
    let mut signed = pdu.to_canonical().map_err(NotCanonical::from)?;
    signatures::sign_event(identity.name.as_str(), &identity.key, &mut signed, &rules.redaction)?;
    let signed = Pdu::from_canonical(&signed, rules)?;
    // In a room of ours it comes with the room's other events.
    if !residence::is_resident(&read, room).await? {
        outside::invited(&federation.rooms, room, &user, &signed.sender, shown).await?;
    }
    Ok(signed)
}

/// Whom an invitation is for, as it says itself, before anything is checked.
#[must_use]
pub fn whom(event: &RawValue) -> Option<OwnedUserId> {
    #[derive(Deserialize)]
    struct Member {
        state_key: OwnedUserId,
    }
    serde_json::from_str::<Member>(event.get()).ok().map(|member| member.state_key)
}

/// Who is invited, if it is an invitation of a user of ours by the server that sent it.
fn check_fields(
    federation: &Federation,
    event: &CanonicalJsonObject,
    submission: &Submission<'_>,
) -> Result<OwnedUserId, InviteRefusal> {
    let text = |field: &str| event.get(field).and_then(CanonicalJsonValue::as_str);
    if text("type") != Some("m.room.member") {
        return Err(InviteRefusal::Field("type"));
    }
    if text("room_id") != Some(RoomId::as_str(submission.room)) {
        return Err(InviteRefusal::Field("room_id"));
    }
    let content = event.get("content").and_then(CanonicalJsonValue::as_object);
    let membership = content.and_then(|content| content.get("membership")?.as_str());
    if membership != Some("invite") {
        return Err(InviteRefusal::Field("membership"));
    }
    let user = |field| text(field).and_then(|user| UserId::parse(user).ok());
    if user("sender").is_none_or(|sender| sender.server_name() != submission.origin) {
        return Err(InviteRefusal::Field("sender"));
    }
    let invited = user("state_key").filter(|user| federation.env.is_local(user));
    invited.ok_or(InviteRefusal::Field("state_key"))
}
