//! Finding users by name: client-server API, "User Directory".

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_domain::accounts::Requester;
use millrace_search::{Search, user_directory::DirectoryError};
use ruma::api::client::user_directory::search_users::{self, v3::User};

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(search)
}

/// `POST /_matrix/client/v3/user_directory/search`
#[tracing::instrument(name = "client.user_directory.search", skip_all)]
async fn search(
    State(directory): State<Arc<Search>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<search_users::v3::Request>,
) -> Result<Matrix<search_users::v3::Response>, ApiError> {
    limits.check(EndpointClass::Search, &requester.user)?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let results = directory.users(&requester.user, &request.search_term, limit).await?;
    let users = results.found.into_iter().map(|found| {
        let mut user = User::new(found.user);
        user.display_name = found.display_name;
        user.avatar_url = found.avatar_url.map(Into::into);
        user
    });
    Ok(Matrix(search_users::v3::Response::new(users.collect(), results.limited)))
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::Term(error) => Self::invalid_param(error),
            DirectoryError::Index(_)
            | DirectoryError::Store(_)
            | DirectoryError::Read(_)
            | DirectoryError::Room(_) => Self::internal(error),
        }
    }
}
