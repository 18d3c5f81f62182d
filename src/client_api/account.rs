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
    threepids::{ResetError, bindings, reset_password},
    typing::Typing,
};
use millrace_federation::identity_servers::IdentityServers;
use ruma::{
    api::{
        client::account::{
            change_password as change_password_api, deactivate as deactivate_api,
            request_openid_token, whoami,
        },
        error::ErrorKind,
    },
    authentication::TokenType,
};

use super::{
    account_data::only_own, account_limits::AccountLimits, appservices::authorise_unless_service,
    error::ApiError, extract::Matrix, limits::EndpointClass, router::MatrixRouter,
    threepids::unbind_all,
};
use crate::{
    app::{AccountsPart, App},
    departures::Departures,
};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(who_am_i).matrix(set_password).matrix(give_up).matrix(openid_token)
}

/// `GET /_matrix/client/v3/account/whoami`
#[tracing::instrument(name = "client.account.whoami", skip_all)]
async fn who_am_i(
    requester: Requester,
    Matrix(_): Matrix<whoami::v3::Request>,
) -> Matrix<whoami::v3::Response> {
    let device = requester.has_device().then_some(requester.device);
    let mut response = whoami::v3::Response::new(requester.user, requester.is_guest);
    response.device_id = device;
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
    requester: Option<Requester>,
    Matrix(request): Matrix<change_password_api::v3::Request>,
) -> Result<Matrix<change_password_api::v3::Response>, ApiError> {
    match &requester {
        Some(requester) => limits.check_name(EndpointClass::Login, requester.user.as_str())?,
        None => limits.check_address(EndpointClass::Login)?,
    }
    if request.new_password.is_empty() {
        return Err(ApiError::bad_request(ErrorKind::WeakPassword, "The password is empty"));
    }
    let new =
        NewPassword { password: request.new_password, log_out_others: request.logout_devices };
    if let Some(requester) = requester {
        let challenge = Challenge::password("account/password", &requester.user);
        authorise(&accounts, &challenge, request.auth.as_ref()).await?;
        change_password(&accounts, &requester, &new).await?;
    } else {
        let challenge = Challenge::password_reset(&accounts).ok_or_else(ApiError::missing_token)?;
        let proof = authorise(&accounts, &challenge, request.auth.as_ref()).await?;
        let proof = proof.threepids.first().ok_or_else(ApiError::unknown)?;
        reset_password(&accounts, proof, &new).await?;
    }
    Ok(Matrix(change_password_api::v3::Response::new()))
}

/// `POST /_matrix/client/v3/account/deactivate`
#[tracing::instrument(name = "client.account.deactivate", skip_all)]
async fn give_up(
    (State(accounts), State(identity_servers)): (State<AccountsPart>, State<IdentityServers>),
    (State(departures), State(typing)): (State<Departures>, State<Arc<Typing>>),
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<deactivate_api::v3::Request>,
) -> Result<Matrix<deactivate_api::v3::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let challenge = Challenge::password("account/deactivate", &requester.user);
    let auth = request.auth.as_ref();
    authorise_unless_service(&accounts, &requester, &challenge, auth).await?;
    let bound = bindings(&accounts.env, &requester.user).await.map_err(ApiError::internal)?;
    deactivate(&accounts, &requester, request.erase).await?;
    typing.stop_everywhere(&requester.user);
    let unbound = unbind_all(&accounts, &identity_servers, &requester.user, &bound).await;
    tokio::spawn(departures.complete(requester.user));
    Ok(Matrix(deactivate_api::v3::Response::new(unbound)))
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
            UiaaError::Captcha(_) | UiaaError::Store(_) => Self::internal(error),
        }
    }
}

impl From<ResetError> for ApiError {
    fn from(error: ResetError) -> Self {
        match error {
            ResetError::NotFound => Self::bad_request(ErrorKind::ThreepidNotFound, error),
            ResetError::Password(error) => error.into(),
            ResetError::Store(_) => Self::internal(error),
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
