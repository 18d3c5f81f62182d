//! Where mails about unread messages lead that somebody wants no more of.

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use millrace_domain::{
    Env,
    pushers::{self, PusherId},
};
use ruma::OwnedUserId;
use serde::Deserialize;

use super::{error::ApiError, extract::QueryArguments, pages::page};
use crate::{
    app::App,
    mail::{Messages, Page, UNSUBSCRIBE_PATH, unsubscribe_proof},
};

pub(crate) fn routes() -> Router<App> {
    Router::new().route(UNSUBSCRIBE_PATH, get(ask).post(unsubscribe))
}

/// What a link carries.
#[derive(Deserialize)]
struct Link {
    user: OwnedUserId,
    app_id: String,
    address: String,
    proof: String,
}

/// A query that may be that of a link: what was cut off or changed is as invalid as what is forged.
type MaybeLink = Result<QueryArguments<Link>, ApiError>;

/// A link that we sent.
fn ours(env: &Env, link: MaybeLink) -> Option<Link> {
    let QueryArguments(link) = link.ok()?;
    let proof = unsubscribe_proof(&env.identity, &link.user, &link.app_id, &link.address);
    let same = subtle::ConstantTimeEq::ct_eq(proof.as_bytes(), link.proof.as_bytes());
    bool::from(same).then_some(link)
}

fn invalid(messages: &Messages) -> Response {
    page(StatusCode::BAD_REQUEST, messages.page(Page::ValidationFailed, &[]))
}

/// `GET /_matrix/millrace/email/unsubscribe`: a button, since programmes that look through mails follow
/// links.
#[tracing::instrument(name = "client.unsubscribe.ask", skip_all)]
async fn ask(
    State(env): State<Env>,
    State(messages): State<Arc<Messages>>,
    RawQuery(query): RawQuery,
    link: MaybeLink,
) -> Response {
    let Some(link) = ours(&env, link) else { return invalid(&messages) };
    let action = format!("{UNSUBSCRIBE_PATH}?{}", query.unwrap_or_default());
    let values = [("action", &*action), ("address", &link.address)];
    page(StatusCode::OK, messages.page(Page::ConfirmUnsubscribe, &values))
}

/// `POST /_matrix/millrace/email/unsubscribe`: of the button, and of mail programmes (RFC 8058).
#[tracing::instrument(name = "client.unsubscribe.confirm", skip_all)]
async fn unsubscribe(
    State(env): State<Env>,
    State(messages): State<Arc<Messages>>,
    link: MaybeLink,
) -> Result<Response, ApiError> {
    let Some(link) = ours(&env, link) else { return Ok(invalid(&messages)) };
    let id = PusherId { app_id: link.app_id, pushkey: link.address };
    pushers::remove(&env, &link.user, &id).await?;
    Ok(page(StatusCode::OK, messages.page(Page::Unsubscribed, &[])))
}
