//! Which address a request comes from, for rate limits and the list of devices.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use http::{HeaderMap, request};

/// The address of the client: the connection's, or what a trusted proxy says it forwards for.
/// Unspecified (`0.0.0.0`) where there is no connection, as in tests of single handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl ClientIp {
    /// What a limit counts by. Whoever has one IPv6 address has its whole /64.
    #[must_use]
    pub fn limit_key(self) -> String {
        match self.0.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

/// Reverse proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<IpAddr>);

impl Default for TrustedProxies {
    fn default() -> Self {
        Self(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
    }
}

impl TrustedProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Walks the chain of proxies from our side, up to the first address that is not a proxy's.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded: Vec<&str> = headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        let mut client = peer;
        for hop in forwarded.iter().rev() {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
            if !self.trusts(client) {
                break;
            }
            client = hop;
        }
        client.to_canonical()
    }
}

impl<S> FromRequestParts<S> for ClientIp
where
    S: Send + Sync,
    Arc<TrustedProxies>: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut request::Parts,
        state: &S,
    ) -> Result<Self, Self::Rejection> {
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(Ipv4Addr::UNSPECIFIED.into(), |info| info.0.ip());
        Ok(Self(Arc::<TrustedProxies>::from_ref(state).client(peer, &parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
        TrustedProxies::default().client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(client("127.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(client("203.0.113.1", "198.51.100.7"), "203.0.113.1");
    }

    #[test]
    fn a_client_cannot_choose_its_address_by_sending_the_header() {
        assert_eq!(client("127.0.0.1", "192.0.2.66, 198.51.100.7"), "198.51.100.7");
        assert_eq!(client("127.0.0.1", "192.0.2.66, 198.51.100.7, ::1"), "198.51.100.7");
    }

    #[test]
    fn an_ipv6_client_is_limited_by_its_network() {
        let ip = |text: &str| ClientIp(text.parse().unwrap()).limit_key();
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2:3:4"));
        assert_ne!(ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
