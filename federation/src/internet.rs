//! The network outside: names, services, connections. Simulated in tests.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use futures::{FutureExt, future::BoxFuture};
use hickory_resolver::{ResolveError, ResolverBuilder, TokioResolver, proto::rr::rdata::SRV};
use tokio::net::{TcpStream, lookup_host};

/// Where a service is, as DNS says (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The lowest is tried first.
    pub priority: u16,
    /// How often it is tried before others of its priority.
    pub weight: u16,
    /// The host, without a dot at its end. Empty where the service is said not to exist.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Looks up names and connects.
pub trait Internet: Send + Sync + 'static {
    /// The addresses of a host; none where there are none.
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;

    /// The SRV records of a name; none where there are none.
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>>;

    /// Connects.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// The network as the system knows it: its DNS servers and its file of hosts.
pub struct SystemInternet {
    dns: Option<TokioResolver>,
}

impl SystemInternet {
    /// Reads the system's configuration of DNS. Where there is none, names are left to the C
    /// library, and there are no SRV records.
    #[must_use]
    pub fn new() -> Self {
        let dns = TokioResolver::builder_tokio().map(ResolverBuilder::build);
        let dns = dns.inspect_err(|error| {
            tracing::warn!(%error, "no DNS servers are configured; SRV records are not seen");
        });
        Self { dns: dns.ok() }
    }
}

impl Default for SystemInternet {
    fn default() -> Self {
        Self::new()
    }
}

impl Internet for SystemInternet {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        async move {
            let Some(dns) = &self.dns else {
                return Ok(lookup_host((host, 0)).await?.map(|address| address.ip()).collect());
            };
            // With a dot at its end it is not looked for in the system's own domain.
            let host = if host.contains('.') { format!("{host}.") } else { host.to_owned() };
            match dns.lookup_ip(host).await {
                Ok(found) => Ok(found.iter().collect()),
                Err(error) if is_absence(&error) => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<Service>>> {
        async move {
            let Some(dns) = &self.dns else { return Ok(Vec::new()) };
            match dns.srv_lookup(format!("{name}.")).await {
                Ok(found) => Ok(found.iter().map(service).collect()),
                Err(error) if is_absence(&error) => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        .boxed()
    }
}

fn service(record: &SRV) -> Service {
    let host = record.target().to_utf8();
    Service {
        priority: record.priority(),
        weight: record.weight(),
        host: host.trim_end_matches('.').to_owned(),
        port: record.port(),
    }
}

fn is_absence(error: &ResolveError) -> bool {
    error.is_no_records_found() || error.is_nx_domain()
}
