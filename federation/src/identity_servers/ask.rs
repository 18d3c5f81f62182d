//! One request to an identity server, and its answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use ruma::{ServerName, api::error::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{IdentityError, IdentityServers};
use crate::{signing, transport::ExchangeLimits};

/// Bounds on each exchange: a user waits for it.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(15), answer_bytes_max: 256 * 1024 };

/// How a request proves who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Credentials<'a> {
    /// By an access token of the identity server.
    Token(&'a str),
    /// By our signature.
    Signature,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    errcode: Option<String>,
    error: Option<String>,
}

impl IdentityServers {
    /// Asks a trusted identity server.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        (method, path): (Method, &str),
        credentials: Credentials<'_>,
        body: Option<&Value>,
    ) -> Result<T, IdentityError> {
        let uri = format!("https://{server}{path}");
        let mut request = request(&uri, method, body)?;
        match credentials {
            Credentials::Token(token) => authorise(&mut request, token)?,
            Credentials::Signature => {
                // What is signed is the path, as between Matrix servers.
                *request.uri_mut() = parse(path)?;
                signing::sign(&mut request, &self.env.identity, server)
                    .map_err(|error| IdentityError::Request(error.to_string()))?;
                *request.uri_mut() = parse(&uri)?;
            }
        }
        self.exchange(request).await
    }

    /// Asks a URL that is configured.
    pub(super) async fn ask_at<T: DeserializeOwned>(
        &self,
        url: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<T, IdentityError> {
        let mut request = request(url, Method::POST, Some(body))?;
        if let Some(token) = token {
            authorise(&mut request, token)?;
        }
        self.exchange(request).await
    }

    /// Asks what an event names.
    pub(super) async fn fetch<T: DeserializeOwned>(&self, url: &str) -> Result<T, IdentityError> {
        self.exchange(request(url, Method::GET, None)?).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: Request<Bytes>,
    ) -> Result<T, IdentityError> {
        let server = request.uri().host().unwrap_or_default().to_owned();
        let answer = match self.transport.page(request, LIMITS).await {
            Ok(answer) => answer,
            Err(source) => return Err(IdentityError::Transport { server, source }),
        };
        let (status, body) = (answer.status(), answer.body());
        if !status.is_success() {
            let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
            let kind = refusal.errcode.and_then(|code| {
                serde_json::from_value::<ErrorKind>(serde_json::json!({ "errcode": code })).ok()
            });
            let message = refusal.error.unwrap_or_default();
            return Err(IdentityError::Refused { status, kind, message });
        }
        serde_json::from_slice(body)
            .map_err(|error| IdentityError::Unreadable { server, reason: error.to_string() })
    }
}

fn request(
    uri: &str,
    method: Method,
    body: Option<&Value>,
) -> Result<Request<Bytes>, IdentityError> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let mut request = Request::new(bytes);
    (*request.method_mut(), *request.uri_mut()) = (method, parse(uri)?);
    if body.is_some() {
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    Ok(request)
}

fn parse(uri: &str) -> Result<Uri, IdentityError> {
    uri.parse().map_err(|_| IdentityError::Request(format!("{uri} is no URI")))
}

fn authorise(request: &mut Request<Bytes>, token: &str) -> Result<(), IdentityError> {
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value =
        value.map_err(|_| IdentityError::Request("the access token is malformed".to_owned()))?;
    value.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(())
}
