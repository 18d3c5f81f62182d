//! Sending messages, state and redactions: client-server API, "Sending events to a room",
//! "Redactions".

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
};
use millrace_domain::{
    accounts::Requester,
    presence::Presence,
    rooms::{
        Draft, Rooms,
        invite::Invitation,
        membership::{Direct, MembershipError},
        redact::{self, Redaction, RedactsOf},
        send::{self, TransactionKey},
        set_state::{self, NewState, SetStateError},
    },
    typing::Typing,
};
use millrace_federation::{Federation, membership::invite};
use millrace_model::json::canonical_object;
use ruma::{
    CanonicalJsonObject, OwnedEventId, RoomId, TransactionId,
    api::{
        client::{message::send_message_event, redact::redact_event, state::send_state_event},
        error::ErrorKind,
    },
    events::TimelineEventType,
};

use super::{
    appservices::sending_at, error::ApiError, extract::Matrix, limits::EndpointClass,
    membership::guest, router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(send_message).matrix(send_state).matrix(redact_event)
}

/// Parameters of MSC4140. What asks to be sent later is not sent at once.
const DELAYS: [&str; 2] = ["org.matrix.msc4140.delay", "org.matrix.msc4140.parent_delay_id"];

fn refuse_delay(query: Option<&str>) -> Result<(), ApiError> {
    let parameters = query.unwrap_or_default().split('&');
    let mut names = parameters.map(|pair| pair.split('=').next().unwrap_or_default());
    if names.any(|name| DELAYS.contains(&name)) {
        let message = "This server cannot send events later";
        return Err(ApiError::bad_request(ErrorKind::Unrecognized, message));
    }
    Ok(())
}

fn transaction(requester: &Requester, endpoint: String, id: &TransactionId) -> TransactionKey {
    TransactionKey { device: requester.device.clone(), endpoint, id: id.to_string() }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
#[tracing::instrument(name = "client.events.send", skip_all, fields(room = %request.room_id))]
async fn send_message(
    (State(rooms), State(presence)): (State<RoomsPart>, State<Arc<Presence>>),
    RawQuery(query): RawQuery,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<send_message_event::v3::Request>,
) -> Result<Matrix<send_message_event::v3::Response>, ApiError> {
    limits.check(EndpointClass::Message, &requester.user)?;
    refuse_delay(query.as_deref())?;
    let rooms = sending_at(&rooms, &requester, request.timestamp);
    let (room, kind) = (&request.room_id, request.event_type.to_string());
    let content = canonical_object(request.body.json().get())?;
    let key = transaction(&requester, format!("send/{room}/{kind}"), &request.txn_id);
    let kind = TimelineEventType::from(kind);
    let user = requester.user.clone();
    let sent = if kind == TimelineEventType::RoomRedaction {
        let redaction = redaction_of(requester, content)?;
        redact::redact(&rooms, room, &redaction, Some(&key)).await?
    } else {
        let draft = Draft::message(&requester.user, kind, content);
        send::send(&rooms, room, &draft, Some(&key)).await?
    };
    presence.active(&user).await.map_err(ApiError::internal)?;
    Ok(Matrix(send_message_event::v3::Response::new(sent)))
}

/// A redaction that is sent as any event says in its content what it redacts.
fn redaction_of(
    requester: Requester,
    mut content: CanonicalJsonObject,
) -> Result<Redaction, ApiError> {
    let target = content.remove("redacts");
    let target = target.as_ref().and_then(|target| OwnedEventId::try_from(target.as_str()?).ok());
    let target = target.ok_or_else(|| ApiError::bad_json("redacts must be an event ID"))?;
    let of = redacts_of(&requester);
    Ok(Redaction { sender: requester.user, target, content, of })
}

fn redacts_of(requester: &Requester) -> RedactsOf {
    if requester.suspended { RedactsOf::Own } else { RedactsOf::All }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
#[tracing::instrument(name = "client.state.send", skip_all, fields(room = %request.room_id))]
async fn send_state(
    (State(federation), State(typing)): (State<Federation>, State<Arc<Typing>>),
    RawQuery(query): RawQuery,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<send_state_event::v3::Request>,
) -> Result<Matrix<send_state_event::v3::Response>, ApiError> {
    limits.check(EndpointClass::Message, &requester.user)?;
    refuse_delay(query.as_deref())?;
    let rooms = sending_at(&federation.rooms, &requester, request.timestamp);
    let new = NewState {
        guest: guest(&requester),
        sender: requester.user,
        kind: request.event_type.into(),
        state_key: request.state_key,
        content: canonical_object(request.body.json().get())?,
    };
    let sent = set_or_invite((&federation, &*rooms), &request.room_id, &new).await?;
    typing.stop_absent(&request.room_id).await.map_err(ApiError::internal)?;
    Ok(Matrix(send_state_event::v3::Response::new(sent)))
}

/// Sets state. The invitation of another server's user is signed by that server first.
async fn set_or_invite(
    (federation, rooms): (&Federation, &Rooms),
    room: &RoomId,
    new: &NewState,
) -> Result<OwnedEventId, ApiError> {
    let set = set_state::set_state(rooms, room, new).await;
    let Err(SetStateError::Membership(MembershipError::OtherServer(invited))) = &set else {
        return Ok(set?);
    };
    let invitation = Invitation {
        room,
        sender: &new.sender,
        invited,
        direct: Direct::No,
        reason: None,
        content: Some(&new.content),
    };
    let sent = invite::invite(federation, &invitation).await?;
    sent.ok_or_else(|| SetStateError::NoMembership.into())
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
#[tracing::instrument(name = "client.events.redact", skip_all, fields(room = %request.room_id))]
async fn redact_event(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<redact_event::v3::Request>,
) -> Result<Matrix<redact_event::v3::Response>, ApiError> {
    limits.check(EndpointClass::Message, &requester.user)?;
    let (room, target) = (&request.room_id, &request.event_id);
    let key = transaction(&requester, format!("redact/{room}/{target}"), &request.txn_id);
    let mut content = CanonicalJsonObject::new();
    if let Some(reason) = request.reason {
        content.insert("reason".to_owned(), reason.into());
    }
    let (target, of) = (request.event_id, redacts_of(&requester));
    let redaction = Redaction { sender: requester.user, target, content, of };
    let sent = redact::redact(&rooms, &request.room_id, &redaction, Some(&key)).await?;
    Ok(Matrix(redact_event::v3::Response::new(sent)))
}
