//! What this server is (spec: Server-Server API, Server implementation).

use axum::Router;
use ruma::api::federation::discovery::get_server_version::v1 as get_server_version;

use crate::{
    app::App,
    client_api::{extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(version)
}

/// `GET /_matrix/federation/v1/version`
async fn version(
    Matrix(_): Matrix<get_server_version::Request>,
) -> Matrix<get_server_version::Response> {
    let mut server = get_server_version::Server::new();
    server.name = Some("Millrace".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = get_server_version::Response::new();
    response.server = Some(server);
    Matrix(response)
}
