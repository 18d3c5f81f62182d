//! The rooms that the requester shares with somebody: client-server API, "Mutual rooms".

use axum::{Json, Router, extract::State, routing::get};
use millrace_domain::{Env, accounts::Requester, rooms::mutual::mutual_rooms};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::ApiError, extract::QueryArguments, limits::EndpointClass, user_limits::UserLimits,
};
use crate::app::App;

/// The endpoint, and the name that clients know from before version 1.19.
const PATHS: [&str; 2] = [
    "/_matrix/client/v1/mutual_rooms",
    "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",
];

pub(crate) fn routes() -> Router<App> {
    PATHS.iter().fold(Router::new(), |router, path| router.route(path, get(list)))
}

#[derive(Deserialize)]
struct Query {
    user_id: Option<String>,
    from: Option<String>,
}

/// `GET /_matrix/client/v1/mutual_rooms`
///
/// Not by ruma's type, which answers a missing or malformed user with other errcodes.
#[tracing::instrument(name = "client.mutual_rooms.list", skip_all)]
async fn list(
    State(env): State<Env>,
    limits: UserLimits,
    requester: Requester,
    QueryArguments(query): QueryArguments<Query>,
) -> Result<Json<Value>, ApiError> {
    limits.check(EndpointClass::Search, &requester.user)?;
    let other = query.user_id.and_then(|user| OwnedUserId::try_from(user).ok());
    let other = other.ok_or_else(|| ApiError::invalid_param("user_id must be a user ID"))?;
    if other == requester.user {
        return Err(ApiError::invalid_param("user_id must be somebody else"));
    }
    let from = query.from.map(OwnedRoomId::try_from).transpose();
    let from = from.map_err(|_| ApiError::invalid_param("from is not a token of this server"))?;
    let mutual = mutual_rooms(&env, &requester.user, &other, from.as_ref()).await;
    let mutual = mutual.map_err(ApiError::internal)?;
    let mut answer = json!({ "joined": mutual.rooms, "count": mutual.count });
    if let Some(next) = mutual.next {
        answer["next_batch"] = next.as_str().into();
    }
    Ok(Json(answer))
}
