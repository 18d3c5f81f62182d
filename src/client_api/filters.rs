//! Stored filters: client-server API, "Filtering".

use axum::{Router, extract::State};
use millrace_domain::{
    Env,
    accounts::Requester,
    filters::{self, FilterError},
};
use ruma::api::{
    client::filter::{create_filter, get_filter},
    error::ErrorKind,
};

use super::{account_data::only_own, error::ApiError, extract::Matrix, router::MatrixRouter};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(create).matrix(read)
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
#[tracing::instrument(name = "client.filters.create", skip_all)]
async fn create(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<create_filter::v3::Request>,
) -> Result<Matrix<create_filter::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let id = filters::create(&env, &requester.user, &request.filter).await?;
    Ok(Matrix(create_filter::v3::Response::new(id)))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
#[tracing::instrument(name = "client.filters.read", skip_all)]
async fn read(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<get_filter::v3::Request>,
) -> Result<Matrix<get_filter::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let snapshot = env.store.snapshot();
    let filter = filters::get(&snapshot, &requester.user, &request.filter_id).await?;
    Ok(Matrix(get_filter::v3::Response::new(filter)))
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::TooLarge => Self::too_large(error),
            FilterError::TooMany => Self::bad_request(ErrorKind::TooLarge, error),
            FilterError::Unknown => Self::not_found(error),
            FilterError::Malformed(_) | FilterError::Store(_) => Self::internal(error),
        }
    }
}
