//! History for other servers (spec: Server-Server API, Backfilling and retrieving missing events).

use axum::{Router, extract::State};
use millrace_domain::rooms::{
    ServerView,
    graph::{self, Lack},
};
use ruma::{
    UInt,
    api::federation::{
        backfill::get_backfill::v1 as get_backfill,
        event::get_missing_events::v1 as get_missing_events,
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

/// Events in one answer, at most.
const EVENTS_MAX: usize = 100;
/// Events that one question may name.
const NAMED_MAX: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(backfill).matrix(missing_events)
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
#[tracing::instrument(name = "federation.history.backfill", skip_all, fields(origin = %signed.origin))]
async fn backfill(
    State(rooms): State<RoomsPart>,
    signed: Signed<get_backfill::Request>,
) -> Result<Matrix<get_backfill::Response>, ApiError> {
    let get_backfill::Request { room_id, v, limit, .. } = signed.request;
    bounded(v.len())?;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &room_id, &signed.origin).await?;
    let found = graph::backfill(&view, &v, at_most(limit)).await.map_err(unreadable)?;
    let pdus = shown(&view, &found).await?;
    let us = rooms.env.identity.name.clone();
    Ok(Matrix(get_backfill::Response::new(us, rooms.env.now(), pdus)))
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
#[tracing::instrument(name = "federation.history.missing", skip_all, fields(origin = %signed.origin))]
async fn missing_events(
    State(rooms): State<RoomsPart>,
    signed: Signed<get_missing_events::Request>,
) -> Result<Matrix<get_missing_events::Response>, ApiError> {
    let request = signed.request;
    bounded(request.earliest_events.len() + request.latest_events.len())?;
    let snapshot = rooms.env.store.snapshot();
    let view = room::open(&rooms, &snapshot, &request.room_id, &signed.origin).await?;
    let lack = Lack {
        earliest: &request.earliest_events,
        latest: &request.latest_events,
        limit: at_most(request.limit),
        min_depth: request.min_depth.into(),
    };
    let found = graph::missing_events(&view, &lack).await.map_err(unreadable)?;
    Ok(Matrix(get_missing_events::Response::new(shown(&view, &found).await?)))
}

async fn shown(
    view: &ServerView<'_>,
    found: &[graph::Found],
) -> Result<Vec<Box<RawValue>>, ApiError> {
    let mut pdus = Vec::with_capacity(found.len());
    for (event, header) in found {
        pdus.push(room::raw(&view.show(event, header).await.map_err(unreadable)?)?);
    }
    Ok(pdus)
}

fn at_most(limit: UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(EVENTS_MAX).min(EVENTS_MAX)
}

fn bounded(named: usize) -> Result<(), ApiError> {
    if named > NAMED_MAX {
        let message = format_args!("At most {NAMED_MAX} events may be named");
        return Err(ApiError::invalid_param(message));
    }
    Ok(())
}
