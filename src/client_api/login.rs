//! Logging in and out: `/login`, `/refresh`, `/logout`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::post};
use http::StatusCode;
use millrace_appservices::{AppServices, Service};
use millrace_domain::accounts::{
    LogInError, Login, LoginTokenError, RefreshError, Requester, identified_user,
    issue_login_token, log_in_by_password, log_in_by_service, log_in_by_token, log_out,
    log_out_everywhere, named_user, refresh,
    uiaa::{Challenge, authorise},
};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::{
        Metadata,
        client::{
            session::{get_login_token, get_login_types, login, logout, logout_all, refresh_token},
            uiaa::{MatrixUserIdentifier, UserIdentifier},
        },
        error::ErrorKind,
        path_builder::PathBuilder,
    },
    serde::JsonObject,
    thirdparty::Medium,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    account_limits::AccountLimits,
    appservices::exclusive,
    discovery::Discovery,
    error::{ApiError, SoftLogout},
    extract::{JsonBody, Matrix, refuse_json},
    limits::EndpointClass,
    register::new_device,
    requester::Claimed,
    router::MatrixRouter,
};
use crate::{
    app::{AccountsPart, App},
    config::sso::SsoProvider,
    sso::SignOns,
};

pub(crate) fn routes() -> Router<App> {
    let routes = Router::new()
        .matrix(flows)
        .matrix(login_token)
        .matrix(refresh_session)
        .matrix(log_out_device)
        .matrix(log_out_all);
    // Not from the request's type, as ruma's parser panics where the type of the login is absent.
    login::v3::Request::PATH_BUILDER
        .all_paths()
        .fold(routes, |router, path| router.route(path, post(log_in)))
}

/// `GET /_matrix/client/v3/login`
#[tracing::instrument(name = "client.login.flows", skip_all)]
async fn flows(
    (State(sign_ons), State(services)): (State<Arc<SignOns>>, State<Arc<AppServices>>),
    Matrix(_): Matrix<get_login_types::v3::Request>,
) -> Json<Value> {
    // By hand: ruma's types say that what a provider lacks is null.
    let provider = |provider: &SsoProvider| {
        let mut wire = json!({ "id": provider.id, "name": provider.name });
        for (field, value) in [("icon", &provider.icon), ("brand", &provider.brand)] {
            if let Some(value) = value {
                wire[field] = value.as_str().into();
            }
        }
        wire
    };
    let providers: Vec<Value> = sign_ons.providers().map(provider).collect();
    let mut flows = vec![json!({ "type": "m.login.password" })];
    if !providers.is_empty() {
        flows.push(json!({ "type": "m.login.sso", "identity_providers": providers }));
    }
    flows.push(json!({ "type": "m.login.token", "get_login_token": true }));
    if !services.registry().is_empty() {
        flows.push(json!({ "type": "m.login.application_service" }));
    }
    Json(json!({ "flows": flows }))
}

#[derive(Deserialize)]
struct LoginBody {
    #[serde(rename = "type")]
    kind: String,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
    #[serde(flatten)]
    data: JsonObject,
}

/// `POST /_matrix/client/v3/login`
#[tracing::instrument(name = "client.login", skip_all)]
async fn log_in(
    State(accounts): State<AccountsPart>,
    State(discovery): State<Arc<Discovery>>,
    limits: AccountLimits,
    claimed: Claimed,
    JsonBody(body): JsonBody<LoginBody>,
) -> Result<Matrix<login::v3::Response>, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let LoginBody { kind, device_id, initial_device_display_name, refresh_token, data } = body;
    let device = new_device(device_id, initial_device_display_name, refresh_token)?;
    let info = login::v3::LoginInfo::new(&kind, data).map_err(|error| refuse_json(&error))?;
    let login = match info {
        login::v3::LoginInfo::Password(data) => {
            let user = identified_user(&accounts, &identifier(&data)?).await;
            let user = user.map_err(ApiError::internal)?;
            if let Some(user) = &user {
                limits.check_name(EndpointClass::Login, user.as_str())?;
            }
            log_in_by_password(&accounts, user, &data.password, &device).await?
        }
        login::v3::LoginInfo::Token(data) => {
            log_in_by_token(&accounts, &data.token, &device).await?
        }
        login::v3::LoginInfo::ApplicationService(data) => {
            let service = claimed.service()?;
            let user = service_user(&accounts, &service, &data)?;
            log_in_by_service(&accounts, &user, &device).await?
        }
        other => {
            let message = format!("Unknown login type {}", other.login_type());
            return Err(ApiError::bad_request(ErrorKind::Unknown, message));
        }
    };
    Ok(Matrix(response(login, &discovery)))
}

/// Whom an application service logs in.
#[expect(deprecated, reason = "old services have the name in the field `user`")]
fn service_user(
    accounts: &AccountsPart,
    service: &Service,
    data: &login::v3::ApplicationService,
) -> Result<OwnedUserId, ApiError> {
    let name = match (&data.identifier, &data.user) {
        (Some(UserIdentifier::Matrix(matrix)), _) => matrix.user.clone(),
        (None, Some(user)) => user.clone(),
        (Some(_), _) => return Err(ApiError::invalid_param("identifier must be a user")),
        (None, None) => return Err(ApiError::missing_param("missing identifier")),
    };
    let unknown = || ApiError::invalid_param(format_args!("{name:?} is no user of this server"));
    let user = named_user(accounts, &name).ok_or_else(unknown)?;
    if !service.has_user(&user) {
        return Err(exclusive(format_args!("{user} is in no namespace of the service")));
    }
    Ok(user)
}

/// Whom a client logs in, as the specification has it or as old clients do.
#[expect(deprecated, reason = "old clients have the name in the field `user`")]
fn identifier(data: &login::v3::Password) -> Result<UserIdentifier, ApiError> {
    if let Some(identifier) = &data.identifier {
        return Ok(identifier.clone());
    }
    match (&data.user, &data.medium, &data.address) {
        (Some(user), _, _) => Ok(MatrixUserIdentifier::new(user.clone()).into()),
        (None, Some(medium), Some(address)) => {
            Ok(UserIdentifier::third_party_id(Medium::from(&**medium), address.clone()))
        }
        (None, _, _) => Err(ApiError::missing_param("missing identifier")),
    }
}

fn response(login: Login, discovery: &Discovery) -> login::v3::Response {
    let Login { user, device, access_token, refresh_token, expires_in } = login;
    let mut response = login::v3::Response::new(user, access_token, device);
    (response.refresh_token, response.expires_in) = (refresh_token, expires_in);
    response.well_known = discovery
        .client_base_url
        .as_ref()
        .map(|url| login::v3::DiscoveryInfo::new(login::v3::HomeserverInfo::new(url.clone())));
    response
}

/// `POST /_matrix/client/v1/login/get_token`
#[tracing::instrument(name = "client.login.get_token", skip_all)]
async fn login_token(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    requester: Requester,
    Matrix(request): Matrix<get_login_token::v1::Request>,
) -> Result<Matrix<get_login_token::v1::Response>, ApiError> {
    limits.check_name(EndpointClass::Login, requester.user.as_str())?;
    let challenge = Challenge::password("login/get_token", &requester.user);
    authorise(&accounts, &challenge, request.auth.as_ref()).await?;
    let (token, lifetime) = issue_login_token(&accounts, &requester).await?;
    Ok(Matrix(get_login_token::v1::Response::new(lifetime, token)))
}

/// `POST /_matrix/client/v3/refresh`
#[tracing::instrument(name = "client.refresh", skip_all)]
async fn refresh_session(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    Matrix(request): Matrix<refresh_token::v3::Request>,
) -> Result<Matrix<refresh_token::v3::Response>, ApiError> {
    limits.check_address(EndpointClass::Other)?;
    let login = refresh(&accounts, &request.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(login.access_token);
    (response.refresh_token, response.expires_in_ms) = (login.refresh_token, login.expires_in);
    Ok(Matrix(response))
}

/// `POST /_matrix/client/v3/logout`
#[tracing::instrument(name = "client.logout", skip_all)]
async fn log_out_device(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(_): Matrix<logout::v3::Request>,
) -> Result<Matrix<logout::v3::Response>, ApiError> {
    log_out(&accounts, &requester).await.map_err(ApiError::internal)?;
    Ok(Matrix(logout::v3::Response::new()))
}

/// `POST /_matrix/client/v3/logout/all`
#[tracing::instrument(name = "client.logout_all", skip_all)]
async fn log_out_all(
    State(accounts): State<AccountsPart>,
    requester: Requester,
    Matrix(_): Matrix<logout_all::v3::Request>,
) -> Result<Matrix<logout_all::v3::Response>, ApiError> {
    log_out_everywhere(&accounts, &requester.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(logout_all::v3::Response::new()))
}

impl From<LogInError> for ApiError {
    fn from(error: LogInError) -> Self {
        match error {
            LogInError::WrongPassword | LogInError::LoginToken => Self::forbidden(error),
            LogInError::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::UserDeactivated, error)
            }
            LogInError::Locked => Self::locked(),
            LogInError::Password(error) => error.into(),
            LogInError::Store(_) => Self::internal(error),
        }
    }
}

impl From<LoginTokenError> for ApiError {
    fn from(error: LoginTokenError) -> Self {
        match error {
            LoginTokenError::Session(error) => error.into(),
            LoginTokenError::Store(_) => Self::internal(error),
        }
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown => Self::unknown_token(SoftLogout::No),
            RefreshError::Expired => Self::unknown_token(SoftLogout::Yes),
            RefreshError::Locked => Self::locked(),
            RefreshError::Store(_) => Self::internal(error),
        }
    }
}
