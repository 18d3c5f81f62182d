//! Where the links in mails lead: the address is proved, or a button asks first.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    response::Response,
    routing::{get, post},
};
use http::StatusCode;
use millrace_domain::threepids::{
    Purpose, ValidateError, Validating, note_validated, peek, remote_session, validate,
};
use millrace_federation::identity_servers::IdentityServers;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    account_limits::AccountLimits,
    error::ApiError,
    extract::JsonBody,
    limits::EndpointClass,
    pages::{Form, page, redirect},
};
use crate::{
    app::{AccountsPart, App},
    mail::{Messages, Page, SUBMIT_PATH},
};

/// Where clients send the words of text messages (`submit_url`).
pub(super) const SUBMIT_MSISDN_PATH: &str = "/_matrix/millrace/msisdn/submit_token";

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route(SUBMIT_PATH, get(follow).post(confirm))
        .route(SUBMIT_MSISDN_PATH, post(submit_msisdn))
}

/// What a link carries.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    sid: String,
    #[serde(default)]
    token: String,
}

/// `GET /_matrix/millrace/email/submit_token`
#[tracing::instrument(name = "client.validation.follow", skip_all)]
async fn follow(
    State(accounts): State<AccountsPart>,
    State(messages): State<Arc<Messages>>,
    Query(link): Query<Link>,
) -> Result<Response, ApiError> {
    match peek(&accounts, &link.sid, &link.token).await {
        // Programmes that look through mails follow links, and do not press buttons.
        Ok(Validating { purpose: Purpose::ResetPassword, .. }) => {
            let values = [("action", SUBMIT_PATH), ("sid", &link.sid), ("token", &link.token)];
            Ok(page(StatusCode::OK, messages.page(Page::ConfirmPasswordReset, &values)))
        }
        Ok(Validating { purpose: Purpose::Register | Purpose::Add, .. }) => {
            submitted(&messages, validate(&accounts, &link.sid, &link.token).await)
        }
        Err(error) => submitted(&messages, Err(error)),
    }
}

/// `POST /_matrix/millrace/email/submit_token`
#[tracing::instrument(name = "client.validation.confirm", skip_all)]
async fn confirm(
    State(accounts): State<AccountsPart>,
    State(messages): State<Arc<Messages>>,
    Form(link): Form<Link>,
) -> Result<Response, ApiError> {
    submitted(&messages, validate(&accounts, &link.sid, &link.token).await)
}

fn submitted(
    messages: &Messages,
    outcome: Result<Validating, ValidateError>,
) -> Result<Response, ApiError> {
    match outcome {
        Ok(Validating { next_link: Some(next), .. }) if messages.leads_to_friends(&next) => {
            redirect(&next)
        }
        Ok(Validating { next_link: Some(next), .. }) => {
            let host = next.parse::<http::Uri>().ok();
            let host = host.as_ref().and_then(http::Uri::host).unwrap_or(&next);
            let values = [("next", &*next), ("host", host)];
            Ok(page(StatusCode::OK, messages.page(Page::ValidatedNext, &values)))
        }
        Ok(Validating { next_link: None, .. }) => {
            Ok(page(StatusCode::OK, messages.page(Page::Validated, &[])))
        }
        Err(ValidateError::Unknown) => {
            Ok(page(StatusCode::BAD_REQUEST, messages.page(Page::ValidationFailed, &[])))
        }
        Err(ValidateError::Store(error)) => Err(ApiError::internal(error)),
    }
}

#[derive(Deserialize)]
struct MsisdnToken {
    sid: String,
    client_secret: String,
    token: String,
}

/// `POST /_matrix/millrace/msisdn/submit_token`: as the Identity Service API has it.
#[tracing::instrument(name = "client.validation.submit_msisdn", skip_all)]
async fn submit_msisdn(
    State(accounts): State<AccountsPart>,
    State(identity_servers): State<IdentityServers>,
    limits: AccountLimits,
    JsonBody(body): JsonBody<MsisdnToken>,
) -> Result<Json<Value>, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let MsisdnToken { sid, client_secret, token } = body;
    let session = (&*sid, &*client_secret);
    let success = submit_word(&accounts, &identity_servers, session, &token).await?;
    Ok(Json(json!({ "success": success })))
}

/// Asks the service that sent a text message whether its word is this one. Whether it is.
pub(super) async fn submit_word(
    accounts: &AccountsPart,
    identity_servers: &IdentityServers,
    (sid, client_secret): (&str, &str),
    token: &str,
) -> Result<bool, ApiError> {
    let remote = remote_session(accounts, sid, client_secret).await;
    let Some(remote) = remote.map_err(ApiError::internal)? else {
        return Err(ApiError::not_found("There is no such session"));
    };
    let success = identity_servers.submit_message((&remote, client_secret), token).await?;
    if success {
        note_validated(accounts, sid).await.map_err(ApiError::internal)?;
    }
    Ok(success)
}
