//! Profiles of our users (spec: Server-Server API, Querying for information).

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_appservices::AppServices;
use millrace_domain::{Env, profiles};
use ruma::api::federation::query::get_profile_information::v1 as get_profile;

use super::authenticate::Signed;
use crate::{
    app::App,
    client_api::{error::ApiError, extract::Matrix, router::MatrixRouter},
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(profile)
}

/// `GET /_matrix/federation/v1/query/profile`
#[tracing::instrument(name = "federation.profiles.read", skip_all, fields(origin = %signed.origin))]
async fn profile(
    (State(env), State(services)): (State<Env>, State<Arc<AppServices>>),
    signed: Signed<get_profile::Request>,
) -> Result<Matrix<get_profile::Response>, ApiError> {
    let get_profile::Request { user_id, field, .. } = signed.request;
    if !env.is_local(&user_id) {
        return Err(ApiError::not_found("The user belongs to another server"));
    }
    services.ask_for_user(&user_id).await.map_err(ApiError::internal)?;
    let mut profile = profiles::get(&env, &user_id).await?;
    if let Some(field) = field {
        profile.retain(|name, _| *name == *field.as_str());
    }
    Ok(Matrix(profile.into_iter().collect::<get_profile::Response>()))
}
