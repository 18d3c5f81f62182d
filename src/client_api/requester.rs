//! Who makes a request: the extractor that every endpoint with an access token takes.

use std::{convert::Infallible, sync::Arc};

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts, Query};
use http::{HeaderMap, Method, StatusCode, Uri, header, request};
use millrace_appservices::{
    AppServices, Service,
    identity::{Asserted, IdentityError},
};
pub use millrace_domain::accounts::Requester;
use millrace_domain::accounts::{AuthenticateError, LastSeen, Origin, authenticate};
use ruma::api::error::ErrorKind;
use serde::Deserialize;

use super::{
    client_ip::ClientIp,
    consent,
    endpoint_patterns::{Pattern, any_fits},
    error::{ApiError, SoftLogout},
    guest_access, suspension,
};
use crate::app::{AccountsPart, App};

/// Where locked accounts are not refused: they may log out.
const OPEN_TO_LOCKED: [Pattern; 2] = [(Method::POST, "logout"), (Method::POST, "logout/all")];

/// Refuses with `M_MISSING_TOKEN` or `M_UNKNOWN_TOKEN`, guests with `M_GUEST_ACCESS_FORBIDDEN` where
/// the specification does not list the endpoint for them, locked accounts with `M_USER_LOCKED`,
/// suspended ones with `M_USER_SUSPENDED` where they would do what others see, and with
/// `M_CONSENT_NOT_GIVEN` those who have yet to agree to documents.
impl FromRequestParts<App> for Requester {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let token = token(&parts.headers, &parts.uri).ok_or_else(ApiError::missing_token)?;
        let accounts = AccountsPart::from_ref(app);
        let services: Arc<AppServices> = Arc::from_ref(app);
        let requester = match services.registry().by_token(&token) {
            Some(service) => {
                let query = ServiceQuery::of(&parts.uri);
                services.showed_up(service);
                services.requester(service, query.asserted()).await?
            }
            None => authenticate(&accounts, &token).await?,
        };
        let (method, path) = (&parts.method, parts.uri.path());
        if requester.locked && !any_fits(&OPEN_TO_LOCKED, method, path) {
            return Err(ApiError::locked());
        }
        if requester.suspended {
            suspension::check(method, path)?;
        }
        if requester.is_guest && !guest_access::is_allowed(method, path) {
            let message = "Guests may not do this";
            let kind = ErrorKind::GuestAccessForbidden;
            return Err(ApiError::new(StatusCode::FORBIDDEN, kind, message));
        }
        if requester.service.is_none() {
            consent::check(app, &requester.user, method, path).await?;
            let ClientIp(ip) = match ClientIp::from_request_parts(parts, app).await {
                Ok(ip) => ip,
                Err(never) => match never {},
            };
            let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
            note_seen(accounts, &requester, Origin { ip, user_agent: agent });
        }
        Ok(requester)
    }
}

/// An administrator of this server, who is let in before the body of the request is looked at. Others
/// are refused with `M_FORBIDDEN`.
#[derive(Debug)]
pub struct Administrator(pub Requester);

impl FromRequestParts<App> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let requester =
            <Requester as FromRequestParts<App>>::from_request_parts(parts, app).await?;
        if !requester.admin {
            return Err(ApiError::forbidden("You are no administrator of this server"));
        }
        Ok(Self(requester))
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

/// An application service, by its own token: for endpoints that are only for services. Others are
/// refused with `M_FORBIDDEN`.
#[derive(Debug)]
pub struct ByToken(pub Arc<Service>);

impl FromRequestParts<App> for ByToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let token = token(&parts.headers, &parts.uri).ok_or_else(ApiError::missing_token)?;
        let services: Arc<AppServices> = Arc::from_ref(app);
        if let Some(service) = services.registry().by_token(&token) {
            services.showed_up(service);
            return Ok(Self(Arc::clone(service)));
        }
        authenticate(&AccountsPart::from_ref(app), &token).await?;
        Err(ApiError::forbidden("This is only for application services"))
    }
}

/// The application service of a token, at endpoints where there need be none. A token that no service
/// has is none: `/register` and `/login` say what that means.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// A service's token.
    Service(Arc<Service>),
    /// Some other token.
    Unknown,
    /// None.
    Nothing,
}

impl Claimed {
    /// The service.
    pub fn service(self) -> Result<Arc<Service>, ApiError> {
        match self {
            Self::Service(service) => Ok(service),
            Self::Unknown => Err(ApiError::unknown_token(SoftLogout::No)),
            Self::Nothing => Err(ApiError::missing_token()),
        }
    }
}

impl FromRequestParts<App> for Claimed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, Infallible> {
        let Some(token) = token(&parts.headers, &parts.uri) else { return Ok(Self::Nothing) };
        let services: Arc<AppServices> = Arc::from_ref(app);
        let found = services.registry().by_token(&token).cloned();
        Ok(found.map_or(Self::Unknown, Self::Service))
    }
}

/// Whether a request is an application service's that is not counted.
pub(super) fn is_unlimited(parts: &request::Parts, app: &App) -> bool {
    let services: Arc<AppServices> = Arc::from_ref(app);
    let registry = services.registry();
    if registry.is_empty() {
        return false;
    }
    let token = token(&parts.headers, &parts.uri);
    let service = token.and_then(|token| registry.by_token(&token).cloned());
    service.is_some_and(|service| {
        AppServices::is_unlimited(&service, ServiceQuery::of(&parts.uri).user_id.as_deref())
    })
}

/// In whose name an application service asks.
#[derive(Deserialize, Default)]
struct ServiceQuery {
    user_id: Option<String>,
    device_id: Option<String>,
    #[serde(rename = "org.matrix.msc3202.device_id")]
    unstable_device_id: Option<String>,
}

impl ServiceQuery {
    fn of(uri: &Uri) -> Self {
        Query::try_from_uri(uri).map(|Query(query)| query).unwrap_or_default()
    }

    fn asserted(&self) -> Asserted<'_> {
        let device = self.device_id.as_deref().or(self.unstable_device_id.as_deref());
        Asserted { user: self.user_id.as_deref(), device }
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
fn note_seen(accounts: AccountsPart, requester: &Requester, origin: Origin<'_>) {
    if let Some(batch) = accounts.last_seen.note(requester, origin, accounts.env.now()) {
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

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::NoUserId(_) => Self::invalid_param(error),
            IdentityError::NotYours(_) | IdentityError::Unregistered(_) => Self::forbidden(error),
            IdentityError::Deactivated(_) => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::UserDeactivated, error)
            }
            IdentityError::UnknownDevice(..) => Self::bad_request(ErrorKind::UnknownDevice, error),
            IdentityError::Store(_) => Self::internal(error),
        }
    }
}
