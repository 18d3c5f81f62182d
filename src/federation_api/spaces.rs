//! Spaces, for other servers (spec: Server-Server API, Spaces).

use axum::{Router, extract::State};
use millrace_domain::rooms::hierarchy;
use ruma::{
    api::federation::space::{SpaceHierarchyParentSummary, get_hierarchy::v1 as get_hierarchy},
    serde::Raw,
};

use super::authenticate::Signed;
use crate::{
    app::{App, RoomsPart},
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(hierarchy)
}

/// `GET /_matrix/federation/v1/hierarchy/{roomId}`
#[tracing::instrument(name = "federation.spaces.read", skip_all, fields(origin = %signed.origin))]
async fn hierarchy(
    State(rooms): State<RoomsPart>,
    signed: Signed<get_hierarchy::Request>,
) -> Result<Matrix<get_hierarchy::Response>, ApiError> {
    let get_hierarchy::Request { room_id, suggested_only, .. } = signed.request;
    let found = hierarchy::for_server(&rooms, &signed.origin, &room_id, suggested_only).await;
    let unknown = || ApiError::not_found(format_args!("No room that you may see is {room_id}"));
    let found = found.map_err(ApiError::internal)?.ok_or_else(unknown)?;
    let links = found.room.children.into_iter().map(Raw::from_json).collect();
    let parent = SpaceHierarchyParentSummary::new(found.room.summary, links);
    let mut response = get_hierarchy::Response::new(parent);
    response.children = found.children;
    response.inaccessible_children = found.inaccessible;
    Ok(Matrix(response))
}
