//! Profiles: client-server API, "Profiles". Every field goes through the same endpoints.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response};
use http::StatusCode;
use millrace_appservices::AppServices;
use millrace_domain::{
    accounts::Requester,
    profiles::{self, AVATAR_URL, DISPLAY_NAME, ProfileError},
    rooms::{Rooms, profile::spread_profile},
};
use millrace_federation::{Federation, profiles as remote_profiles};
use ruma::{
    UserId,
    api::{
        client::profile::{
            delete_profile_field, get_profile, get_profile_field, set_profile_field,
        },
        error::ErrorKind,
    },
};
use serde_json::{Value, json};

use super::{
    account_data::only_own, error::ApiError, extract::Matrix, json::raw_json,
    limits::EndpointClass, router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(read_field).matrix(set_field).matrix(delete_field)
}

/// `GET /_matrix/client/v3/profile/{userId}`
#[tracing::instrument(name = "client.profiles.read", skip_all)]
async fn read(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    Matrix(request): Matrix<get_profile::v3::Request>,
) -> Result<Response, ApiError> {
    let user = &request.user_id;
    services.ask_for_user(user).await.map_err(ApiError::internal)?;
    let profile = match federation.env.is_local(user) {
        true => profiles::get(&federation.env, user).await?,
        false => remote_profiles::profile(&federation, user, None).await?,
    };
    Ok(raw_json(Value::Object(profile).to_string()))
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
#[tracing::instrument(name = "client.profiles.read_field", skip_all)]
async fn read_field(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    Matrix(request): Matrix<get_profile_field::v3::Request>,
) -> Result<Response, ApiError> {
    let (user, field) = (&request.user_id, request.field.as_str());
    services.ask_for_user(user).await.map_err(ApiError::internal)?;
    let value = match federation.env.is_local(user) {
        true => profiles::get_field(&federation.env, user, field).await?,
        false => remote_profiles::profile(&federation, user, Some(field)).await?.remove(field),
    };
    let value = value.ok_or_else(|| ApiError::not_found("The profile has no such field"))?;
    Ok(raw_json(json!({ field: value }).to_string()))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
#[tracing::instrument(name = "client.profiles.set_field", skip_all)]
async fn set_field(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<set_profile_field::v3::Request>,
) -> Result<Matrix<set_profile_field::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    let (field, value) = (request.value.field_name(), request.value.value());
    if profiles::set_field(&rooms.env, &requester.user, field.as_str(), &value).await? {
        spread(&rooms, &requester.user, field.as_str()).await?;
    }
    Ok(Matrix(set_profile_field::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
#[tracing::instrument(name = "client.profiles.delete_field", skip_all)]
async fn delete_field(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_profile_field::v3::Request>,
) -> Result<Matrix<delete_profile_field::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    limits.check(EndpointClass::Other, &requester.user)?;
    let field = request.field.as_str();
    if profiles::delete_field(&rooms.env, &requester.user, field).await? {
        spread(&rooms, &requester.user, field).await?;
    }
    Ok(Matrix(delete_profile_field::v3::Response::new()))
}

/// Shows what changed in the user's rooms, where member events show it.
async fn spread(rooms: &Rooms, user: &UserId, field: &str) -> Result<(), ApiError> {
    if matches!(field, DISPLAY_NAME | AVATAR_URL) {
        spread_profile(rooms, user).await.map_err(ApiError::internal)?;
    }
    Ok(())
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::UnknownUser(_) => Self::not_found(error),
            ProfileError::KeyTooLarge => Self::bad_request(ErrorKind::KeyTooLarge, error),
            ProfileError::InvalidKey(_) | ProfileError::InvalidValue(_) => {
                Self::invalid_param(error)
            }
            ProfileError::TooLarge => {
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::ProfileTooLarge, error)
            }
            ProfileError::Store(_) => Self::internal(error),
        }
    }
}
