//! Typed requests in, typed responses out: the border between HTTP and ruma's endpoint types.

use axum::{
    body::{Body, Bytes},
    extract::{FromRef, FromRequest, FromRequestParts, Path, Query, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, header, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ruma::api::{
    IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt,
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
    path_builder::PathBuilder,
};
use serde::de::DeserializeOwned;

use super::{
    error::ApiError,
    json::{self, JsonFault},
};

/// An identifier has at most this many bytes (appendices, "Common Identifier Format").
const PATH_ARGUMENT_BYTES_MAX: usize = 255;

/// A typed request as a handler's last argument, or a typed response as its result.
///
/// A request is refused with `M_TOO_LARGE`, `M_NOT_JSON`, `M_BAD_JSON`, `M_MISSING_PARAM` or
/// `M_INVALID_PARAM` before the handler runs. An empty body counts as `{}`, and the `Content-Type`
/// of a request is not looked at, since many clients send none.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<T>(pub T);

/// A typed JSON body, for endpoints that ruma has no types for. Refuses as [`Matrix`] does.
#[derive(Debug, Clone, Copy)]
pub struct JsonBody<T>(pub T);

/// The arguments in the path, in their order, for endpoints that ruma has no types for. Refuses with
/// `M_INVALID_PARAM`.
#[derive(Debug, Clone, Copy)]
pub struct PathArguments<T>(pub T);

/// The query, for endpoints that ruma has no types for. Refuses as [`Matrix`] does.
#[derive(Debug, Clone, Copy)]
pub struct QueryArguments<T>(pub T);

/// A typed request whose body is content of any size, to be read piece by piece: its type has an
/// empty one.
#[derive(Debug)]
pub struct Streamed<T> {
    /// The headers.
    pub headers: HeaderMap,
    /// The request without its body.
    pub request: T,
    /// The body, not bounded by [`RequestLimits`].
    pub body: Body,
}

/// Bounds on what a request may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// How many arrays and objects may lie within each other.
    pub json_depth_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { body_bytes_max: 20 * 1024 * 1024, json_depth_max: 100 }
    }
}

impl<T, S> FromRequest<S> for Matrix<T>
where
    T: IncomingRequest,
    S: Send + Sync,
    RequestLimits: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        receive(request, RequestLimits::from_ref(state)).await?.parse().map(Self)
    }
}

/// A whole request, its body of bearable size and depth.
pub(crate) struct Received {
    request: http::Request<Bytes>,
    path: Option<RawPathParams>,
}

/// Takes in the whole of a request.
pub(crate) async fn receive(request: Request, limits: RequestLimits) -> Result<Received, ApiError> {
    let (mut parts, body) = request.into_parts();
    let path = path_arguments(&mut parts).await?;
    let body = if matches!(parts.method, Method::GET | Method::HEAD) {
        Bytes::new() // No endpoint reads a body here; ours would be read for nothing.
    } else {
        json_object(&parts, body, limits).await?
    };
    Ok(Received { request: http::Request::from_parts(parts, body), path })
}

impl Received {
    /// The request as it was sent, which is what a signature covers.
    pub fn as_sent(&self) -> &http::Request<Bytes> {
        &self.request
    }

    /// The request as ruma's type.
    pub fn parse<T: IncomingRequest>(self) -> Result<T, ApiError> {
        let arguments: Vec<&str> = self.path.iter().flatten().map(|(_, value)| value).collect();
        refuse_long_arguments::<T>(&arguments)?;
        // Not every type of ruma's takes an empty body for an empty object.
        let request =
            self.request.map(|body| if body.is_empty() { Bytes::from_static(b"{}") } else { body });
        let (parts, body) = request.into_parts();
        T::try_from_http_request(http::Request::from_parts(parts, &*body), &arguments)
            .map_err(ApiError::from)
    }
}

impl<T, S> FromRequest<S> for JsonBody<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    RequestLimits: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = json_object(&parts, body, RequestLimits::from_ref(state)).await?;
        let json = if body.is_empty() { b"{}" } else { &*body };
        serde_json::from_slice(json).map(Self).map_err(|error| refuse_json(&error))
    }
}

impl<T, S> FromRequestParts<S> for PathArguments<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, ApiError> {
        let arguments = path_arguments(parts).await?;
        if arguments.iter().flatten().any(|(_, value)| value.len() > PATH_ARGUMENT_BYTES_MAX) {
            let message = format!("An argument is longer than {PATH_ARGUMENT_BYTES_MAX} bytes");
            return Err(ApiError::invalid_param(message));
        }
        let arguments = Path::from_request_parts(parts, state).await;
        arguments.map(|Path(arguments)| Self(arguments)).map_err(ApiError::invalid_param)
    }
}

impl<T, S> FromRequestParts<S> for QueryArguments<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let message = error.body_text();
            if message.contains("missing field") {
                ApiError::missing_param(message)
            } else {
                ApiError::invalid_param(message)
            }
        })
    }
}

impl<T: IncomingRequest, S: Send + Sync> FromRequest<S> for Streamed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = path_arguments(&mut parts).await?;
        let arguments: Vec<&str> = path.iter().flatten().map(|(_, value)| value).collect();
        refuse_long_arguments::<T>(&arguments)?;
        let headers = parts.headers.clone();
        let request = http::Request::from_parts(parts, &[][..]);
        let request = T::try_from_http_request(request, &arguments)?;
        Ok(Self { headers, request, body })
    }
}

impl<T: OutgoingResponse> IntoResponse for Matrix<T> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<Vec<u8>>() {
            Ok(response) => response.map(Body::from),
            Err(error) => ApiError::internal(error).into_response(),
        }
    }
}

/// The parameters in the path, percent-decoded, in the order of the path.
async fn path_arguments(parts: &mut request::Parts) -> Result<Option<RawPathParams>, ApiError> {
    use axum::extract::rejection::RawPathParamsRejection;
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(params) => Ok(Some(params)),
        Err(RawPathParamsRejection::MissingPathParams(_)) => Ok(None),
        Err(error) => Err(ApiError::invalid_param(error)),
    }
}

/// The whole body, which is empty or looks like one JSON object of bearable size and depth.
async fn json_object(
    parts: &request::Parts,
    body: Body,
    limits: RequestLimits,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        let most = limits.body_bytes_max;
        ApiError::too_large(format_args!("The request is larger than {most} bytes"))
    };
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if announced.and_then(|v| v.parse().ok()).is_some_and(|n: usize| n > limits.body_bytes_max) {
        return Err(too_large());
    }
    let body = match Limited::new(body, limits.body_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(_) => return Err(ApiError::not_json("The body of the request ended early")),
    };
    if body.trim_ascii() == b"null" {
        // So say clients that have nothing to say, such as nheko when it logs out.
        return Ok(Bytes::new());
    }
    match json::check(&body, limits.json_depth_max) {
        Ok(()) => Ok(body),
        Err(JsonFault::TooDeep) => {
            let most = limits.json_depth_max;
            Err(ApiError::bad_json(format_args!("The JSON is nested deeper than {most} levels")))
        }
        Err(JsonFault::NotUtf8) => Err(ApiError::not_json("The body is not UTF-8")),
        Err(JsonFault::NotObject) => Err(not_an_object(&body)),
    }
}

fn not_an_object(body: &[u8]) -> ApiError {
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => ApiError::bad_json("The body must be a JSON object"),
        Err(error) => ApiError::not_json(error),
    }
}

/// Refuses arguments that could never name anything, before they become database keys.
fn refuse_long_arguments<T: IncomingRequest>(arguments: &[&str]) -> Result<(), ApiError> {
    let Some(long) = arguments.iter().position(|a| a.len() > PATH_ARGUMENT_BYTES_MAX) else {
        return Ok(());
    };
    let template = T::PATH_BUILDER.all_paths().next().unwrap_or_default();
    let name = template
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .nth(long)
        .unwrap_or("argument");
    let message = format!("{name} is longer than {PATH_ARGUMENT_BYTES_MAX} bytes");
    Err(match name {
        // Client-server API, "Size limits" of events and of profile keys.
        "event_type" | "state_key" => ApiError::too_large(message),
        "field" | "field_name" | "key_name" => {
            ApiError::bad_request(ErrorKind::KeyTooLarge, message)
        }
        _ => ApiError::invalid_param(message),
    })
}

/// `M_NOT_JSON` for what is no JSON, `M_BAD_JSON` for JSON of another form than expected.
pub(crate) fn refuse_json(error: &serde_json::Error) -> ApiError {
    use serde_json::error::Category;
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => ApiError::not_json(error),
        Category::Data => ApiError::bad_json(error),
    }
}

impl From<FromHttpRequestError> for ApiError {
    fn from(error: FromHttpRequestError) -> Self {
        match error {
            FromHttpRequestError::MethodMismatch { .. } => Self::wrong_method(),
            FromHttpRequestError::Deserialization(DeserializationError::Json(error)) => {
                refuse_json(&error)
            }
            FromHttpRequestError::Deserialization(error) => {
                let message = error.to_string();
                if message.starts_with("missing ") {
                    Self::missing_param(message)
                } else {
                    Self::invalid_param(message)
                }
            }
            other => Self::bad_request(ErrorKind::Unknown, other),
        }
    }
}
