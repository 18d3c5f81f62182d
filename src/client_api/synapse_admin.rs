//! Synapse's admin API, as far as tools use it: `/_synapse/admin/v1/register`.

use axum::{Json, Router, extract::State, routing::get};
use http::StatusCode;
use millrace_domain::accounts::{
    Credentials, NewAccount, Nonces, SharedSecretError, SharedSecretRequest, check_shared_secret,
    register,
};
use ruma::{OwnedDeviceId, api::error::ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    account_limits::AccountLimits, error::ApiError, extract::JsonBody, limits::EndpointClass,
    register::new_device,
};
use crate::app::{AccountsPart, App};

/// Kinds of users that are not people.
const USER_TYPES: [&str; 2] = ["support", "bot"];

pub(crate) fn routes() -> Router<App> {
    let methods = get(nonce).post(register_by_secret);
    Router::new().route("/_synapse/admin/v1/register", methods)
}

/// `GET /_synapse/admin/v1/register`
#[tracing::instrument(name = "synapse_admin.register.nonce", skip_all)]
async fn nonce(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(EndpointClass::Registration)?;
    if accounts.settings.shared_secret.is_none() {
        return Err(SharedSecretError::Disabled.into());
    }
    Ok(Json(json!({ "nonce": Nonces::issue(&accounts) })))
}

#[derive(Deserialize)]
struct Body {
    nonce: String,
    username: String,
    password: String,
    mac: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    device_id: Option<OwnedDeviceId>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// `POST /_synapse/admin/v1/register`
#[tracing::instrument(name = "synapse_admin.register", skip_all)]
async fn register_by_secret(
    State(accounts): State<AccountsPart>,
    limits: AccountLimits,
    JsonBody(body): JsonBody<Body>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(EndpointClass::Registration)?;
    if body.user_type.as_deref().is_some_and(|kind| !USER_TYPES.contains(&kind)) {
        return Err(ApiError::invalid_param("user_type must be support or bot"));
    }
    let proof = SharedSecretRequest {
        nonce: &body.nonce,
        username: &body.username,
        password: &body.password,
        admin: body.admin,
        user_type: body.user_type.as_deref(),
        mac: &body.mac,
    };
    check_shared_secret(&accounts, &proof)?;
    if body.password.is_empty() {
        return Err(ApiError::invalid_param("The password is empty"));
    }
    let device = new_device(body.device_id, body.initial_device_display_name, body.refresh_token)?;
    let new = NewAccount {
        display_name: body.displayname,
        admin: body.admin,
        user_type: body.user_type,
        ..NewAccount::new(Some(body.username), Credentials::Password(body.password), device)
    };
    let login = if body.inhibit_login { None } else { new.login.clone() };
    let registered = register(&accounts, NewAccount { login, ..new }).await?;
    let mut answer =
        json!({ "user_id": registered.user, "home_server": accounts.env.identity.name });
    if let Some(login) = registered.login {
        answer["access_token"] = login.access_token.into();
        answer["device_id"] = login.device.as_str().into();
        if let Some(refresh_token) = login.refresh_token {
            answer["refresh_token"] = refresh_token.into();
        }
    }
    Ok(Json(answer))
}

impl From<SharedSecretError> for ApiError {
    fn from(error: SharedSecretError) -> Self {
        match error {
            SharedSecretError::Disabled | SharedSecretError::Nonce | SharedSecretError::Nul => {
                Self::bad_request(ErrorKind::Unknown, error)
            }
            SharedSecretError::Proof => Self::new(StatusCode::FORBIDDEN, ErrorKind::Unknown, error),
        }
    }
}
