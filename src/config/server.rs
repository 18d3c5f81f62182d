//! Who the server is and where it listens.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};

use super::Problems;

/// The server's name, addresses and proxies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The name in user IDs and room aliases. Empty until configured; cannot change later.
    pub server_name: String,
    /// The file that holds the key that signs events; none to have one kept in the database.
    pub signing_key_path: Option<PathBuf>,
    /// Addresses to listen on.
    pub address: OneOrMany<IpAddr>,
    /// Ports to listen on, at each address. 0 lets the system choose.
    pub port: OneOrMany<u16>,
    /// Reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            server_name: String::new(),
            signing_key_path: None,
            address: OneOrMany::One(Ipv4Addr::LOCALHOST.into()),
            port: OneOrMany::One(8008),
            trusted_proxies: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }
}

impl Server {
    /// The server name, parsed; none if it is absent or malformed.
    #[must_use]
    pub fn name(&self) -> Option<OwnedServerName> {
        self.server_name.as_str().try_into().ok()
    }

    /// Every pair of address and port to listen on.
    pub fn listen_on(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let ports = self.port.as_slice();
        self.address
            .as_slice()
            .iter()
            .flat_map(move |address| ports.iter().map(move |port| SocketAddr::new(*address, *port)))
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        if self.server_name.is_empty() {
            problems.require(false, "server_name", "must be set, for example to \"example.org\"");
        } else {
            let problem = "must be a host name or address, with a port where it has one";
            problems.require(self.name().is_some(), "server_name", problem);
        }
        problems.require(!self.address.as_slice().is_empty(), "address", "must name an address");
        problems.require(!self.port.as_slice().is_empty(), "port", "must name a port");
    }
}

/// A value, or a list of values, as existing configuration files have both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values, one or many.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}
