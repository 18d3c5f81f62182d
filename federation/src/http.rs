//! Requests to other servers over HTTPS, connections kept open and shared.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, future::BoxFuture, stream};
use http::{HeaderValue, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use millrace_domain::{Clock, Random};
use ruma::ServerName;
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use tokio::time::Instant;

use crate::{
    addresses::AddressPolicy,
    connector::{Connector, ConnectorSettings, Purpose},
    internet::Internet,
    transport::{AnswerBody, ExchangeLimits, Transport, TransportError},
    well_known::WellKnown,
};

/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Connections to one server that are kept while nobody uses them (HTTP/2 needs one).
const IDLE_PER_SERVER_MAX: usize = 4;
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How we call ourselves.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("Millrace/", env!("CARGO_PKG_VERSION")));

/// Why no HTTPS client can be made.
#[derive(Debug, thiserror::Error)]
#[error("requests to other servers cannot be made: {0}")]
pub struct HttpSetupError(String);

/// What an HTTPS client needs to know.
pub struct HttpSettings {
    /// The network outside.
    pub internet: Arc<dyn Internet>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Chooses between equal services.
    pub random: Arc<dyn Random>,
    /// Where we may connect to.
    pub addresses: AddressPolicy,
    /// Certificate authorities that are trusted besides the usual ones.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// HTTPS to other servers.
pub struct HttpTransport {
    client: HttpsClient,
    pages: HttpsClient,
    well_known: WellKnown,
}

impl HttpTransport {
    /// A transport without connections.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(settings: HttpSettings) -> Result<Self, HttpSetupError> {
        let tls = Arc::new(client_tls(settings.authorities)?);
        let HttpSettings { internet, clock, random, addresses: policy, .. } = settings;
        let settings = ConnectorSettings { internet, random, policy, tls };
        let pages = HttpsClient::new(Connector::new(Purpose::Page, settings.clone()));
        let client = HttpsClient::new(Connector::new(Purpose::Matrix, settings));
        Ok(Self { client, well_known: WellKnown::new(pages.clone(), clock), pages })
    }

    /// The request with the host that is meant by `destination`.
    async fn addressed(
        &self,
        destination: &ServerName,
        mut request: http::Request<Bytes>,
    ) -> Result<http::Request<Bytes>, TransportError> {
        let delegate = self.well_known.delegate(destination).await;
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = delegate.as_str().parse().ok();
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|_| TransportError::Unresolved(format!("{delegate} is no host")))?;
        Ok(request)
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
            let exchange = async {
                let request = self.addressed(destination, request).await?;
                self.client.exchange(request, limits).await
            };
            tokio::time::timeout(limits.timeout, exchange)
                .await
                .unwrap_or(Err(TransportError::TimedOut(limits.timeout)))
        }
        .boxed()
    }

    fn page(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        async move {
            if request.uri().scheme() != Some(&Scheme::HTTPS) {
                let message = format!("{} is not https", request.uri());
                return Err(TransportError::Unresolved(message));
            }
            self.pages.exchange(request, limits).await
        }
        .boxed()
    }

    fn stream<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<AnswerBody>, TransportError>> {
        async move {
            let addressed = self.addressed(destination, request);
            let request = tokio::time::timeout(limits.timeout, addressed).await;
            let request = request.unwrap_or(Err(TransportError::TimedOut(limits.timeout)))?;
            self.client.stream(request, limits).await
        }
        .boxed()
    }

    fn browse(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'_, Result<http::Response<AnswerBody>, TransportError>> {
        self.pages.stream(request, limits).boxed()
    }
}

/// An HTTPS client that reads bounded answers. The authority of a request's URI is the host that is
/// connected to, that must prove its name, and that is told as `Host`. Clones share connections.
#[derive(Clone)]
pub(crate) struct HttpsClient(Client<Connector, Full<Bytes>>);

impl HttpsClient {
    fn new(connector: Connector) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_SERVER_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX as u32)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .build(connector);
        Self(client)
    }

    /// Sends a request and reads its answer, within limits.
    pub(crate) async fn exchange(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let exchange = async {
            let answer = self.begin(request).await?;
            bounded(answer, limits.answer_bytes_max).await
        };
        tokio::time::timeout(limits.timeout, exchange)
            .await
            .unwrap_or(Err(TransportError::TimedOut(limits.timeout)))
    }

    /// As [`HttpsClient::exchange`], for answers that are not to be in memory as a whole.
    pub(crate) async fn stream(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<AnswerBody>, TransportError> {
        let deadline = Instant::now() + limits.timeout;
        let answer = tokio::time::timeout_at(deadline, self.begin(request)).await;
        let answer = answer.unwrap_or(Err(TransportError::TimedOut(limits.timeout)))?;
        Ok(answer.map(|body| pieces(body, limits, deadline)))
    }

    /// Sends a request and waits for the head of its answer.
    async fn begin(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Incoming>, TransportError> {
        let mut request = request.map(Full::new);
        // Said here, because a port of 443 would be left out.
        let host = request.uri().authority().map(|host| HeaderValue::from_str(host.as_str()));
        if let Some(Ok(host)) = host {
            request.headers_mut().insert(header::HOST, host);
        }
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        self.0.request(request).await.map_err(|error| cause(&error))
    }
}

/// Reads an answer as far as it may go.
async fn bounded(
    answer: http::Response<Incoming>,
    bytes_max: usize,
) -> Result<http::Response<Bytes>, TransportError> {
    let (parts, mut body) = answer.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cause(&error))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if whole.len() + chunk.len() > bytes_max {
            return Err(TransportError::TooLarge(bytes_max));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(http::Response::from_parts(parts, whole.freeze()))
}

/// The content of an answer within limits.
fn pieces(body: Incoming, limits: ExchangeLimits, deadline: Instant) -> AnswerBody {
    let next = move |state: Option<(Incoming, usize)>| async move {
        let (mut body, mut read) = state?;
        loop {
            let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Some((Err(cause(&error)), None)),
                Err(_) => return Some((Err(TransportError::TimedOut(limits.timeout)), None)),
            };
            let Ok(chunk) = frame.into_data() else { continue };
            read += chunk.len();
            if read > limits.answer_bytes_max {
                return Some((Err(TransportError::TooLarge(limits.answer_bytes_max)), None));
            }
            return Some((Ok(chunk), Some((body, read))));
        }
    };
    Box::pin(stream::unfold(Some((body, 0)), next))
}

/// The reason at the bottom of an error: our connector's own, if it was that.
fn cause(error: &(dyn Error + 'static)) -> TransportError {
    let mut deepest = error;
    loop {
        if let Some(ours) = deepest.downcast_ref::<TransportError>() {
            return ours.clone();
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => return TransportError::Unreachable(deepest.to_string()),
        }
    }
}

fn client_tls(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, HttpSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for authority in authorities {
        roots.add(authority).map_err(|error| HttpSetupError(error.to_string()))?;
    }
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpSetupError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

#[cfg(test)]
mod test_servers;
#[cfg(test)]
mod tests;
