//! The requester's own account: who am I, password, deactivation.

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_domain::{
    Env,
    accounts::{
        ChangePasswordError, DeactivateError, HashError, NewPassword, OPENID_TOKEN_LIFETIME,
        Requester, change_password, deactivate, issue_openid_token,
        uiaa::{Challenge, UiaaError, authorise},
    },
    typing::Typing,
};
use ruma::{
    api::{
        client::account::{
            ThirdPartyIdRemovalStatus, change_password as change_password_api,
            deactivate as deactivate_api, get_3pids, request_openid_token, whoami,
        },
        error::ErrorKind,
    },
    authentication::TokenType,
};

use super::{
    account_data::only_own, account_limits::AccountLimits, error::ApiError, extract::Matrix,
    limits::EndpointClass, router::MatrixRouter,
};
use crate::{
    app::{AccountsPart, App, RoomsPart},
    departures,
};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(who_am_i)
        .matrix(set_password)
        .matrix(give_up)
        .matrix(third_party_ids)
        .matrix(openid_token)
}

/// `GET /_matrix/client/v3/account/whoami`
#[tracing::instrument(name = "client.account.whoami", skip_all)]
async fn who_am_i(
    requester: Requester,
    Matrix(_): Matrix<whoami::v3::Request>,
) -> Matrix<whoami::v3::Response> {
    let mut response = whoami::v3::Response::new(requester.user, requester.is_guest);
    response.device_id = Some(requester.device);
    Matrix(response)
}

/// `POST /_matrix/client/v3/user/{userId}/openid/request_token`
#[tracing::instrument(name = "client.account.openid_token", skip_all)]
async fn openid_token(
    State(env): State<Env>,
    requester: Requester,
    Matrix(request): Matrix<request_openid_token::v3::Request>,
) -> Result<Matrix<request_openid_token::v3::Response>, ApiError> {
    only_own(&requester, &request.user_id)?;
    let token = issue_openid_token(&env, &requester.user).map_err(ApiError::internal)?;
    let (server, lifetime) = (env.identity.name.clone(), OPENID_TOKEN_LIFETIME);
    Ok(Matrix(request_openid_token::v3::Response::new(token, TokenType::Bearer, server, lifetime)))
}

/// `POST /_matrix/client/v3/account/password`
#[tracing::instrument(name = "client.account.password", skip_all)]
async fn set_password(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<change_password_api::v3::Request>,
) -> Result<Matrix<change_password_api::v3::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    if request.new_password.is_empty() {
        return Err(ApiError::bad_request(ErrorKind::WeakPassword, "The password is empty"));
    }
    let challenge = Challenge::password("account/password", &requester.user);
    authorise(&accounts, &challenge, request.auth.as_ref()).await?;
    let new =
        NewPassword { password: request.new_password, log_out_others: request.logout_devices };
    change_password(&accounts, &requester, &new).await?;
    Ok(Matrix(change_password_api::v3::Response::new()))
}

/// `POST /_matrix/client/v3/account/deactivate`
#[tracing::instrument(name = "client.account.deactivate", skip_all)]
async fn give_up(
    State(accounts): State<AccountsPart>,
    (State(rooms), State(typing)): (State<RoomsPart>, State<Arc<Typing>>),
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<deactivate_api::v3::Request>,
) -> Result<Matrix<deactivate_api::v3::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let challenge = Challenge::password("account/deactivate", &requester.user);
    authorise(&accounts, &challenge, request.auth.as_ref()).await?;
    deactivate(&accounts, &requester, request.erase).await?;
    typing.stop_everywhere(&requester.user);
    tokio::spawn(departures::leave_rooms(accounts, rooms, requester.user));
    // There are no third-party identifiers to unbind.
    Ok(Matrix(deactivate_api::v3::Response::new(ThirdPartyIdRemovalStatus::Success)))
}

/// `GET /_matrix/client/v3/account/3pid`: none can be added yet.
#[tracing::instrument(name = "client.account.3pid", skip_all)]
async fn third_party_ids(
    _: Requester,
    Matrix(_): Matrix<get_3pids::v3::Request>,
) -> Matrix<get_3pids::v3::Response> {
    Matrix(get_3pids::v3::Response::new(Vec::new()))
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::TooLong => Self::invalid_param(error),
            HashError::Computation(_) => Self::internal(error),
        }
    }
}

impl From<UiaaError> for ApiError {
    fn from(error: UiaaError) -> Self {
        match error {
            UiaaError::Needed(info) => Self::uiaa(*info),
            UiaaError::OtherUser => Self::forbidden(error),
            UiaaError::Password(error) => error.into(),
            UiaaError::Store(_) => Self::internal(error),
        }
    }
}

impl From<ChangePasswordError> for ApiError {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::Session(error) => error.into(),
            ChangePasswordError::Password(error) => error.into(),
            ChangePasswordError::Store(_) => Self::internal(error),
        }
    }
}

impl From<DeactivateError> for ApiError {
    fn from(error: DeactivateError) -> Self {
        match error {
            DeactivateError::Session(error) => error.into(),
            DeactivateError::Store(_) => Self::internal(error),
        }
    }
}
