//! Rooms before one joins them: client-server API, "Spaces", "Room summaries".

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_appservices::AppServices;
use millrace_domain::{
    accounts::Requester,
    rooms::{
        hierarchy::{self, HierarchyError, Query},
        summary::{self, SummaryError},
    },
};
use millrace_federation::{Federation, hierarchy::Walk};
use ruma::{
    OwnedRoomId, UInt,
    api::client::{
        room::get_summary,
        space::{SpaceHierarchyRoomsChunk, get_hierarchy},
    },
    serde::Raw,
};

use super::{
    aliases::resolve_alias, error::ApiError, extract::Matrix, room_errors::unknown_room,
    router::MatrixRouter,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read_hierarchy).matrix(read_summary)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
#[tracing::instrument(name = "client.spaces.read", skip_all, fields(room = %request.room_id))]
async fn read_hierarchy(
    State(rooms): State<RoomsPart>,
    State(federation): State<Federation>,
    requester: Requester,
    Matrix(request): Matrix<get_hierarchy::v1::Request>,
) -> Result<Matrix<get_hierarchy::v1::Response>, ApiError> {
    let usize_of = |number: UInt| usize::try_from(u64::from(number)).unwrap_or(usize::MAX);
    if request.limit == Some(UInt::MIN) {
        return Err(ApiError::invalid_param("limit must be above 0"));
    }
    let query = Query {
        via: request.room_id.server_name().map(ToOwned::to_owned).into_iter().collect(),
        room: request.room_id,
        user: requester.user,
        limit: request.limit.map(usize_of),
        max_depth: request.max_depth.map(u64::from),
        suggested_only: request.suggested_only,
        from: request.from,
    };
    let page = hierarchy::hierarchy(&rooms, &Walk::new(&federation), &query).await?;
    let mut response = get_hierarchy::v1::Response::new();
    response.next_batch = page.next;
    response.rooms = page.rooms.into_iter().map(wire).collect();
    Ok(Matrix(response))
}

fn wire(room: hierarchy::SpaceRoom) -> SpaceHierarchyRoomsChunk {
    let children = room.children.into_iter().map(Raw::from_json).collect();
    SpaceHierarchyRoomsChunk::new(room.summary, children)
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
#[tracing::instrument(name = "client.rooms.summarise", skip_all)]
async fn read_summary(
    (State(rooms), State(services)): (State<RoomsPart>, State<Arc<AppServices>>),
    State(federation): State<Federation>,
    requester: Option<Requester>,
    Matrix(request): Matrix<get_summary::v1::Request>,
) -> Result<Matrix<get_summary::v1::Response>, ApiError> {
    let mut via = request.via;
    let room = match OwnedRoomId::try_from(request.room_id_or_alias) {
        Ok(room) => room,
        Err(alias) => {
            let unknown = || unknown_room(format_args!("No room is named {alias}"));
            let target = resolve_alias(&federation, &services, &alias).await?;
            let target = target.ok_or_else(unknown)?;
            via.extend(target.servers);
            target.room
        }
    };
    // Whoever has no account does not make this server ask others.
    let walk = Walk::new(&federation);
    if via.is_empty() {
        via.extend(room.server_name().map(ToOwned::to_owned));
    }
    let via = if requester.is_some() { &via[..] } else { &[] };
    let user = requester.as_ref().map(|requester| &*requester.user);
    let (summary, membership) = summary::room_summary(&rooms, (&walk, via), user, &room).await?;
    let mut response = get_summary::v1::Response::new(summary);
    response.membership = membership;
    Ok(Matrix(response))
}

impl From<HierarchyError> for ApiError {
    fn from(error: HierarchyError) -> Self {
        match error {
            HierarchyError::NotVisible(_) => Self::forbidden(error),
            HierarchyError::Token => Self::invalid_param(error),
            HierarchyError::Read(error) => Self::internal(error),
        }
    }
}

impl From<SummaryError> for ApiError {
    fn from(error: SummaryError) -> Self {
        match error {
            SummaryError::Unknown(_) => unknown_room(error),
            SummaryError::Read(error) => Self::internal(error),
        }
    }
}
