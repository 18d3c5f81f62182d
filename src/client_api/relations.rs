//! Events that relate to others: client-server API, "Relationships API" and "Querying threads in a
//! room".

use axum::{Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::{
        Rooms,
        relations::{self, DEPTH_MAX, Recursion, RelationsRequest},
        threads::{self, Include},
    },
};
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction,
        client::{
            relations::{
                get_relating_events, get_relating_events_with_rel_type,
                get_relating_events_with_rel_type_and_event_type,
            },
            threads::get_threads,
        },
    },
};

use super::{
    error::ApiError,
    extract::Matrix,
    history::{Reading, limit, point, render},
    router::MatrixRouter,
};
use crate::app::{App, RoomsPart};

/// Relations or threads in one answer, at most.
const RESULTS_MAX: usize = 100;
/// So many where the client does not say.
const RESULTS_DEFAULT: u32 = 20;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(all).matrix(of_type).matrix(of_types).matrix(threads)
}

/// What the three paths have in common.
struct Wanted {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    rel_type: Option<String>,
    kind: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<UInt>,
    dir: Direction,
    recurse: bool,
}

/// Ruma has a response type for each path, of one form.
type Response = get_relating_events::v1::Response;

async fn find(
    rooms: &Rooms,
    requester: &Requester,
    wanted: Wanted,
) -> Result<Matrix<Response>, ApiError> {
    let reading = Reading::begin(rooms, requester).await?;
    let view = reading.open(&wanted.room_id).await?;
    let recursion = if wanted.recurse { Recursion::Deep } else { Recursion::Direct };
    let request = RelationsRequest {
        parent: &wanted.event_id,
        rel_type: wanted.rel_type.as_deref(),
        kind: wanted.kind.as_deref(),
        recursion,
        direction: wanted.dir,
        from: point(&view, wanted.from.as_deref(), "from").await?,
        to: point(&view, wanted.to.as_deref(), "to").await?,
        limit: results(wanted.limit),
    };
    let found = relations::relations(&view, &request).await?;
    let mut response = Response::new(render(&view, &found.events).await?);
    response.next_batch = found.next.map(|next| next.to_string());
    response.prev_batch = wanted.from;
    response.recursion_depth = wanted.recurse.then(|| UInt::from(DEPTH_MAX));
    Ok(Matrix(response))
}

fn results(asked: Option<UInt>) -> usize {
    limit(Some(asked.unwrap_or_else(|| RESULTS_DEFAULT.into())), RESULTS_MAX).max(1)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
#[tracing::instrument(name = "client.relations.list", skip_all, fields(room = %request.room_id))]
async fn all(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_relating_events::v1::Request>,
) -> Result<Matrix<Response>, ApiError> {
    let get_relating_events::v1::Request {
        room_id, event_id, from, dir, to, limit, recurse, ..
    } = request;
    let (rel_type, kind) = (None, None);
    let wanted = Wanted { room_id, event_id, rel_type, kind, from, to, limit, dir, recurse };
    find(&rooms, &requester, wanted).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
#[tracing::instrument(name = "client.relations.list", skip_all, fields(room = %request.room_id))]
async fn of_type(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_relating_events_with_rel_type::v1::Request>,
) -> Result<Matrix<Response>, ApiError> {
    let wanted = Wanted {
        room_id: request.room_id,
        event_id: request.event_id,
        rel_type: Some(request.rel_type.to_string()),
        kind: None,
        from: request.from,
        to: request.to,
        limit: request.limit,
        dir: request.dir,
        recurse: request.recurse,
    };
    find(&rooms, &requester, wanted).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
#[tracing::instrument(name = "client.relations.list", skip_all, fields(room = %request.room_id))]
async fn of_types(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_relating_events_with_rel_type_and_event_type::v1::Request>,
) -> Result<Matrix<Response>, ApiError> {
    let wanted = Wanted {
        room_id: request.room_id,
        event_id: request.event_id,
        rel_type: Some(request.rel_type.to_string()),
        kind: Some(request.event_type.to_string()),
        from: request.from,
        to: request.to,
        limit: request.limit,
        dir: request.dir,
        recurse: request.recurse,
    };
    find(&rooms, &requester, wanted).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/threads`
#[tracing::instrument(name = "client.threads.list", skip_all, fields(room = %request.room_id))]
async fn threads(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_threads::v1::Request>,
) -> Result<Matrix<get_threads::v1::Response>, ApiError> {
    let reading = Reading::begin(&rooms, &requester).await?;
    let view = reading.open(&request.room_id).await?;
    let include = match request.include {
        get_threads::v1::IncludeThreads::Participated => Include::Participated,
        _ => Include::All,
    };
    let from = point(&view, request.from.as_deref(), "from").await?;
    let found = threads::threads(&view, include, from, results(request.limit)).await?;
    let mut response = get_threads::v1::Response::new(render(&view, &found.roots).await?);
    response.next_batch = found.next.map(|next| next.to_string());
    Ok(Matrix(response))
}
