//! Connections to other servers: where a host is, whether we may go there, and that it is who it
//! says (spec: Server-Server API, Resolving server names, all but `.well-known`; TLS).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use millrace_domain::Random;
use rustls::{ClientConfig, pki_types};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service as TowerService;

use crate::{
    addresses::AddressPolicy,
    internet::{Internet, Service},
    transport::TransportError,
};

/// The port of a server whose name says none, and for which DNS says none.
const MATRIX_PORT: u16 = 8448;
/// The port of HTTPS.
const HTTPS_PORT: u16 = 443;
/// The port of HTTP.
const HTTP_PORT: u16 = 80;
/// How long one address may take to answer, and TLS to be agreed upon.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 6;

/// What a connection is for, which decides where a host without a port is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The server-server API: by SRV records, else port 8448.
    Matrix,
    /// Any page: port 443, or 80 where it is asked for without TLS.
    Page,
}

/// Connects to the authority of a URI, with TLS unless it is a page of plain HTTP. Clones are the
/// same.
#[derive(Clone)]
pub(crate) struct Connector(Arc<ConnectorParts>);

struct ConnectorParts {
    purpose: Purpose,
    internet: Arc<dyn Internet>,
    random: Arc<dyn Random>,
    policy: AddressPolicy,
    tls: TlsConnector,
}

/// What connectors of every purpose share.
#[derive(Clone)]
pub(crate) struct ConnectorSettings {
    pub internet: Arc<dyn Internet>,
    pub random: Arc<dyn Random>,
    pub policy: AddressPolicy,
    pub tls: Arc<ClientConfig>,
}

impl Connector {
    pub(crate) fn new(purpose: Purpose, settings: ConnectorSettings) -> Self {
        let ConnectorSettings { internet, random, policy, tls } = settings;
        Self(Arc::new(ConnectorParts { purpose, internet, random, policy, tls: tls.into() }))
    }

    async fn connect(&self, uri: &Uri) -> Result<HttpConnection, TransportError> {
        let plain = uri.scheme() == Some(&Scheme::HTTP) && self.0.purpose == Purpose::Page;
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = pki_types::ServerName::try_from(host.to_owned())
            .map_err(|_| TransportError::Unresolved(format!("{host} is no name of a host")))?;
        let port = uri.port_u16().or_else(|| plain.then_some(HTTP_PORT));
        let addresses = self.resolve(host, port).await?;
        let name = (!plain).then_some(name);
        let mut last = None;
        for address in addresses {
            match tokio::time::timeout(ADDRESS_TIMEOUT, self.open(address, name.clone())).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(format!("{address}: {error}")),
                Err(_) => last = Some(format!("{address}: no answer")),
            }
        }
        Err(TransportError::Unreachable(last.unwrap_or_default()))
    }

    async fn open(
        &self,
        address: SocketAddr,
        name: Option<pki_types::ServerName<'static>>,
    ) -> io::Result<HttpConnection> {
        let stream = self.0.internet.connect(address).await?;
        let Some(name) = name else { return Ok(HttpConnection::Plain(TokioIo::new(stream))) };
        let stream = self.0.tls.connect(name, stream).await?;
        Ok(HttpConnection::Tls(Box::new(TokioIo::new(stream))))
    }

    /// Where a host is, in the order to try: at least one address, all of them allowed.
    async fn resolve(
        &self,
        host: &str,
        port: Option<u16>,
    ) -> Result<Vec<SocketAddr>, TransportError> {
        let default = match self.0.purpose {
            Purpose::Matrix => MATRIX_PORT,
            Purpose::Page => HTTPS_PORT,
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            let address = SocketAddr::new(address, port.unwrap_or(default));
            return self.allowed(host, vec![address]);
        }
        if port.is_none()
            && self.0.purpose == Purpose::Matrix
            && let Some(services) = self.services(host).await
        {
            return self.addresses_of_services(host, services).await;
        }
        let port = port.unwrap_or(default);
        let found = self.0.internet.addresses(host).await;
        let found = found.map_err(|error| TransportError::Unresolved(error.to_string()))?;
        let found = found.into_iter().map(|address| SocketAddr::new(address, port));
        self.allowed(host, found.collect())
    }

    /// SRV records of the present name of the service, else of its former one; `None` where there
    /// are none. A DNS server that fails to answer is taken for one that has none.
    async fn services(&self, host: &str) -> Option<Vec<Service>> {
        for service in ["_matrix-fed", "_matrix"] {
            match self.0.internet.services(&format!("{service}._tcp.{host}")).await {
                Ok(services) if !services.is_empty() => return Some(services),
                Ok(_) => {}
                Err(error) => tracing::debug!(host, %error, "SRV records cannot be looked up"),
            }
        }
        None
    }

    async fn addresses_of_services(
        &self,
        host: &str,
        services: Vec<Service>,
    ) -> Result<Vec<SocketAddr>, TransportError> {
        let mut found = Vec::new();
        let mut reason = "its SRV records say that it does not exist".to_owned();
        for service in self.in_order(services).into_iter().take(ADDRESSES_MAX) {
            if service.host.is_empty() {
                continue;
            }
            match self.0.internet.addresses(&service.host).await {
                Ok(addresses) => found.extend(
                    addresses.into_iter().map(|address| SocketAddr::new(address, service.port)),
                ),
                Err(error) => reason = error.to_string(),
            }
        }
        if found.is_empty() {
            return Err(TransportError::Unresolved(reason));
        }
        self.allowed(host, found)
    }

    /// By priority; those of the same priority by chance, as their weights say.
    fn in_order(&self, mut services: Vec<Service>) -> Vec<Service> {
        let mut ordered = Vec::with_capacity(services.len());
        while !services.is_empty() {
            let lowest = services.iter().map(|service| service.priority).min().unwrap_or_default();
            // A weight of 0 still has a small chance.
            let weight = |service: &Service| {
                if service.priority == lowest { u64::from(service.weight) * 100 + 1 } else { 0 }
            };
            let sum: u64 = services.iter().map(weight).sum();
            let mut chance = [0; 8];
            self.0.random.fill(&mut chance);
            let mut place = u64::from_le_bytes(chance) % sum.max(1);
            let drawn = services.iter().position(|service| {
                let weight = weight(service);
                let found = place < weight;
                place = place.saturating_sub(weight);
                found
            });
            ordered.push(services.swap_remove(drawn.unwrap_or_default()));
        }
        ordered
    }

    fn allowed(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, TransportError> {
        let first = addresses.first().copied();
        let allowed: Vec<_> = addresses
            .into_iter()
            .filter(|address| self.0.policy.allows(address.ip()))
            .take(ADDRESSES_MAX)
            .collect();
        if allowed.is_empty() {
            let reason = first.map_or_else(
                || format!("{host} has no address"),
                |address| format!("{} is not an address to connect to", address.ip()),
            );
            return Err(TransportError::Unresolved(reason));
        }
        Ok(allowed)
    }
}

impl TowerService<Uri> for Connector {
    type Response = HttpConnection;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<HttpConnection, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        async move { connector.connect(&uri).await }.boxed()
    }
}

/// A connection that is ready for a request.
pub(crate) enum HttpConnection {
    /// TLS was agreed upon.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    /// Nothing is hidden, and nobody has proved a name.
    Plain(TokioIo<TcpStream>),
}

impl Connection for HttpConnection {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) | Self::Plain(_) => Connected::new(),
        }
    }
}

impl Read for HttpConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for HttpConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
