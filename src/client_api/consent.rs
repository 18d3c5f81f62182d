//! Agreeing to the documents of the server (not part of the Matrix specification; as Synapse has it):
//! what is refused before with `M_CONSENT_NOT_GIVEN`, and the page on which users agree.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRef, State},
    response::Response,
    routing::get,
};
use http::{Method, StatusCode};
use millrace_domain::accounts::{
    Accounts, Policy, agree, consent_word, has_agreed, is_consent_word, parse_username,
};
use ruma::{OwnedUserId, UserId, api::error::ErrorKind};
use serde::Deserialize;

use super::{
    account_limits::AccountLimits,
    endpoint_patterns::{MAKES_EVENTS, Pattern, any_fits},
    error::ApiError,
    extract::QueryArguments,
    limits::EndpointClass,
    pages::{Form, page},
};
use crate::{
    app::{AccountsPart, App},
    mail::{Messages, escape},
    sso::encoded,
};

/// Where the page is: Synapse's place, which clients and administrators know.
const PATH: &str = "/_matrix/consent";

/// What is refused beside all that [`MAKES_EVENTS`].
const REFUSED: [Pattern; 1] = [(Method::PUT, "rooms/*/redact/*/*")];

pub(crate) fn routes() -> Router<App> {
    Router::new().route(PATH, get(show).post(submit))
}

/// Refuses what a user who has not agreed may not do, with the address of the page.
pub(super) async fn check(
    app: &App,
    user: &UserId,
    method: &Method,
    path: &str,
) -> Result<(), ApiError> {
    let accounts = AccountsPart::from_ref(app);
    let refused = any_fits(&MAKES_EVENTS, method, path) || any_fits(&REFUSED, method, path);
    if !accounts.settings.require_consent || !refused {
        return Ok(());
    }
    if has_agreed(&accounts, user).await.map_err(ApiError::internal)? {
        return Ok(());
    }
    // ruma has no such errcode.
    let kind = serde_json::json!({ "errcode": "M_CONSENT_NOT_GIVEN" });
    let kind = serde_json::from_value(kind).unwrap_or(ErrorKind::Forbidden);
    let page = Arc::<Messages>::from_ref(app).url(&address(&accounts, user));
    let message = format!("To go on, read and agree to the documents of this server at {page}");
    Err(ApiError::new(StatusCode::FORBIDDEN, kind, message).with_field("consent_uri", page))
}

/// The path of a user's page.
fn address(accounts: &Accounts, user: &UserId) -> String {
    let word = consent_word(accounts, user);
    format!("{PATH}?u={}&h={word}", encoded(user.localpart()))
}

/// Who comes, and the proof that the link is theirs.
#[derive(Deserialize)]
struct Visitor {
    #[serde(default)]
    u: String,
    #[serde(default)]
    h: String,
}

impl Visitor {
    fn user(&self, accounts: &Accounts) -> Result<OwnedUserId, ApiError> {
        let user = parse_username(&self.u, &accounts.env.identity.name).ok();
        user.filter(|user| is_consent_word(accounts, user, &self.h))
            .ok_or_else(|| ApiError::forbidden("This is not the link that your client shows you"))
    }
}

/// `GET /_matrix/consent`
#[tracing::instrument(name = "client.consent.show", skip_all)]
async fn show(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    limits: AccountLimits,
    QueryArguments(visitor): QueryArguments<Visitor>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let user = visitor.user(&accounts)?;
    let documents = documents(&accounts.settings.terms);
    let body = if has_agreed(&accounts, &user).await.map_err(ApiError::internal)? {
        format!("<h1>You have agreed to these</h1>\n{documents}")
    } else {
        format!(
            "<h1>Please read and agree to these</h1>\n{documents}\n<p>You are {user}.</p>\n<form \
             method=\"post\" action=\"{PATH}\">\n<input type=\"hidden\" name=\"u\" \
             value=\"{name}\">\n<input type=\"hidden\" name=\"h\" value=\"{word}\">\n<button \
             type=\"submit\">I agree</button>\n</form>",
            user = escape(user.as_str()),
            name = escape(&visitor.u),
            word = escape(&visitor.h),
        )
    };
    Ok(page(StatusCode::OK, messages.layout(&body)))
}

/// `POST /_matrix/consent`: what the page above sends.
#[tracing::instrument(name = "client.consent.submit", skip_all)]
async fn submit(
    (State(accounts), State(messages)): (State<AccountsPart>, State<Arc<Messages>>),
    limits: AccountLimits,
    Form(visitor): Form<Visitor>,
) -> Result<Response, ApiError> {
    limits.check_address(EndpointClass::Login)?;
    let user = visitor.user(&accounts)?;
    agree(&accounts, &user).await.map_err(ApiError::internal)?;
    let body = "<h1>Thank you</h1>\n<p>You can close this page and go back to your client.</p>";
    Ok(page(StatusCode::OK, messages.layout(body)))
}

/// A list of documents, with where to read them.
pub(super) fn documents(terms: &[Policy]) -> String {
    let item = |policy: &Policy| {
        let (url, name) = (escape(&policy.url), escape(&policy.name));
        let version = escape(&policy.version);
        format!("<li><a href=\"{url}\" target=\"_blank\">{name}</a> (version {version})</li>\n")
    };
    let items: String = terms.iter().map(item).collect();
    format!("<ul>\n{items}</ul>")
}
