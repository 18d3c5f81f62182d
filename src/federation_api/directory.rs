//! Our aliases and published rooms, for other servers (spec: Server-Server API, Public Room
//! Directory; Querying for information).

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_appservices::AppServices;
use millrace_domain::rooms::directory::{self, Page, Query};
use millrace_federation::{Federation, directory::resolve_alias};
use ruma::{
    UInt,
    api::federation::{
        directory::{
            get_public_rooms::v1 as get_public_rooms,
            get_public_rooms_filtered::v1 as search_public_rooms,
        },
        query::get_room_information::v1 as get_room_information,
    },
    directory::PublicRoomsChunk,
};

use super::authenticate::Signed;
use crate::{
    app::{App, RoomsPart},
    client_api::{
        create_room::RoomPolicy, error::ApiError, extract::Matrix, room_directory::network,
        router::MatrixRouter,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(resolve).matrix(list).matrix(search)
}

/// `GET /_matrix/federation/v1/query/directory`
#[tracing::instrument(name = "federation.directory.resolve", skip_all, fields(origin = %signed.origin))]
async fn resolve(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    signed: Signed<get_room_information::Request>,
) -> Result<Matrix<get_room_information::Response>, ApiError> {
    let alias = signed.request.room_alias;
    let unknown = || ApiError::not_found(format_args!("There is no alias {alias} here"));
    if alias.server_name() != federation.env.identity.name {
        return Err(unknown());
    }
    services.ask_for_alias(&alias).await.map_err(ApiError::internal)?;
    let found = resolve_alias(&federation, &alias).await?.ok_or_else(unknown)?;
    Ok(Matrix(get_room_information::Response::new(found.room, found.servers)))
}

/// `GET /_matrix/federation/v1/publicRooms`
#[tracing::instrument(name = "federation.directory.list", skip_all, fields(origin = %signed.origin))]
async fn list(
    State(rooms): State<RoomsPart>,
    State(policy): State<Arc<RoomPolicy>>,
    signed: Signed<get_public_rooms::Request>,
) -> Result<Matrix<get_public_rooms::Response>, ApiError> {
    let request = signed.request;
    let (limit, network) = (limit(request.limit), network(request.room_network));
    let query = Query { limit, since: request.since, network, ..Query::default() };
    let page = page(&rooms, &policy, &query).await?;
    let mut response = get_public_rooms::Response::new();
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    (response.next_batch, response.prev_batch) = (page.next, page.prev);
    response.chunk = page.rooms.into_iter().map(PublicRoomsChunk::from).collect();
    Ok(Matrix(response))
}

/// `POST /_matrix/federation/v1/publicRooms`
#[tracing::instrument(name = "federation.directory.search", skip_all, fields(origin = %signed.origin))]
async fn search(
    State(rooms): State<RoomsPart>,
    State(policy): State<Arc<RoomPolicy>>,
    signed: Signed<search_public_rooms::Request>,
) -> Result<Matrix<search_public_rooms::Response>, ApiError> {
    let request = signed.request;
    let term = request.filter.generic_search_term.filter(|term| !term.is_empty());
    let room_types = request.filter.room_types;
    let (limit, network) = (limit(request.limit), network(request.room_network));
    let query = Query { limit, since: request.since, term, room_types, network };
    let page = page(&rooms, &policy, &query).await?;
    let mut response = search_public_rooms::Response::new();
    response.total_room_count_estimate = UInt::try_from(page.total).ok();
    (response.next_batch, response.prev_batch) = (page.next, page.prev);
    response.chunk = page.rooms.into_iter().map(PublicRoomsChunk::from).collect();
    Ok(Matrix(response))
}

async fn page(rooms: &RoomsPart, policy: &RoomPolicy, query: &Query) -> Result<Page, ApiError> {
    if !policy.directory_for_servers {
        return Err(ApiError::forbidden("This server does not show its directory to others"));
    }
    Ok(directory::list(rooms, query).await?)
}

fn limit(limit: Option<UInt>) -> Option<usize> {
    limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX))
}
