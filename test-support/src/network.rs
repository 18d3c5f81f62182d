//! A network of servers in one process: a request between them is a function call.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use millrace_federation::{
    Transport,
    transport::{ExchangeLimits, TransportError},
};
use parking_lot::Mutex;
use ruma::ServerName;
use tower::ServiceExt;

use crate::world::TestClock;

/// Servers that reach each other, and the links between them that are cut. Clones are the same
/// network.
#[derive(Clone, Default)]
pub struct Network {
    /// The clock of all servers.
    pub clock: TestClock,
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    servers: HashMap<String, Router>,
    cut: HashSet<(String, String)>,
}

impl Network {
    /// Makes a server reachable under its name; one of the same name is replaced.
    pub fn enter(&self, name: &str, router: Router) {
        self.wires.lock().servers.insert(name.to_owned(), router);
    }

    /// Makes a server unreachable: it is down.
    pub fn leave(&self, name: &str) {
        self.wires.lock().servers.remove(name);
    }

    /// Cuts the link between two servers, both ways.
    pub fn cut(&self, one: &str, other: &str) {
        let mut wires = self.wires.lock();
        wires.cut.insert((one.to_owned(), other.to_owned()));
        wires.cut.insert((other.to_owned(), one.to_owned()));
    }

    /// Mends the link between two servers.
    pub fn mend(&self, one: &str, other: &str) {
        let mut wires = self.wires.lock();
        wires.cut.remove(&(one.to_owned(), other.to_owned()));
        wires.cut.remove(&(other.to_owned(), one.to_owned()));
    }

    /// The network as the server of this name uses it.
    #[must_use]
    pub fn transport(&self, name: &str) -> Arc<dyn Transport> {
        Arc::new(Wire { network: self.clone(), from: name.to_owned() })
    }
}

struct Wire {
    network: Network,
    from: String,
}

impl Wire {
    fn router(&self, destination: &ServerName) -> Result<Router, TransportError> {
        let wires = self.network.wires.lock();
        if wires.cut.contains(&(self.from.clone(), destination.to_string())) {
            return Err(TransportError::Unreachable("the link is cut".to_owned()));
        }
        let router = wires.servers.get(destination.as_str()).cloned();
        router.ok_or_else(|| TransportError::Unresolved("there is no such server".to_owned()))
    }
}

impl Wire {
    async fn deliver(
        &self,
        destination: &ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let router = self.router(destination)?;
        let answer = router.oneshot(request.map(Body::from)).await;
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| match error
            .is::<LengthLimitError>()
        {
            true => TransportError::TooLarge(limits.answer_bytes_max),
            false => TransportError::Unreachable(error.to_string()),
        };
        let body = Limited::new(body, limits.answer_bytes_max);
        let body = body.collect().await.map_err(broken)?.to_bytes();
        // The link may have been cut while the other server worked.
        drop(self.router(destination)?);
        Ok(http::Response::from_parts(parts, body))
    }
}

impl Transport for Wire {
    /// A host that is no Matrix server is entered into the network as one that is.
    fn page(
        &self,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        async move {
            let host = request.uri().authority().map(|host| host.as_str().to_owned());
            let host = ruma::OwnedServerName::try_from(host.unwrap_or_default());
            let host = host.map_err(|error| TransportError::Unresolved(error.to_string()))?;
            self.exchange(&host, request, limits).await
        }
        .boxed()
    }

    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        limits: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let timed_out = Err(TransportError::TimedOut(limits.timeout));
        async move {
            let answer = self.deliver(destination, request, limits);
            tokio::time::timeout(limits.timeout, answer).await.unwrap_or(timed_out)
        }
        .boxed()
    }
}
