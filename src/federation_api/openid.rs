//! Who a user is, for third parties (spec: Server-Server API, OpenID).

use axum::{Router, extract::State};
use http::StatusCode;
use millrace_domain::{Env, accounts::openid_user};
use ruma::api::{
    error::{ErrorKind, UnknownTokenErrorData},
    federation::openid::get_openid_userinfo::v1 as get_userinfo,
};

use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(userinfo)
}

/// `GET /_matrix/federation/v1/openid/userinfo`
#[tracing::instrument(name = "federation.openid.userinfo", skip_all)]
async fn userinfo(
    State(env): State<Env>,
    Matrix(request): Matrix<get_userinfo::Request>,
) -> Result<Matrix<get_userinfo::Response>, ApiError> {
    let user = openid_user(&env, &request.access_token).await.map_err(ApiError::internal)?;
    let unknown = || {
        let kind = ErrorKind::UnknownToken(UnknownTokenErrorData::new());
        ApiError::new(StatusCode::UNAUTHORIZED, kind, "Access token unknown or expired")
    };
    Ok(Matrix(get_userinfo::Response::new(user.ok_or_else(unknown)?)))
}
