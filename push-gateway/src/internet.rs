//! Connections to vendors: TLS, proxy, and which addresses we connect to on the word of devices.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::config::Config;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is not used is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// How often a connection is asked whether it is alive, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// What cannot be connected to, or with.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of certificates or keys.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// TLS or the HTTP client.
    #[error("connections cannot be made: {0}")]
    Client(String),
}

/// A certificate of ours, and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// How a vendor is spoken to.
#[derive(Default)]
pub struct Manner {
    /// HTTP/2 on one connection, and nothing else.
    pub http2_only: bool,
    /// The certificate that we show.
    pub identity: Option<Identity>,
    /// Whether addresses come from devices, so that only public ones are connected to.
    pub public_only: bool,
}

impl Identity {
    /// Reads a certificate with its chain and its key, all in one file (PEM).
    ///
    /// # Errors
    /// Where one of them is missing.
    pub fn from_file(path: &std::path::Path) -> Result<Self, SetupError> {
        let wrong = |problem: String| SetupError::File { path: path.to_owned(), problem };
        let chain = certificates(path)?;
        let key = PrivateKeyDer::from_pem_file(path)
            .map_err(|error| wrong(format!("holds no private key (PEM): {error}")))?;
        Ok(Self { chain, key })
    }
}

/// A client that speaks so, with the proxy and authorities of the configuration.
///
/// # Errors
/// Where a file is missing or TLS cannot be set up.
pub fn client(config: &Config, manner: Manner) -> Result<reqwest::Client, SetupError> {
    let failed = |error: &dyn std::error::Error| SetupError::Client(error.to_string());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for file in &config.ca_certificates {
        for authority in certificates(file)? {
            roots.add(authority).map_err(|error| failed(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots);
    let mut tls = match manner.identity {
        Some(Identity { chain, key }) => {
            tls.with_client_auth_cert(chain, key).map_err(|error| failed(&error))?
        }
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    if !manner.http2_only {
        tls.alpn_protocols.push(b"http/1.1".to_vec());
    }
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(config.request_timeout())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_keep_alive_interval(PING.0)
        .http2_keep_alive_timeout(PING.1)
        .http2_keep_alive_while_idle(true)
        .user_agent(concat!("Millrace-push-gateway/", env!("CARGO_PKG_VERSION")));
    if manner.http2_only {
        builder = builder.http2_prior_knowledge();
    }
    if manner.public_only {
        builder = builder.dns_resolver(PublicOnly(Arc::new(config.allowed_addresses.clone())));
    }
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|error| failed(&error))?);
    }
    builder.build().map_err(|error| failed(&error))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let wrong = |problem: String| SetupError::File { path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate (PEM)".to_owned()));
    }
    Ok(found)
}

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    prefix: u32,
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("{text} is no address or range such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let first: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| invalid())?;
        if prefix > bits { Err(invalid()) } else { Ok(Self { first, prefix }) }
    }
}

impl AddressRange {
    fn contains(&self, address: IpAddr) -> bool {
        let (first, address, unused) = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (u128::from(u32::from(first)), u128::from(u32::from(address)), 32 - self.prefix)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                (u128::from(first), u128::from(address), 128 - self.prefix)
            }
            _ => return false,
        };
        self.prefix == 0 || (first ^ address) >> unused == 0
    }
}

/// Ranges that are not of the public internet (IANA's registries of special-purpose addresses).
const NOT_PUBLIC: [&str; 25] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Whether we connect to an address that a device named: it is public, or among `allowed`.
#[must_use]
pub fn may_connect(address: IpAddr, allowed: &[AddressRange]) -> bool {
    let address = address.to_canonical();
    let private = NOT_PUBLIC
        .iter()
        .any(|range| range.parse::<AddressRange>().is_ok_and(|range| range.contains(address)));
    !private || allowed.iter().any(|range| range.contains(address))
}

/// A name stands for no address that we connect to.
#[derive(Debug, thiserror::Error)]
#[error("its endpoint has no public address")]
pub struct NotPublic;

/// Names are resolved as the system does, to addresses that we connect to.
struct PublicOnly(Arc<Vec<AddressRange>>);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await?
                .filter(|address| may_connect(address.ip(), &allowed))
                .collect();
            if found.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_connected_to_unless_allowed() {
        let allowed = ["192.168.7.0/24".parse().unwrap()];
        for (address, expected) in [
            ("1.1.1.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::ffff:10.0.0.1", false),
            ("2606:4700::1111", true),
            ("fd00::1", false),
            ("192.168.7.9", true),
            ("192.168.8.9", false),
        ] {
            assert_eq!(may_connect(address.parse().unwrap(), &allowed), expected, "{address}");
        }
    }
}
