//! Single events and what authorises them, for other servers (spec: Server-Server API, Retrieving
//! events).

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::Response};
use millrace_domain::rooms::{ServerView, graph};
use millrace_federation::{
    inbound::Inbound,
    large_answer::{Form, LargeAnswer},
};
use ruma::api::federation::{
    authorization::get_event_authorization::v1 as get_event_auth,
    event::{get_event::v1 as get_event, get_event_by_timestamp::v1 as get_event_by_timestamp},
};

use super::{
    authenticate::Signed,
    room::{self, streamed, unreadable},
};
use crate::{
    app::{App, RoomsPart},
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(event).matrix(event_auth).matrix(by_time)
}

/// `GET /_matrix/federation/v1/event/{eventId}`
#[tracing::instrument(name = "federation.event.read", skip_all, fields(origin = %signed.origin))]
async fn event(
    State(rooms): State<RoomsPart>,
    State(inbound): State<Arc<Inbound>>,
    signed: Signed<get_event::Request>,
) -> Result<Matrix<get_event::Response>, ApiError> {
    let (origin, id) = (&*signed.origin, &signed.request.event_id);
    let unknown = || ApiError::not_found("There is no such event in a room that you are in");
    let snapshot = rooms.env.store.snapshot();
    let of = inbound.room_of_event(&snapshot, origin, id).await.map_err(ApiError::internal)?;
    let of = of.ok_or_else(unknown)?;
    let view: ServerView<'_> = room::open(&rooms, &snapshot, &of, origin).await?;
    let (event, header) = view.find(id).await.map_err(unreadable)?.ok_or_else(unknown)?;
    let pdu = room::raw(&view.show(&event, &header).await.map_err(unreadable)?)?;
    let us = rooms.env.identity.name.clone();
    Ok(Matrix(get_event::Response::new(us, rooms.env.now(), pdu)))
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.event.auth", skip_all, fields(origin = %signed.origin))]
async fn event_auth(
    State(rooms): State<RoomsPart>,
    signed: Signed<get_event_auth::Request>,
) -> Result<Response, ApiError> {
    let get_event_auth::Request { room_id, event_id, .. } = signed.request;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &room_id, &signed.origin).await?;
    let chain = graph::auth_chain_of(&view, &event_id).await.map_err(unreadable)?;
    let chain = chain.ok_or_else(|| ApiError::not_found("There is no such event"))?;
    let answer = LargeAnswer::about(&rooms, &room_id, &view.head.version, Form::Whole);
    let answer = answer.text(r#"{"auth_chain":["#).events(chain).text("]}");
    Ok(streamed(Body::from_stream(answer.body())))
}

/// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
#[tracing::instrument(name = "federation.event.by_time", skip_all, fields(origin = %signed.origin))]
async fn by_time(
    State(rooms): State<RoomsPart>,
    signed: Signed<get_event_by_timestamp::Request>,
) -> Result<Matrix<get_event_by_timestamp::Response>, ApiError> {
    let get_event_by_timestamp::Request { room_id, ts, dir, .. } = signed.request;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &room_id, &signed.origin).await?;
    let found = graph::closest(&view, ts, dir).await.map_err(unreadable)?;
    let (event, _) = found.ok_or_else(|| ApiError::not_found("There is no event then"))?;
    let (id, at) = (event.pdu.event_id.clone(), event.pdu.origin_server_ts);
    Ok(Matrix(get_event_by_timestamp::Response::new(id, at)))
}
