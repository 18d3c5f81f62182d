//! Where mails about unread messages lead that somebody wants no more of.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, RawQuery, State},
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

use super::{error::ApiError, pages::page};
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

impl Link {
    fn is_ours(&self, env: &Env) -> bool {
        let proof = unsubscribe_proof(&env.identity, &self.user, &self.app_id, &self.address);
        subtle::ConstantTimeEq::ct_eq(proof.as_bytes(), self.proof.as_bytes()).into()
    }
}

/// `GET /_matrix/millrace/email/unsubscribe`: a button, since programmes that look through mails follow
/// links.
#[tracing::instrument(name = "client.unsubscribe.ask", skip_all)]
async fn ask(
    State(env): State<Env>,
    State(messages): State<Arc<Messages>>,
    RawQuery(query): RawQuery,
    Query(link): Query<Link>,
) -> Response {
    if !link.is_ours(&env) {
        return page(StatusCode::BAD_REQUEST, messages.page(Page::ValidationFailed, &[]));
    }
    let action = format!("{UNSUBSCRIBE_PATH}?{}", query.unwrap_or_default());
    let values = [("action", &*action), ("address", &link.address)];
    page(StatusCode::OK, messages.page(Page::ConfirmUnsubscribe, &values))
}

/// `POST /_matrix/millrace/email/unsubscribe`: of the button, and of mail programmes (RFC 8058).
#[tracing::instrument(name = "client.unsubscribe.confirm", skip_all)]
async fn unsubscribe(
    State(env): State<Env>,
    State(messages): State<Arc<Messages>>,
    Query(link): Query<Link>,
) -> Result<Response, ApiError> {
    if !link.is_ours(&env) {
        return Ok(page(StatusCode::BAD_REQUEST, messages.page(Page::ValidationFailed, &[])));
    }
    let id = PusherId { app_id: link.app_id, pushkey: link.address };
    pushers::remove(&env, &link.user, &id).await?;
    Ok(page(StatusCode::OK, messages.page(Page::Unsubscribed, &[])))
}
