//! Registering application services while the server runs, for `millrace appservice`:
//! `/_millrace/admin/v1/appservices` (not part of the Matrix specification).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get},
};
use http::StatusCode;
use millrace_appservices::{AppServices, ManageError, ServiceStatus};
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::ApiError,
    extract::{JsonBody, PathArguments},
    requester::Administrator,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/_millrace/admin/v1/appservices", get(list).post(register))
        .route("/_millrace/admin/v1/appservices/{id}", delete(unregister))
}

/// `GET /_millrace/admin/v1/appservices`
#[tracing::instrument(name = "admin.appservices.list", skip_all)]
async fn list(
    State(services): State<Arc<AppServices>>,
    _: Administrator,
) -> Result<Json<Value>, ApiError> {
    let all = services.status().await.map_err(ApiError::internal)?;
    Ok(Json(json!({ "appservices": all.iter().map(shown).collect::<Vec<_>>() })))
}

fn shown(status: &ServiceStatus) -> Value {
    let service = &status.service;
    json!({
        "id": service.id,
        "url": service.url,
        "sender": service.sender,
        "registered_by": service.source.to_string(),
        "waiting": status.waiting,
        "failures": status.failures,
    })
}

#[derive(Deserialize)]
struct Registration {
    /// The text of the file.
    registration: String,
}

/// `POST /_millrace/admin/v1/appservices`
#[tracing::instrument(name = "admin.appservices.register", skip_all)]
async fn register(
    State(services): State<Arc<AppServices>>,
    _: Administrator,
    JsonBody(body): JsonBody<Registration>,
) -> Result<Json<Value>, ApiError> {
    let service = services.register(&body.registration).await?;
    Ok(Json(json!({ "id": service.id, "sender": service.sender })))
}

/// `DELETE /_millrace/admin/v1/appservices/{id}`
#[tracing::instrument(name = "admin.appservices.unregister", skip_all)]
async fn unregister(
    State(services): State<Arc<AppServices>>,
    _: Administrator,
    PathArguments(id): PathArguments<String>,
) -> Result<Json<Value>, ApiError> {
    services.unregister(&id).await?;
    Ok(Json(json!({})))
}

impl From<ManageError> for ApiError {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::Invalid(_) => Self::invalid_param(error),
            ManageError::Conflict(_) | ManageError::InFile { .. } => {
                Self::new(StatusCode::CONFLICT, ErrorKind::Unknown, error)
            }
            ManageError::Unknown(_) => Self::not_found(error),
            ManageError::Store(_) => Self::internal(error),
        }
    }
}
