//! `/sync` (spec: Client-Server API, Syncing).

use std::time::Duration;

use axum::{Router, extract::State, response::Response};
use millrace_domain::{
    accounts::Requester,
    filters,
    sync::{self, SyncFilter, SyncRequest, Syncs},
};
use millrace_model::SyncToken;
use ruma::api::client::{
    filter::FilterDefinition,
    sync::sync_events::v3::{Filter, Request},
};

use super::{error::ApiError, extract::Matrix, json::raw_json, router::MatrixRouter};
use crate::{
    app::{App, SyncTimeoutMax},
    shutdown::Shutdown,
};

/// The routes of this family.
pub(super) fn routes() -> Router<App> {
    Router::new().matrix(sync)
}

/// `GET /_matrix/client/v3/sync`
#[tracing::instrument(name = "client.sync", skip_all, fields(user = %requester.user))]
async fn sync(
    State(syncs): State<Syncs>,
    State(SyncTimeoutMax(timeout_max)): State<SyncTimeoutMax>,
    State(shutdown): State<Shutdown>,
    requester: Requester,
    Matrix(request): Matrix<Request>,
) -> Result<Response, ApiError> {
    let filter = match request.filter {
        None => FilterDefinition::default(),
        Some(Filter::FilterDefinition(filter)) => filter,
        Some(Filter::FilterId(id)) => {
            let snapshot = syncs.rooms.env.store.snapshot();
            let found = filters::get(&snapshot, &requester.user, &id).await;
            found.map_err(|_| ApiError::invalid_param("filter is not the ID of a filter"))?
        }
        Some(_) => return Err(ApiError::invalid_param("filter is neither an ID nor a filter")),
    };
    let since = request.since.filter(|since| !since.is_empty());
    let since = since.map(|since| since.parse::<SyncToken>()).transpose();
    let since =
        since.map_err(|_| ApiError::invalid_param("since is not a token of this server"))?;
    // Held while the request lasts.
    let syncing = syncs.presence.syncing(&requester.user, request.set_presence).await;
    let _syncing = syncing.map_err(ApiError::internal)?;
    let wanted = SyncRequest {
        user: requester.user,
        device: Some(requester.device),
        since,
        filter: SyncFilter::new(&filter),
        full_state: request.full_state,
        state_after: request.use_state_after,
        timeout: request.timeout.unwrap_or(Duration::ZERO).min(timeout_max),
    };
    Ok(raw_json(sync::sync(&syncs, &wanted, shutdown.requested()).await?.json))
}

impl From<sync::SyncError> for ApiError {
    fn from(error: sync::SyncError) -> Self {
        match error {
            sync::SyncError::Load(_)
            | sync::SyncError::State(_)
            | sync::SyncError::Read(_)
            | sync::SyncError::Unread(_)
            | sync::SyncError::Store(_) => Self::internal(error),
        }
    }
}
