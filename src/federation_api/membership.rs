//! Joins, knocks and leavings of other servers' users, and invitations of ours (spec: Server-Server
//! API, Joining Rooms to Leaving Rooms).

use std::sync::Arc;

use axum::{Json, Router, body::Body, extract::State, response::Response};
use futures::StreamExt;
use millrace_appservices::AppServices;
use millrace_domain::rooms::template::{Intent, Template};
use millrace_federation::{
    Federation,
    large_answer::LargeAnswer,
    membership::{
        serve_invite,
        serve_join::{self, Members, TemplateRequest},
        serve_knock,
        submit::{self, Submission},
    },
};
use ruma::api::federation::membership::{
    RawStrippedState, create_invite, create_join_event::v2 as send_join,
    create_knock_event::v1 as send_knock, create_leave_event::v2 as send_leave,
    prepare_join_event::v1 as make_join, prepare_knock_event::v1 as make_knock,
    prepare_leave_event::v1 as make_leave,
};
use serde_json::{json, value::RawValue};

use super::{
    authenticate::Signed,
    requests::{Invite, InviteV1, Version1},
    room::streamed,
};
use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .matrix(join_template)
        .matrix(join)
        .matrix(join_v1)
        .matrix(leave_template)
        .matrix(leave)
        .matrix(leave_v1)
        .matrix(knock_template)
        .matrix(knock)
        .matrix(invite)
        .matrix(invite_v1)
}

fn raw(event: &impl serde::Serialize) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(event).map_err(ApiError::internal)
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
#[tracing::instrument(name = "federation.joins.template", skip_all, fields(origin = %signed.origin))]
async fn join_template(
    State(federation): State<Federation>,
    signed: Signed<make_join::Request>,
) -> Result<Matrix<make_join::Response>, ApiError> {
    let make_join::Request { room_id, user_id, ver, .. } = &signed.request;
    let request = TemplateRequest {
        origin: &signed.origin,
        room: room_id,
        user: user_id,
        versions: Some(ver),
    };
    let template = serve_join::template(&federation, &request, Intent::Join).await?;
    let mut response = make_join::Response::new(raw(&template.event)?);
    response.room_version = Some(template.version);
    Ok(Matrix(response))
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.joins.take", skip_all, fields(origin = %signed.origin))]
async fn join(
    State(federation): State<Federation>,
    signed: Signed<send_join::Request>,
) -> Result<Response, ApiError> {
    let answer = joined(&federation, &signed.origin, &signed.request).await?;
    Ok(streamed(Body::from_stream(answer.body())))
}

/// `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.joins.take_v1", skip_all, fields(origin = %signed.origin))]
async fn join_v1(
    State(federation): State<Federation>,
    signed: Signed<Version1<send_join::Request>>,
) -> Result<Response, ApiError> {
    let answer = joined(&federation, &signed.origin, &signed.request.0).await?;
    let around = |text: &'static str| futures::stream::iter([Ok(text.into())]);
    let body = around("[200,").chain(answer.body()).chain(around("]"));
    Ok(streamed(Body::from_stream(body)))
}

async fn joined(
    federation: &Federation,
    origin: &ruma::ServerName,
    request: &send_join::Request,
) -> Result<LargeAnswer, ApiError> {
    let send_join::Request { room_id, event_id, pdu, omit_members, .. } = request;
    let submission = Submission { origin, room: room_id, event_id, pdu };
    let members = if *omit_members { Members::Omitted } else { Members::All };
    Ok(serve_join::send_join(federation, &submission, members).await?)
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
#[tracing::instrument(name = "federation.leaves.template", skip_all, fields(origin = %signed.origin))]
async fn leave_template(
    State(federation): State<Federation>,
    signed: Signed<make_leave::Request>,
) -> Result<Matrix<make_leave::Response>, ApiError> {
    let make_leave::Request { room_id, user_id, .. } = &signed.request;
    let request =
        TemplateRequest { origin: &signed.origin, room: room_id, user: user_id, versions: None };
    let Template { version, event } =
        serve_join::template(&federation, &request, Intent::Leave).await?;
    Ok(Matrix(make_leave::Response::new(Some(version), raw(&event)?)))
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.leaves.take", skip_all, fields(origin = %signed.origin))]
async fn leave(
    State(federation): State<Federation>,
    signed: Signed<send_leave::Request>,
) -> Result<Matrix<send_leave::Response>, ApiError> {
    left(&federation, &signed.origin, &signed.request).await?;
    Ok(Matrix(send_leave::Response::new()))
}

/// `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.leaves.take_v1", skip_all, fields(origin = %signed.origin))]
async fn leave_v1(
    State(federation): State<Federation>,
    signed: Signed<Version1<send_leave::Request>>,
) -> Result<Json<serde_json::Value>, ApiError> {
    left(&federation, &signed.origin, &signed.request.0).await?;
    Ok(Json(json!([200, {}])))
}

async fn left(
    federation: &Federation,
    origin: &ruma::ServerName,
    request: &send_leave::Request,
) -> Result<(), ApiError> {
    let send_leave::Request { room_id, event_id, pdu, .. } = request;
    let submission = Submission { origin, room: room_id, event_id, pdu };
    submit::submit(federation, &submission, Intent::Leave).await?;
    Ok(())
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
#[tracing::instrument(name = "federation.knocks.template", skip_all, fields(origin = %signed.origin))]
async fn knock_template(
    State(federation): State<Federation>,
    signed: Signed<make_knock::Request>,
) -> Result<Matrix<make_knock::Response>, ApiError> {
    let make_knock::Request { room_id, user_id, ver, .. } = &signed.request;
    let request = TemplateRequest {
        origin: &signed.origin,
        room: room_id,
        user: user_id,
        versions: Some(ver),
    };
    let template = serve_join::template(&federation, &request, Intent::Knock).await?;
    Ok(Matrix(make_knock::Response::new(template.version, raw(&template.event)?)))
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.knocks.take", skip_all, fields(origin = %signed.origin))]
async fn knock(
    State(federation): State<Federation>,
    signed: Signed<send_knock::Request>,
) -> Result<Matrix<send_knock::Response>, ApiError> {
    let send_knock::Request { room_id, event_id, pdu, .. } = &signed.request;
    let submission = Submission { origin: &signed.origin, room: room_id, event_id, pdu };
    let shown = serve_knock::send_knock(&federation, &submission).await?;
    let shown = shown.iter().map(|event| event.pdu.to_raw().map(RawStrippedState::Pdu));
    let shown = shown.collect::<Result<_, _>>().map_err(ApiError::internal)?;
    Ok(Matrix(send_knock::Response::new(shown)))
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.invites.take", skip_all, fields(origin = %signed.origin))]
async fn invite(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    signed: Signed<Invite>,
) -> Result<Matrix<create_invite::v2::Response>, ApiError> {
    let event = invited((&federation, &*services), &signed.origin, signed.request).await?;
    Ok(Matrix(create_invite::v2::Response::new(event)))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
#[tracing::instrument(name = "federation.invites.take_v1", skip_all, fields(origin = %signed.origin))]
async fn invite_v1(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    signed: Signed<InviteV1>,
) -> Result<Matrix<create_invite::v1::Response>, ApiError> {
    let event = invited((&federation, &*services), &signed.origin, signed.request.0).await?;
    Ok(Matrix(create_invite::v1::Response::new(event)))
}

async fn invited(
    (federation, services): (&Federation, &AppServices),
    origin: &ruma::ServerName,
    request: Invite,
) -> Result<Box<RawValue>, ApiError> {
    let Invite { room_id, event_id, version, event, shown } = request;
    let submission = Submission { origin, room: &room_id, event_id: &event_id, pdu: &event };
    if let Some(invited) = serve_invite::whom(&event) {
        services.ask_for_user(&invited).await.map_err(ApiError::internal)?;
    }
    let signed = serve_invite::invited(federation, &submission, version, shown).await?;
    signed.to_raw().map_err(ApiError::internal)
}
