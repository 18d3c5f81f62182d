//! Who is in which room: client-server API, "Getting events for a room" and "Listing rooms".

use std::collections::BTreeMap;

use axum::{Json, Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::members::{self, MemberFilter},
};
use ruma::{
    OwnedUserId,
    api::client::membership::{get_member_events, joined_members, joined_rooms},
};
use serde::Serialize;

use super::{
    error::ApiError,
    extract::Matrix,
    history::{Reading, point, render},
    partial_rooms,
    router::MatrixRouter,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(list).matrix(joined).matrix(rooms_joined)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
#[tracing::instrument(name = "client.members.list", skip_all, fields(room = %request.room_id))]
async fn list(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_member_events::v3::Request>,
) -> Result<Matrix<get_member_events::v3::Response>, ApiError> {
    partial_rooms::all_members(&rooms, &request.room_id, &requester.user).await?;
    let reading = Reading::begin(&rooms, &requester).await?;
    let view = reading.open(&request.room_id).await?;
    let at = point(&view, request.at.as_deref(), "at").await?;
    let filter =
        MemberFilter { membership: request.membership, not_membership: request.not_membership };
    let members = members::members(&view, at, &filter).await?;
    Ok(Matrix(get_member_events::v3::Response::new(render(&view, &members).await?)))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
#[tracing::instrument(name = "client.members.joined", skip_all, fields(room = %request.room_id))]
async fn joined(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<joined_members::v3::Request>,
) -> Result<Json<JoinedBody>, ApiError> {
    partial_rooms::all_members(&rooms, &request.room_id, &requester.user).await?;
    let Reading { snapshot, viewer, .. } = Reading::begin(&rooms, &requester).await?;
    let joined = members::joined_members(&rooms, &snapshot, &request.room_id, &viewer).await?;
    let joined = joined.into_iter().map(|member| {
        let (display_name, avatar_url) = (member.display_name, member.avatar_url);
        (member.user, JoinedMember { display_name, avatar_url })
    });
    Ok(Json(JoinedBody { joined: joined.collect() }))
}

/// The answer of `/joined_members`. Unlike ruma's it has both fields for each member, `null` where
/// there is nothing, which clients rely on.
#[derive(Serialize)]
struct JoinedBody {
    joined: BTreeMap<OwnedUserId, JoinedMember>,
}

#[derive(Serialize)]
struct JoinedMember {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

/// `GET /_matrix/client/v3/joined_rooms`
#[tracing::instrument(name = "client.rooms.joined", skip_all)]
async fn rooms_joined(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(_): Matrix<joined_rooms::v3::Request>,
) -> Result<Matrix<joined_rooms::v3::Response>, ApiError> {
    let joined = members::joined_rooms(&rooms.env.store.snapshot(), &requester.user).await;
    Ok(Matrix(joined_rooms::v3::Response::new(joined.map_err(ApiError::internal)?)))
}
