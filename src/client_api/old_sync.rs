//! How clients synced before `/sync`, and how they look into rooms that they are not in:
//! client-server API, "Syncing" (deprecated endpoints), "Room previews".
//!
//! `/initialSync` and `/events` tell what `/sync` does, in their own form.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use millrace_domain::{
    accounts::Requester,
    rooms::{
        Rooms,
        create::Listing,
        directory,
        find_event::find_event,
        peek::{Peeked, peek},
        room_info::room_info,
    },
    sync::{self, SyncFilter, SyncRequest, Syncs},
};
use millrace_model::{SyncToken, position::FromToken};
use ruma::{
    OwnedRoomId, RoomId,
    api::client::{filter::FilterDefinition, peeking::get_current_state},
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    error::ApiError,
    extract::{Matrix, PathArguments, QueryArguments},
    history::Reading,
    router::MatrixRouter,
};
use crate::{
    app::{App, RoomsPart, SyncTimeoutMax},
    shutdown::Shutdown,
};

/// Messages of a room, where the client does not say how many.
const MESSAGES: u64 = 10;
/// Messages of a room, at most.
const MESSAGES_MAX: u64 = 100;
/// Versions of the API under which clients look for these endpoints.
const VERSIONS: [&str; 2] = ["r0", "v3"];

pub(crate) fn routes() -> Router<App> {
    VERSIONS.iter().fold(Router::new().matrix(room), |router, version| {
        let base = format!("/_matrix/client/{version}");
        router
            .route(&format!("{base}/initialSync"), get(initial_sync))
            .route(&format!("{base}/events"), get(events))
            .route(&format!("{base}/events/{{event}}"), get(event))
    })
}

#[derive(Deserialize)]
struct InitialSyncQuery {
    limit: Option<u64>,
    #[serde(default)]
    archived: bool,
}

/// `GET /_matrix/client/v3/initialSync`
#[tracing::instrument(name = "client.initial_sync", skip_all, fields(user = %requester.user))]
async fn initial_sync(
    (State(syncs), State(rooms)): (State<Syncs>, State<RoomsPart>),
    requester: Requester,
    QueryArguments(query): QueryArguments<InitialSyncQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(MESSAGES).min(MESSAGES_MAX);
    let filter = json!({ "room": {
        "include_leave": query.archived,
        "timeline": { "limit": limit },
    } });
    let request = request(requester, None, filter, Duration::ZERO)?;
    let synced = synced(&syncs, &request, std::future::pending()).await?;
    let end = &synced["next_batch"];
    let mut infos = Vec::new();
    for (section, membership) in [("join", "join"), ("leave", "leave")] {
        for (room, told) in object(&synced["rooms"][section]) {
            let listing = listing(&rooms, room).await?;
            infos.push(json!({
                "room_id": room,
                "membership": membership,
                "messages": {
                    "start": told["timeline"]["prev_batch"],
                    "end": end,
                    "chunk": array(&told["timeline"]["events"]),
                },
                "state": array(&told["state_after"]["events"]),
                "visibility": visibility(listing),
                "account_data": array(&told["account_data"]["events"]),
            }));
        }
    }
    for (room, told) in object(&synced["rooms"]["invite"]) {
        let invitation = invitation(room, told, &request);
        infos.push(json!({ "room_id": room, "membership": "invite", "invite": invitation }));
    }
    Ok(Json(json!({
        "end": end,
        "rooms": infos,
        "presence": array(&synced["presence"]["events"]),
        "account_data": array(&synced["account_data"]["events"]),
    })))
}

#[derive(Deserialize)]
struct EventsQuery {
    from: Option<String>,
    timeout: Option<u64>,
    room_id: Option<OwnedRoomId>,
}

/// `GET /_matrix/client/v3/events`: of all rooms, or of one that the user may look into.
#[tracing::instrument(name = "client.events.listen", skip_all, fields(user = %requester.user))]
async fn events(
    (State(syncs), State(rooms)): (State<Syncs>, State<RoomsPart>),
    State(SyncTimeoutMax(timeout_max)): State<SyncTimeoutMax>,
    State(shutdown): State<Shutdown>,
    requester: Requester,
    QueryArguments(query): QueryArguments<EventsQuery>,
) -> Result<Response, ApiError> {
    let wait = Duration::from_millis(query.timeout.unwrap_or(0)).min(timeout_max);
    let from = query.from.filter(|from| !from.is_empty());
    let malformed = || ApiError::invalid_param("from is not a token of this server");
    if let Some(room) = &query.room_id {
        let from = from.map(|from| from.parse::<FromToken>()).transpose();
        let from = from.map_err(|_| malformed())?;
        let Reading { viewer, .. } = Reading::begin(&rooms, &requester).await?;
        let ended = shutdown.requested();
        let Peeked { start, end, events } =
            peek(&rooms, (&viewer, room), from.as_ref(), wait, ended).await?;
        let (start, end) = (start.to_string(), end.to_string());
        return Ok(Json(json!({ "start": start, "end": end, "chunk": events })).into_response());
    }
    let from = from.map(|from| from.parse::<SyncToken>()).transpose();
    let from = from.map_err(|_| malformed())?.unwrap_or_else(|| sync::now(&syncs));
    let start = from.to_string();
    let filter = json!({ "room": { "timeline": { "limit": MESSAGES_MAX } } });
    let request = request(requester, Some(from), filter, wait)?;
    let synced = synced(&syncs, &request, shutdown.requested()).await?;
    let chunk = in_one_row(&synced, &request);
    let answer = json!({ "start": start, "end": synced["next_batch"], "chunk": chunk });
    Ok(Json(answer).into_response())
}

/// `GET /_matrix/client/v3/events/{eventId}`
#[tracing::instrument(name = "client.events.find", skip_all)]
async fn event(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    PathArguments(event): PathArguments<ruma::OwnedEventId>,
) -> Result<Json<Box<RawValue>>, ApiError> {
    let Reading { viewer, .. } = Reading::begin(&rooms, &requester).await?;
    Ok(Json(find_event(&rooms, &viewer, &event).await?))
}

#[derive(Deserialize)]
struct RoomQuery {
    limit: Option<u64>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
#[tracing::instrument(name = "client.rooms.preview", skip_all, fields(room = %request.room_id))]
async fn room(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    QueryArguments(query): QueryArguments<RoomQuery>,
    Matrix(request): Matrix<get_current_state::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(MESSAGES).min(MESSAGES_MAX);
    let limit = usize::try_from(limit).unwrap_or_default();
    let Reading { viewer, .. } = Reading::begin(&rooms, &requester).await?;
    let info = room_info(&rooms, &viewer, &request.room_id, limit).await?;
    let account_data = info.account_data.into_iter().map(|(kind, content)| {
        let content: Value = serde_json::from_str(&content).unwrap_or_default();
        json!({ "type": kind, "content": content })
    });
    let (start, end) = (info.start.to_string(), info.end.to_string());
    let mut answer = json!({
        "room_id": request.room_id,
        "messages": { "start": start, "end": end, "chunk": info.messages },
        "state": info.state,
        "visibility": visibility(info.listing),
        "account_data": account_data.collect::<Vec<_>>(),
    });
    if let Some(membership) = info.membership {
        answer["membership"] = membership.as_str().into();
    }
    Ok(Json(answer))
}

async fn listing(rooms: &Rooms, room: &str) -> Result<Listing, ApiError> {
    let room = RoomId::parse(room).map_err(ApiError::internal)?;
    let listing = directory::listing(rooms, &room).await.map_err(ApiError::internal)?;
    Ok(listing.unwrap_or(Listing::Unlisted))
}

fn visibility(listing: Listing) -> &'static str {
    match listing {
        Listing::Published => "public",
        Listing::Unlisted => "private",
    }
}

/// A sync of a client that has no messages to its device to lose.
fn request(
    requester: Requester,
    since: Option<SyncToken>,
    filter: Value,
    timeout: Duration,
) -> Result<SyncRequest, ApiError> {
    let filter: FilterDefinition = serde_json::from_value(filter).map_err(ApiError::internal)?;
    Ok(SyncRequest {
        user: requester.user,
        device: None,
        since,
        filter: SyncFilter::new(&filter).with_room_ids(),
        full_state: false,
        state_after: true,
        timeout,
    })
}

async fn synced(
    syncs: &Syncs,
    request: &SyncRequest,
    ended: impl Future<Output = ()>,
) -> Result<Value, ApiError> {
    let response = sync::sync(syncs, request, ended).await?;
    serde_json::from_str(&response.json).map_err(ApiError::internal)
}

/// Everything that a sync tells, as one list of events.
fn in_one_row(synced: &Value, request: &SyncRequest) -> Vec<Value> {
    let mut row: Vec<Value> = array(&synced["presence"]["events"]);
    for section in ["join", "leave"] {
        for (room, told) in object(&synced["rooms"][section]) {
            row.extend(array(&told["timeline"]["events"]));
            for mut event in array(&told["ephemeral"]["events"]) {
                event["room_id"] = room.as_str().into();
                row.push(event);
            }
        }
    }
    for (room, told) in object(&synced["rooms"]["invite"]) {
        row.extend(invitation(room, told, request));
    }
    row
}

/// The user's own member event among what is shown of a room to who is invited.
fn invitation(room: &str, told: &Value, request: &SyncRequest) -> Option<Value> {
    let events = array(&told["invite_state"]["events"]).into_iter();
    let mut own = events.filter(|event| {
        event["type"] == "m.room.member" && event["state_key"] == request.user.as_str()
    });
    let mut event = own.next()?;
    event["room_id"] = RoomId::parse(room).ok()?.as_str().into();
    Some(event)
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
