//! Who makes a request: the extractor that every endpoint with an access token takes.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts, Query};
use http::{HeaderMap, StatusCode, Uri, header, request};
pub use millrace_domain::accounts::Requester;
use millrace_domain::accounts::{AuthenticateError, LastSeen, authenticate};
use ruma::api::error::ErrorKind;
use serde::Deserialize;

use super::{
    client_ip::ClientIp,
    error::{ApiError, SoftLogout},
    guest_access,
};
use crate::app::{AccountsPart, App};

/// Refuses with `M_MISSING_TOKEN` or `M_UNKNOWN_TOKEN`, and guests with
/// `M_GUEST_ACCESS_FORBIDDEN` where the specification does not list the endpoint for them.
impl FromRequestParts<App> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let token = token(&parts.headers, &parts.uri).ok_or_else(ApiError::missing_token)?;
        let accounts = AccountsPart::from_ref(app);
        let requester = authenticate(&accounts, &token).await?;
        if requester.is_guest && !guest_access::is_allowed(&parts.method, parts.uri.path()) {
            let message = "Guests may not do this";
            let kind = ErrorKind::GuestAccessForbidden;
            return Err(ApiError::new(StatusCode::FORBIDDEN, kind, message));
        }
        let ClientIp(ip) = match ClientIp::from_request_parts(parts, app).await {
            Ok(ip) => ip,
            Err(never) => match never {},
        };
        note_seen(accounts, &requester, ip);
        Ok(requester)
    }
}

/// None without a token; a token that is sent has to be good.
impl OptionalFromRequestParts<App> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut request::Parts,
        app: &App,
    ) -> Result<Option<Self>, ApiError> {
        if token(&parts.headers, &parts.uri).is_none() {
            return Ok(None);
        }
        <Self as FromRequestParts<App>>::from_request_parts(parts, app).await.map(Some)
    }
}

#[derive(Deserialize)]
struct TokenQuery {
    access_token: Option<String>,
}

/// The token in the header, or in the query, as old clients have it.
fn token(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let query = || Query::<TokenQuery>::try_from_uri(uri).ok()?.0.access_token;
    bearer.or_else(query).filter(|token| !token.is_empty())
}

/// Notes the request; once in a while the notes are written, which the request does not wait for.
fn note_seen(accounts: AccountsPart, requester: &Requester, ip: IpAddr) {
    if let Some(batch) = accounts.last_seen.note(requester, ip, accounts.env.now()) {
        tokio::spawn(async move {
            if let Err(error) = LastSeen::write(&accounts, &batch).await {
                tracing::warn!(%error, "where devices were last seen could not be written");
            }
        });
    }
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Unknown => Self::unknown_token(SoftLogout::No),
            AuthenticateError::Expired => Self::unknown_token(SoftLogout::Yes),
            AuthenticateError::Store(_) => Self::internal(error),
        }
    }
}
