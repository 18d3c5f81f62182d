//! States of rooms for other servers (spec: Server-Server API, Retrieving events).

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::Response};
use millrace_domain::rooms::{
    ServerView,
    graph::{self, StateAt},
};
use millrace_federation::{
    inbound::Inbound,
    large_answer::{Form, LargeAnswer},
};
use ruma::{
    EventId, RoomId, ServerName,
    api::federation::event::{
        get_room_state::v1 as get_state, get_room_state_ids::v1 as get_state_ids,
    },
};

use super::{
    authenticate::Signed,
    room::{self, streamed, unreadable},
};
use crate::{
    app::{App, RoomsPart},
    client_api::{error::ApiError, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(state).matrix(state_ids)
}

/// `GET /_matrix/federation/v1/state/{roomId}`
#[tracing::instrument(name = "federation.state.read", skip_all, fields(origin = %signed.origin))]
async fn state(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    signed: Signed<get_state::Request>,
) -> Result<Response, ApiError> {
    let get_state::Request { room_id, event_id, .. } = &signed.request;
    let _turn = inbound.turn_for_large_answer().await;
    tell(&rooms, &signed.origin, (room_id, event_id), Form::Whole).await
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
#[tracing::instrument(name = "federation.state.ids", skip_all, fields(origin = %signed.origin))]
async fn state_ids(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    signed: Signed<get_state_ids::Request>,
) -> Result<Response, ApiError> {
    let get_state_ids::Request { room_id, event_id, .. } = &signed.request;
    let _turn = inbound.turn_for_large_answer().await;
    tell(&rooms, &signed.origin, (room_id, event_id), Form::Ids).await
}

/// The state before an event. Its events are told whole, as states mean nothing without them.
async fn tell(
    rooms: &RoomsPart,
    origin: &ServerName,
    (room, event): (&RoomId, &EventId),
    form: Form,
) -> Result<Response, ApiError> {
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(rooms, &snapshot, room, origin).await?;
    let StateAt { state, auth_chain } = before(&view, event).await?;
    let (chain_field, state_field) = match form {
        Form::Whole => (r#"{"auth_chain":["#, r#"],"pdus":["#),
        Form::Ids => (r#"{"auth_chain_ids":["#, r#"],"pdu_ids":["#),
    };
    let answer = LargeAnswer::about(rooms, room, &view.head.version, form)
        .text(chain_field)
        .events(auth_chain)
        .text(state_field)
        .events(state)
        .text("]}");
    Ok(streamed(Body::from_stream(answer.body())))
}

async fn before(view: &ServerView<'_>, event: &EventId) -> Result<StateAt, ApiError> {
    if view.head.partial.is_some() {
        return Err(ApiError::forbidden("This server is still joining the room itself"));
    }
    let at = graph::state_before(view, event).await.map_err(unreadable)?;
    at.ok_or_else(|| ApiError::not_found("The state before this event is not known here"))
}
