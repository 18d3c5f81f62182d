//! What administrators ask and decide: client-server API, "Server Administration".

use axum::{Json, Router, extract::State};
use millrace_domain::accounts::{
    self, DeviceInfo, ModerateError, Moderation, Requester, moderate, moderated,
};
use ruma::api::client::admin::{
    get_user_info, is_user_locked, is_user_suspended, lock_user, suspend_user,
};
use serde_json::{Map, Value, json};

use super::{error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::{AccountsPart, App};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(who_is).matrix(is_suspended).matrix(suspend).matrix(is_locked).matrix(lock)
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`
#[tracing::instrument(name = "client.admin.whois", skip_all)]
async fn who_is(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<get_user_info::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let user = request.user_id;
    let devices = accounts::who_is(&accounts, &requester, &user).await?;
    let devices: Map<String, Value> = devices.into_iter().map(sessions).collect();
    Ok(Json(json!({ "user_id": user, "devices": devices })))
}

/// A device with its one session.
fn sessions(device: DeviceInfo) -> (String, Value) {
    let connections = device.seen.into_iter().map(|seen| {
        let mut connection = json!({ "ip": seen.ip, "last_seen": seen.at_ms });
        if let Some(agent) = seen.user_agent {
            connection["user_agent"] = agent.into();
        }
        connection
    });
    let connections: Vec<Value> = connections.collect();
    (device.id.to_string(), json!({ "sessions": [{ "connections": connections }] }))
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
#[tracing::instrument(name = "client.admin.is_suspended", skip_all)]
async fn is_suspended(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<is_user_suspended::v1::Request>,
) -> Result<Matrix<is_user_suspended::v1::Response>, ApiError> {
    let moderated = moderated(&accounts, &requester, &request.user_id).await?;
    Ok(Matrix(is_user_suspended::v1::Response::new(moderated.suspended)))
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
#[tracing::instrument(name = "client.admin.suspend", skip_all)]
async fn suspend(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<suspend_user::v1::Request>,
) -> Result<Matrix<suspend_user::v1::Response>, ApiError> {
    let moderation = if request.suspended { Moderation::Suspend } else { Moderation::Unsuspend };
    moderate(&accounts, &requester, &request.user_id, moderation).await?;
    Ok(Matrix(suspend_user::v1::Response::new(request.suspended)))
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
#[tracing::instrument(name = "client.admin.is_locked", skip_all)]
async fn is_locked(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<is_user_locked::v1::Request>,
) -> Result<Matrix<is_user_locked::v1::Response>, ApiError> {
    let moderated = moderated(&accounts, &requester, &request.user_id).await?;
    Ok(Matrix(is_user_locked::v1::Response::new(moderated.locked)))
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
#[tracing::instrument(name = "client.admin.lock", skip_all)]
async fn lock(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(request): Matrix<lock_user::v1::Request>,
) -> Result<Matrix<lock_user::v1::Response>, ApiError> {
    let moderation = if request.locked { Moderation::Lock } else { Moderation::Unlock };
    moderate(&accounts, &requester, &request.user_id, moderation).await?;
    Ok(Matrix(lock_user::v1::Response::new(request.locked)))
}

impl From<ModerateError> for ApiError {
    fn from(error: ModerateError) -> Self {
        match error {
            ModerateError::NotAdmin | ModerateError::OfAdmin => Self::forbidden(error),
            ModerateError::OtherServer(_) => Self::invalid_param(error),
            ModerateError::Unknown(_) => Self::not_found(error),
            ModerateError::Session(error) => error.into(),
            ModerateError::Store(_) => Self::internal(error),
        }
    }
}
