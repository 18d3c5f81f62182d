//! The words of text messages, which clients send back: a phone number is proved.

use axum::{Json, Router, extract::State, routing::post};
use millrace_domain::threepids::{note_validated, remote_session};
use millrace_federation::identity_servers::IdentityServers;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    account_limits::AccountLimits, error::ApiError, extract::JsonBody, limits::EndpointClass,
};
use crate::app::{AccountsPart, App};

/// Where clients send them (`submit_url`).
pub(super) const SUBMIT_MSISDN_PATH: &str = "/_matrix/millrace/msisdn/submit_token";

pub(crate) fn routes() -> Router<App> {
    Router::new().route(SUBMIT_MSISDN_PATH, post(submit_msisdn))
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
