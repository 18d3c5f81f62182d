//! Signing keys: ours, and those of others for whoever asks us as a notary (spec: Server-Server API,
//! Retrieving server keys).

use axum::{Router, extract::State};
use millrace_domain::Env;
use millrace_federation::{Federation, keyring::TellError};
use ruma::api::federation::discovery::{
    get_remote_server_keys::v2 as get_remote_keys,
    get_remote_server_keys_batch::v2 as get_remote_keys_batch, get_server_keys::v2 as get_keys,
};

use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(own_keys).matrix(remote_keys).matrix(remote_keys_batch)
}

/// `GET /_matrix/key/v2/server`
#[tracing::instrument(name = "federation.keys.own", skip_all)]
async fn own_keys(
    State(federation): State<Federation>,
    Matrix(_): Matrix<get_keys::Request>,
) -> Result<Matrix<get_keys::Response>, ApiError> {
    Ok(Matrix(get_keys::Response::new(federation.keyring.ours()?)))
}

/// `GET /_matrix/key/v2/query/{serverName}`
#[tracing::instrument(name = "federation.keys.remote", skip_all, fields(server = %request.server_name))]
async fn remote_keys(
    State(federation): State<Federation>,
    Matrix(request): Matrix<get_remote_keys::Request>,
) -> Result<Matrix<get_remote_keys::Response>, ApiError> {
    let wanted = [(request.server_name, request.minimum_valid_until_ts)].into();
    Ok(Matrix(get_remote_keys::Response::new(federation.keyring.tell(wanted).await?)))
}

/// `POST /_matrix/key/v2/query`
#[tracing::instrument(name = "federation.keys.remote_batch", skip_all)]
async fn remote_keys_batch(
    State(env): State<Env>,
    State(federation): State<Federation>,
    Matrix(request): Matrix<get_remote_keys_batch::Request>,
) -> Result<Matrix<get_remote_keys_batch::Response>, ApiError> {
    let now = env.now();
    let wanted = request.server_keys.into_iter().map(|(server, keys)| {
        let until = keys.into_values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        (server, until.unwrap_or(now))
    });
    let told = federation.keyring.tell(wanted.collect()).await?;
    Ok(Matrix(get_remote_keys_batch::Response::new(told)))
}

impl From<TellError> for ApiError {
    fn from(error: TellError) -> Self {
        Self::internal(&error)
    }
}
