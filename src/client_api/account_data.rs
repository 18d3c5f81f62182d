//! What clients keep for their user: client-server API, "Client Config", "Room Tagging".

use axum::{Json, Router, extract::State, response::Response, routing::delete};
use http::StatusCode;
use millrace_domain::{
    Env,
    account_data::{self, PUSH_RULES, SetError},
    accounts::Requester,
    push_rules,
};
use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    api::{
        client::{
            config::{
                get_global_account_data, get_room_account_data, set_global_account_data,
                set_room_account_data,
            },
            tag::{create_tag, delete_tag, get_tags},
        },
        error::ErrorKind,
    },
};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    extract::{Matrix, PathArguments},
    json::raw_json,
    router::MatrixRouter,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(set_global)
        .matrix(get_global)
        .matrix(set_room)
        .matrix(get_room)
        .matrix(tags)
        .matrix(set_tag)
        .matrix(remove_tag)
        .route(&format!("{UNSTABLE}/{{user}}/account_data/{{kind}}"), delete(delete_global))
        .route(
            &format!("{UNSTABLE}/{{user}}/rooms/{{room}}/account_data/{{kind}}"),
            delete(delete_room),
        )
}

/// Deleting account data is not in the specification yet (MSC3391).
const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc3391/user";

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/account_data/{type}`
#[tracing::instrument(name = "client.account_data.delete", skip_all)]
async fn delete_global(
    State(env): State<Env>,
    requester: Requester,
    PathArguments((user, kind)): PathArguments<(OwnedUserId, String)>,
) -> Result<Json<Value>, ApiError> {
    only_own(&requester, &user)?;
    account_data::delete(&env, &user, None, &kind).await?;
    Ok(Json(json!({})))
}

/// `DELETE /_matrix/client/unstable/org.matrix.msc3391/user/{userId}/rooms/{roomId}/account_data/{type}`
#[tracing::instrument(name = "client.room_account_data.delete", skip_all)]
async fn delete_room(
    State(env): State<Env>,
    requester: Requester,
    PathArguments((user, room, kind)): PathArguments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Json<Value>, ApiError> {
    only_own(&requester, &user)?;
    account_data::delete(&env, &user, Some(&room), &kind).await?;
    Ok(Json(json!({})))
}

/// Refuses to touch what belongs to somebody else.
pub(super) fn only_own(requester: &Requester, user: &UserId) -> Result<(), ApiError> {
    if requester.user == user {
        return Ok(());
    }
    Err(ApiError::forbidden("This belongs to another user"))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
#[tracing::instrument(name = "client.account_data.set", skip_all)]
async fn set_global(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<set_global_account_data::v3::Request>,
) -> Result<Matrix<set_global_account_data::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let kind = request.event_type.to_string();
    account_data::set(&env, &requester.user, None, &kind, request.data.json()).await?;
    Ok(Matrix(set_global_account_data::v3::Response::new()))
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
#[tracing::instrument(name = "client.account_data.read", skip_all)]
async fn get_global(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_global_account_data::v3::Request>,
) -> Result<Response, ApiError> {
    only_own(&requester, &request.user_id)?;
    let (read, kind) = (&env.store.snapshot(), request.event_type.to_string());
    let content = if kind == PUSH_RULES {
        push_rules::account_data(read, &requester.user).await.map(Some)
    } else {
        account_data::get(read, &requester.user, None, &kind).await
    };
    found(content)
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
#[tracing::instrument(name = "client.room_account_data.set", skip_all)]
async fn set_room(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<set_room_account_data::v3::Request>,
) -> Result<Matrix<set_room_account_data::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let (room, kind) = (Some(&*request.room_id), request.event_type.to_string());
    account_data::set(&env, &requester.user, room, &kind, request.data.json()).await?;
    Ok(Matrix(set_room_account_data::v3::Response::new()))
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
#[tracing::instrument(name = "client.room_account_data.read", skip_all)]
async fn get_room(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_room_account_data::v3::Request>,
) -> Result<Response, ApiError> {
    only_own(&requester, &request.user_id)?;
    let (read, kind) = (&env.store.snapshot(), request.event_type.to_string());
    found(account_data::get(read, &requester.user, Some(&request.room_id), &kind).await)
}

fn found(content: millrace_store::Result<Option<String>>) -> Result<Response, ApiError> {
    let content = content.map_err(ApiError::internal)?;
    content.map(raw_json).ok_or_else(|| ApiError::not_found("There is no such account data"))
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
#[tracing::instrument(name = "client.tags.list", skip_all)]
async fn tags(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_tags::v3::Request>,
) -> Result<Response, ApiError> {
    only_own(&requester, &request.user_id)?;
    let tags = account_data::tags(&env.store.snapshot(), &requester.user, &request.room_id).await;
    let tags = tags.map_err(ApiError::internal)?;
    Ok(raw_json(json!({ "tags": tags }).to_string()))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
#[tracing::instrument(name = "client.tags.set", skip_all)]
async fn set_tag(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<create_tag::v3::Request>,
) -> Result<Matrix<create_tag::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let info: Value = serde_json::to_value(&request.tag_info).map_err(ApiError::bad_json)?;
    account_data::set_tag(&env, &requester.user, &request.room_id, &request.tag, &info).await?;
    Ok(Matrix(create_tag::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
#[tracing::instrument(name = "client.tags.delete", skip_all)]
async fn remove_tag(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<delete_tag::v3::Request>,
) -> Result<Matrix<delete_tag::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    account_data::delete_tag(&env, &requester.user, &request.room_id, &request.tag).await?;
    Ok(Matrix(delete_tag::v3::Response::new()))
}

impl From<SetError> for ApiError {
    fn from(error: SetError) -> Self {
        match error {
            SetError::ServerManaged(_) => {
                Self::new(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::BadJson, error)
            }
            SetError::TooLarge => Self::too_large(error),
            SetError::NotObject => Self::bad_json(error),
            SetError::Store(_) => Self::internal(error),
        }
    }
}
