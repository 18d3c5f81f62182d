//! States of rooms for other servers (spec: Server-Server API, Retrieving events).

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_domain::rooms::{
    ServerView,
    graph::{self, StateAt},
};
use millrace_federation::inbound::Inbound;
use ruma::{
    EventId, OwnedEventId,
    api::federation::event::{
        get_room_state::v1 as get_state, get_room_state_ids::v1 as get_state_ids,
    },
};
use serde_json::value::RawValue;

use super::{
    authenticate::Signed,
    room::{self, unreadable},
};
use crate::{
    app::{App, RoomsPart},
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
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
) -> Result<Matrix<get_state::Response>, ApiError> {
    let get_state::Request { room_id, event_id, .. } = signed.request;
    let _turn = inbound.turn_for_large_answer().await;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &room_id, &signed.origin).await?;
    let at = before(&view, &event_id).await?;
    let (auth_chain, pdus) = (texts(&view, &at.auth_chain).await?, texts(&view, &at.state).await?);
    Ok(Matrix(get_state::Response::new(auth_chain, pdus)))
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
#[tracing::instrument(name = "federation.state.ids", skip_all, fields(origin = %signed.origin))]
async fn state_ids(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    signed: Signed<get_state_ids::Request>,
) -> Result<Matrix<get_state_ids::Response>, ApiError> {
    let get_state_ids::Request { room_id, event_id, .. } = signed.request;
    let _turn = inbound.turn_for_large_answer().await;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &room_id, &signed.origin).await?;
    let at = before(&view, &event_id).await?;
    let (auth_chain, state) = (ids(&view, &at.auth_chain).await?, ids(&view, &at.state).await?);
    Ok(Matrix(get_state_ids::Response::new(auth_chain, state)))
}

async fn before(view: &ServerView<'_>, event: &EventId) -> Result<StateAt, ApiError> {
    let at = graph::state_before(view, event).await.map_err(unreadable)?;
    at.ok_or_else(|| ApiError::not_found("The state before this event is not known here"))
}

async fn ids(view: &ServerView<'_>, numbers: &[u64]) -> Result<Vec<OwnedEventId>, ApiError> {
    let found = view.load(numbers).await.map_err(unreadable)?;
    Ok(found.into_iter().map(|(event, _)| event.pdu.event_id.clone()).collect())
}

/// Events as parts of states: these are told whole, as the states mean nothing without them.
pub(super) async fn texts(
    view: &ServerView<'_>,
    numbers: &[u64],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let found = view.load(numbers).await.map_err(unreadable)?;
    found.iter().map(|(event, _)| room::raw(event.pdu.json())).collect()
}
