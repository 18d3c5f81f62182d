//! Requests to other servers over HTTPS.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture};
use ruma::ServerName;
use rustls::{ClientConfig, RootCertStore};

use crate::transport::{ExchangeLimits, Transport, TransportError};

/// The port of a server whose name says none.
const DEFAULT_PORT: u16 = 8448;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no HTTPS client can be made.
#[derive(Debug, thiserror::Error)]
#[error("requests to other servers cannot be made: {0}")]
pub struct HttpSetupError(String);

/// HTTPS to other servers, connections kept open and shared.
pub struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    /// Trusts the usual certificate authorities.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new() -> Result<Self, HttpSetupError> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpSetupError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| HttpSetupError(error.to_string()))?;
        Ok(Self { client })
    }

    async fn send(
        &self,
        destination: &ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let port = destination.port().unwrap_or(DEFAULT_PORT);
        let uri = format!("https://{}:{port}{path}", destination.host());
        parts.uri = uri.parse().map_err(|_| TransportError::Unresolved(uri))?;
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))
            .map_err(|error| unreachable(&error))?;
        let answer = self.client.execute(request).await.map_err(|error| unreachable(&error))?;
        bounded(answer, limits.answer_bytes_max).await
    }
}

impl Transport for HttpTransport {
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        async move {
            tokio::time::timeout(limits.timeout, self.send(destination, request, limits))
                .await
                .unwrap_or(Err(TransportError::TimedOut(limits.timeout)))
        }
        .boxed()
    }
}

/// Reads an answer as far as it may go.
async fn bounded(
    mut answer: reqwest::Response,
    bytes_max: usize,
) -> Result<http::Response<Bytes>, TransportError> {
    let mut whole = http::Response::new(Bytes::new());
    *whole.status_mut() = answer.status();
    *whole.headers_mut() = answer.headers().clone();
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(TransportError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    *whole.body_mut() = body.freeze();
    Ok(whole)
}

fn unreachable(error: &reqwest::Error) -> TransportError {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    TransportError::Unreachable(cause.unwrap_or_else(|| error.to_string()))
}
