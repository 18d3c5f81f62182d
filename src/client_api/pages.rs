//! Pages that people see in a browser, and what they send back.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, Query, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::mail::{Messages, Page};

/// The largest form that is read.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// Nothing is loaded from anywhere, no other page shows ours, and no other site learns its address.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                      base-uri 'none'";

/// A page, not to be kept by anybody.
pub(super) fn page(status: StatusCode, html: String) -> Response {
    page_with_policy(status, html, POLICY)
}

/// As [`page`], where the page may do more.
pub(super) fn page_with_policy(status: StatusCode, html: String, policy: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (status, headers, html).into_response()
}

/// Makes pages of errors. Around every family of endpoints that a browser goes to, so that their
/// handlers and extractors refuse as all others do.
pub(super) async fn explain(
    State(messages): State<Arc<Messages>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut reason = sentence(error.message());
    let wait_s = error.retry_after_s();
    if let Some(wait_s) = wait_s {
        reason.push_str(&format!(" Try again in {wait_s} s."));
    }
    let html = messages.page(Page::Failed, &[("reason", &reason)]);
    let mut response = page(error.status(), html);
    if let Some(wait_s) = wait_s {
        response.headers_mut().insert(header::RETRY_AFTER, wait_s.into());
    }
    response
}

/// What an error says, as a sentence.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(char::to_uppercase);
    let mut sentence: String = first.into_iter().flatten().chain(letters).collect();
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

/// Sends a browser elsewhere, by `GET`.
pub(super) fn redirect(to: &str) -> Result<Response, ApiError> {
    let location = http::HeaderValue::from_str(to)
        .map_err(|_| ApiError::invalid_param("the address to go to is malformed"))?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, http::HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, http::HeaderValue::from_static("no-referrer")),
    ];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// What a form of a page sends (`application/x-www-form-urlencoded`).
pub(super) struct Form<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|_| ApiError::too_large("The form cannot be read"))?;
        if body.len() > FORM_BYTES_MAX {
            return Err(ApiError::too_large("The form is too large"));
        }
        // A form is written as a query is.
        let uri = format!("/?{}", String::from_utf8_lossy(&body)).parse::<Uri>();
        let uri = uri.map_err(ApiError::invalid_param)?;
        let Query(form) = Query::try_from_uri(&uri).map_err(ApiError::invalid_param)?;
        Ok(Self(form))
    }
}
