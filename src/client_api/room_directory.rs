//! The published room directory: client-server API, "Published Room Directory".

use std::sync::Arc;

use axum::{Json, Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::{
        create::Listing,
        directory::{self, DirectoryError, Network, Page, PublishError, Publisher, Query},
    },
};
use millrace_federation::{Federation, directory as directory_of_others};
use ruma::{
    OwnedServerName, UInt,
    api::{
        client::{
            directory::{
                get_public_rooms, get_public_rooms_filtered, get_room_visibility,
                set_room_visibility,
            },
            room::Visibility,
        },
        federation::directory::get_public_rooms_filtered::v1 as get_remote_rooms,
    },
    directory::{PublicRoomsChunk, RoomNetwork},
    room::RoomSummary,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    create_room::RoomPolicy, error::ApiError, extract::Matrix, limits::EndpointClass,
    room_errors::unknown_room, router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read_visibility).matrix(set_visibility).matrix(list).matrix(search)
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
#[tracing::instrument(name = "client.directory.visibility.read", skip_all)]
async fn read_visibility(
    State(rooms): State<RoomsPart>,
    Matrix(request): Matrix<get_room_visibility::v3::Request>,
) -> Result<Matrix<get_room_visibility::v3::Response>, ApiError> {
    let room = &request.room_id;
    let listing = directory::listing(&rooms, room).await.map_err(ApiError::internal)?;
    let visibility = match listing {
        Some(Listing::Published) => Visibility::Public,
        Some(Listing::Unlisted) => Visibility::Private,
        None => return Err(unknown_room(format_args!("There is no room {room}"))),
    };
    Ok(Matrix(get_room_visibility::v3::Response::new(visibility)))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
#[tracing::instrument(name = "client.directory.visibility.set", skip_all)]
async fn set_visibility(
    State(rooms): State<RoomsPart>,
    State(policy): State<Arc<RoomPolicy>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_room_visibility::v3::Request>,
) -> Result<Matrix<set_room_visibility::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let listing = match request.visibility {
        Visibility::Public if !policy.publication => {
            return Err(ApiError::forbidden("Rooms cannot be listed in this server's directory"));
        }
        Visibility::Public => Listing::Published,
        Visibility::Private => Listing::Unlisted,
        _ => return Err(ApiError::invalid_param("visibility must be public or private")),
    };
    let publisher = match requester.admin {
        true => Publisher::Administrator,
        false => Publisher::User(&requester.user),
    };
    directory::set_listing(&rooms, &request.room_id, publisher, listing).await?;
    Ok(Matrix(set_room_visibility::v3::Response::new()))
}

/// `GET /_matrix/client/v3/publicRooms`
#[tracing::instrument(name = "client.directory.list", skip_all)]
async fn list(
    State(rooms): State<RoomsPart>,
    State(federation): State<Federation>,
    State(policy): State<Arc<RoomPolicy>>,
    requester: Option<Requester>,
    Matrix(request): Matrix<get_public_rooms::v3::Request>,
) -> Result<Json<DirectoryBody>, ApiError> {
    if requester.is_none() && !policy.directory_without_account {
        return Err(ApiError::missing_token());
    }
    if let Some(server) = elsewhere(&federation, request.server.as_ref()) {
        let mut asked = get_remote_rooms::Request::new();
        (asked.limit, asked.since) = (request.limit, request.since);
        let answer = directory_of_others::public_rooms(&federation, server, asked).await?;
        return Ok(Json(remote_body(answer)));
    }
    let limit = limit(request.limit);
    let query = Query { limit, since: request.since, ..Query::default() };
    Ok(Json(body(directory::list(&rooms, &query).await?)))
}

/// `POST /_matrix/client/v3/publicRooms`
#[tracing::instrument(name = "client.directory.search", skip_all)]
async fn search(
    State(rooms): State<RoomsPart>,
    State(federation): State<Federation>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<get_public_rooms_filtered::v3::Request>,
) -> Result<Json<DirectoryBody>, ApiError> {
    limits.check(EndpointClass::Search, &requester.user)?;
    if let Some(server) = elsewhere(&federation, request.server.as_ref()) {
        let mut asked = get_remote_rooms::Request::new();
        (asked.limit, asked.since) = (request.limit, request.since);
        (asked.filter, asked.room_network) = (request.filter, request.room_network);
        let answer = directory_of_others::public_rooms(&federation, server, asked).await?;
        return Ok(Json(remote_body(answer)));
    }
    let term = request.filter.generic_search_term.filter(|term| !term.is_empty());
    let room_types = request.filter.room_types;
    let (limit, network) = (limit(request.limit), network(request.room_network));
    let query = Query { limit, since: request.since, term, room_types, network };
    Ok(Json(body(directory::list(&rooms, &query).await?)))
}

/// Whose directory is asked for.
pub(crate) fn network(network: RoomNetwork) -> Network {
    match network {
        RoomNetwork::All => Network::All,
        RoomNetwork::ThirdParty(instance) => Network::ThirdParty(instance),
        _ => Network::Matrix,
    }
}

fn limit(limit: Option<UInt>) -> Option<usize> {
    limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX))
}

/// A page as both endpoints answer it. Unlike ruma's it always tells the join rule: the default,
/// `public`, is missed by clients.
#[derive(Serialize)]
struct DirectoryBody {
    chunk: Vec<serde_json::Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    total_room_count_estimate: usize,
}

fn body(page: Page) -> DirectoryBody {
    DirectoryBody {
        chunk: page.rooms.into_iter().map(room).collect(),
        next_batch: page.next,
        prev_batch: page.prev,
        total_room_count_estimate: page.total,
    }
}

fn room(summary: RoomSummary) -> serde_json::Map<String, Value> {
    let join_rule = summary.join_rule.as_str().to_owned();
    let room = serde_json::to_value(PublicRoomsChunk::from(summary));
    let Ok(Value::Object(mut room)) = room else { unreachable!("a struct becomes an object") };
    room.insert("join_rule".to_owned(), join_rule.into());
    room
}

/// Whether another server's directory is asked for, and whose.
fn elsewhere<'a>(
    federation: &Federation,
    server: Option<&'a OwnedServerName>,
) -> Option<&'a OwnedServerName> {
    server.filter(|server| **server != federation.env.identity.name)
}

fn remote_body(answer: get_remote_rooms::Response) -> DirectoryBody {
    let rooms = answer.chunk.into_iter().map(|room| match serde_json::to_value(room) {
        Ok(Value::Object(room)) => room,
        _ => unreachable!("a struct becomes an object"),
    });
    let rooms = rooms.map(|mut room| {
        room.entry("join_rule").or_insert("public".into());
        room
    });
    let total = answer.total_room_count_estimate.map_or(0, u64::from);
    DirectoryBody {
        chunk: rooms.collect(),
        next_batch: answer.next_batch,
        prev_batch: answer.prev_batch,
        total_room_count_estimate: usize::try_from(total).unwrap_or(usize::MAX),
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::UnknownRoom(_) => unknown_room(error),
            PublishError::NotAllowed => Self::forbidden(error),
            PublishError::Room(error) => error.into(),
        }
    }
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Token => Self::invalid_param(error),
            DirectoryError::Read(error) => Self::internal(error),
        }
    }
}
