//! Matrix errors: a status, an errcode, a sentence, and sometimes further fields.
//!
//! An operation's error enum becomes an [`ApiError`] by a `From` implementation with one arm for
//! each variant, written beside the endpoints that use the operation.

use std::{error::Error, fmt::Display, time::Duration};

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use ruma::api::{
    client::uiaa::UiaaInfo,
    error::{
        ErrorKind, LimitExceededErrorData, RetryAfter, StandardErrorBody, UnknownTokenErrorData,
    },
};
use serde::Serialize;
use serde_json::{Map, Value};

/// What a client is told when its request was not done.
///
/// Specification: client-server API, "Standard error response".
#[derive(Debug, Clone)]
pub struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    body: Body,
    extra: Map<String, Value>,
}

#[derive(Debug, Clone)]
enum Body {
    Standard(StandardErrorBody),
    Uiaa(UiaaInfo),
}

impl ApiError {
    /// An error with the status and errcode of the caller's choice. `message` is for humans.
    pub fn new(status: StatusCode, kind: ErrorKind, message: impl Display) -> Self {
        let body = Body::Standard(StandardErrorBody::new(kind, message.to_string()));
        Self(Box::new(Inner { status, body, extra: Map::new() }))
    }

    /// 400 with the given errcode: the request cannot be done as it stands.
    pub fn bad_request(kind: ErrorKind, message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, message)
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(message: impl Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, message)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    /// 404 `M_UNRECOGNIZED`: no such endpoint here.
    pub fn unknown_endpoint() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, "Unknown endpoint")
    }

    /// 405 `M_UNRECOGNIZED`: the endpoint exists, but not for this method.
    pub fn wrong_method() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, ErrorKind::Unrecognized, "Wrong method for this endpoint")
    }

    /// 400 `M_INVALID_PARAM`: a parameter has a value that it cannot have.
    pub fn invalid_param(message: impl Display) -> Self {
        Self::bad_request(ErrorKind::InvalidParam, message)
    }

    /// 400 `M_MISSING_PARAM`: a required parameter of the path or query is absent.
    pub fn missing_param(message: impl Display) -> Self {
        Self::bad_request(ErrorKind::MissingParam, message)
    }

    /// 400 `M_BAD_JSON`: JSON, but not of the form that the endpoint takes.
    pub fn bad_json(message: impl Display) -> Self {
        Self::bad_request(ErrorKind::BadJson, message)
    }

    /// 400 `M_NOT_JSON`.
    pub fn not_json(message: impl Display) -> Self {
        Self::bad_request(ErrorKind::NotJson, message)
    }

    /// 400 `M_INVALID_SIGNATURE`: a key is not signed by whom it should be.
    pub fn invalid_signature(message: impl Display) -> Self {
        // ruma knows the errcode in the text of a request only.
        let kind = serde_json::json!({ "errcode": "M_INVALID_SIGNATURE" });
        let kind = serde_json::from_value(kind).unwrap_or(ErrorKind::Unknown);
        Self::bad_request(kind, message)
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, message)
    }

    /// 401 `M_MISSING_TOKEN`: the endpoint needs an access token and none was sent.
    #[must_use]
    pub fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::MissingToken, "Missing access token")
    }

    /// 401 `M_UNKNOWN_TOKEN`: the access token is not, or no longer, valid.
    ///
    /// With [`SoftLogout::Yes`] the client keeps its data and logs in again for the same device.
    #[must_use]
    pub fn unknown_token(soft_logout: SoftLogout) -> Self {
        let mut data = UnknownTokenErrorData::new();
        data.soft_logout = soft_logout == SoftLogout::Yes;
        let message = match soft_logout {
            SoftLogout::Yes => "The access token has expired",
            SoftLogout::No => "Unknown access token",
        };
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::UnknownToken(data), message)
    }

    /// 401 `M_USER_LOCKED`, with `soft_logout`: the session goes on when the account is unlocked.
    #[must_use]
    pub fn locked() -> Self {
        let message = "This account has been locked";
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::UserLocked, message)
    }

    /// 429 `M_LIMIT_EXCEEDED`, with `Retry-After` and `retry_after_ms`.
    #[must_use]
    pub fn limit_exceeded(retry_after: Duration) -> Self {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(retry_after));
        let kind = ErrorKind::LimitExceeded(data);
        Self::new(StatusCode::TOO_MANY_REQUESTS, kind, "Too many requests")
    }

    /// 401 with the flows, parameters and session of user-interactive authentication.
    #[must_use]
    pub fn uiaa(info: UiaaInfo) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self(Box::new(Inner { status, body: Body::Uiaa(info), extra: Map::new() }))
    }

    /// 500 `M_UNKNOWN`. The error and its sources are logged here, once, and told to nobody.
    pub fn internal(error: impl Error) -> Self {
        tracing::error!(error = %Chain(&error), "request failed");
        Self::unknown()
    }

    /// 500 `M_UNKNOWN` for what has been logged already.
    #[must_use]
    pub fn unknown() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, ErrorKind::Unknown, "Internal server error")
    }

    /// Adds a field to the body, for errors that the specification gives more than a sentence.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The errcode of the answer; none where user-interactive authentication has just begun.
    #[must_use]
    pub fn kind(&self) -> Option<&ErrorKind> {
        match &self.0.body {
            Body::Standard(body) => Some(&body.kind),
            Body::Uiaa(info) => info.auth_error.as_ref().map(|error| &error.kind),
        }
    }

    /// What is wrong, for humans.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.0.body {
            Body::Standard(body) => &body.message,
            Body::Uiaa(info) => {
                let said = info.auth_error.as_ref().map(|error| &*error.message);
                said.unwrap_or("Authentication is needed")
            }
        }
    }

    /// For how long to wait, where that would help.
    pub(super) fn retry_after_s(&self) -> Option<u64> {
        match self.kind() {
            Some(ErrorKind::LimitExceeded(LimitExceededErrorData {
                retry_after: Some(RetryAfter::Delay(delay)),
                ..
            })) => Some(u64::try_from(delay.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)),
            _ => None,
        }
    }
}

/// Whether a client whose token is refused may keep its data and log in again for the same device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoftLogout {
    /// The session still exists; only its token has expired.
    Yes,
    /// The session is gone.
    No,
}

#[derive(Serialize)]
struct WireError<'a> {
    #[serde(flatten)]
    standard: Option<&'a StandardErrorBody>,
    #[serde(flatten)]
    uiaa: Option<&'a UiaaInfo>,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

/// The response keeps the error in its extensions: what is a page is written from it (`pages.rs`).
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Inner { status, body, extra } = &*self.0;
        let (standard, uiaa) = match body {
            Body::Standard(body) => (Some(body), None),
            Body::Uiaa(info) => (None, Some(info)),
        };
        let json = serde_json::to_vec(&WireError { standard, uiaa, extra })
            .expect("error bodies have string keys and plain values");
        let content_type = HeaderValue::from_static("application/json");
        let mut response = (*status, [(header::CONTENT_TYPE, content_type)], json).into_response();
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// An error and its sources in one line.
struct Chain<'a>(&'a dyn Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
