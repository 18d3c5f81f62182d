//! Where the links in mails lead: the address is proved, or a button asks first.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use http::StatusCode;
use millrace_domain::threepids::{Purpose, ValidateError, Validating, peek, validate};
use serde::Deserialize;

use super::{
    error::ApiError,
    extract::QueryArguments,
    pages::{Form, page, redirect},
};
use crate::{
    app::{AccountsPart, App},
    mail::{Messages, Page, SUBMIT_PATH},
};

pub(crate) fn routes() -> Router<App> {
    Router::new().route(SUBMIT_PATH, get(follow).post(confirm))
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
    QueryArguments(link): QueryArguments<Link>,
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
        Ok(Validating { next_link: Some(next), purpose }) => {
            let host = next.parse::<http::Uri>().ok();
            let host = host.as_ref().and_then(http::Uri::host).unwrap_or(&next);
            let values = [("next", &*next), ("host", host)];
            let said = match purpose {
                Purpose::Register | Purpose::Add => Page::ValidatedNext,
                Purpose::ResetPassword => Page::PasswordResetConfirmedNext,
            };
            Ok(page(StatusCode::OK, messages.page(said, &values)))
        }
        Ok(Validating { next_link: None, purpose }) => {
            let said = match purpose {
                Purpose::Register | Purpose::Add => Page::Validated,
                Purpose::ResetPassword => Page::PasswordResetConfirmed,
            };
            Ok(page(StatusCode::OK, messages.page(said, &[])))
        }
        Err(ValidateError::Unknown) => {
            Ok(page(StatusCode::BAD_REQUEST, messages.page(Page::ValidationFailed, &[])))
        }
        Err(ValidateError::Store(error)) => Err(ApiError::internal(error)),
    }
}
