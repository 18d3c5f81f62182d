//! Sliding sync (MSC4186) and the threads that go with it (MSC4308), under their unstable names.

use std::{fmt::Display, time::Duration};

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use millrace_domain::{
    accounts::Requester,
    sync::{
        Syncs,
        sliding::{
            self, Body, InvalidRequest, Pos, SlidingError, SlidingRequest, ThreadPage,
            thread_changes,
        },
    },
};
use ruma::{api::error::ErrorKind, presence::PresenceState};
use serde::Deserialize;
use serde_json::json;

use super::{
    error::ApiError,
    extract::{JsonBody, QueryArguments},
    json::raw_json,
    limits::EndpointClass,
    user_limits::UserLimits,
};
use crate::{
    app::{App, SyncTimeoutMax},
    shutdown::Shutdown,
};

const SYNC: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const THREADS: &str = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";

/// The routes of this family.
pub(super) fn routes() -> Router<App> {
    Router::new().route(SYNC, post(sync)).route(THREADS, get(threads))
}

#[derive(Deserialize)]
struct SyncQuery {
    pos: Option<String>,
    timeout: Option<u64>,
    #[serde(default)]
    set_presence: PresenceState,
}

/// `POST …/org.matrix.simplified_msc3575/sync`
#[tracing::instrument(name = "client.sliding_sync", skip_all, fields(user = %requester.user))]
async fn sync(
    State(syncs): State<Syncs>,
    (State(SyncTimeoutMax(timeout_max)), State(shutdown)): (State<SyncTimeoutMax>, State<Shutdown>),
    requester: Requester,
    QueryArguments(query): QueryArguments<SyncQuery>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Response, ApiError> {
    let pos = query.pos.as_ref().or(body.pos.as_ref()).filter(|pos| !pos.is_empty());
    let pos = pos.map(|pos| pos.parse::<Pos>()).transpose();
    let pos = pos.map_err(unknown_pos)?;
    let timeout = query.timeout.or(body.timeout).unwrap_or(0);
    let timeout = Duration::from_millis(timeout).min(timeout_max);
    // Held while the request lasts.
    let syncing = syncs.presence.syncing(&requester.user, query.set_presence).await;
    let _syncing = syncing.map_err(ApiError::internal)?;
    let who = (requester.user, requester.device);
    let request = SlidingRequest::new(who, pos, timeout, body)?;
    Ok(raw_json(sliding::sync(&syncs, &request, shutdown.requested()).await?))
}

#[derive(Deserialize)]
struct ThreadsQuery {
    dir: Direction,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u64>,
}

/// The only one there is.
#[derive(Deserialize)]
enum Direction {
    #[serde(rename = "b")]
    Backward,
}

/// `GET …/io.element.msc4308/thread_subscriptions`
#[tracing::instrument(name = "client.thread_subscriptions.read", skip_all)]
async fn threads(
    State(syncs): State<Syncs>,
    limits: UserLimits,
    requester: Requester,
    QueryArguments(query): QueryArguments<ThreadsQuery>,
) -> Result<Response, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let ThreadsQuery { dir: Direction::Backward, from, to, limit } = query;
    let before = from.map(|from| from.parse()).transpose();
    let before =
        before.map_err(|_| ApiError::invalid_param("from is not a token of this server"))?;
    let since = to.map(|to| to.parse::<Pos>()).transpose();
    let since = since.map_err(|_| ApiError::invalid_param("to is not a pos of this server"))?;
    let since = since.map(|pos| pos.token().view.clone());
    if limit == Some(0) {
        return Err(ApiError::invalid_param("limit is to be more than 0"));
    }
    let snapshot = syncs.rooms.env.store.snapshot();
    let page = ThreadPage { before, since, limit };
    let changes = thread_changes(&snapshot, &requester.user, &page).await;
    let mut json = String::new();
    changes.map_err(ApiError::internal)?.write(&mut json, "end");
    Ok(raw_json(json))
}

/// 400 `M_UNKNOWN_POS`: the client is to begin anew.
fn unknown_pos(error: impl Display) -> ApiError {
    // ruma has it with all of sliding sync only, whose types are not those of this endpoint.
    let kind = json!({ "errcode": "M_UNKNOWN_POS" });
    let kind = serde_json::from_value::<ErrorKind>(kind).unwrap_or(ErrorKind::Unknown);
    ApiError::bad_request(kind, error)
}

impl From<InvalidRequest> for ApiError {
    fn from(error: InvalidRequest) -> Self {
        match error {
            InvalidRequest::Lists
            | InvalidRequest::Subscriptions
            | InvalidRequest::RequiredState
            | InvalidRequest::Range
            | InvalidRequest::ConnId
            | InvalidRequest::ToDeviceSince => Self::invalid_param(error),
        }
    }
}

impl From<SlidingError> for ApiError {
    fn from(error: SlidingError) -> Self {
        match error {
            SlidingError::UnknownPos => unknown_pos(error),
            SlidingError::Sync(error) => error.into(),
        }
    }
}
