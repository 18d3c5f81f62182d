//! Delegation by `/.well-known/matrix/server` (spec: Server-Server API, Resolving server names, step
//! 3): fetched when needed, remembered as long as the answer says, within bounds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{HeaderMap, StatusCode, Uri, header, uri::Scheme};
use lru::LruCache;
use millrace_domain::Clock;
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use serde::Deserialize;

use crate::{
    http::HttpsClient,
    time::later,
    transport::{ExchangeLimits, TransportError},
};

/// Hosts whose answers are remembered.
const HOSTS_KEPT: usize = 10_000;
/// How long an answer is good that does not say.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long it is good at least and at most, whatever it says.
const GOOD_FOR_MIN: Duration = Duration::from_secs(300);
const GOOD_FOR_MAX: Duration = Duration::from_secs(48 * 3600);
/// How long a first failure is remembered; twice as long after each further one.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// How long a failure is remembered at most.
const FAILED_FOR_MAX: Duration = Duration::from_secs(3600);
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Bounds on each exchange.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(10), answer_bytes_max: 50 * 1024 };

/// What a host says about where its Matrix server is.
#[derive(Debug, Clone)]
struct Told {
    delegate: Option<OwnedServerName>,
    until: MilliSecondsSinceUnixEpoch,
    /// How often asking has failed since the last good answer.
    failures: u32,
}

type Lookup = Shared<BoxFuture<'static, Option<OwnedServerName>>>;

/// Finds out to whom servers delegate. Clones share what is known.
#[derive(Clone)]
pub(crate) struct WellKnown(Arc<WellKnownParts>);

struct WellKnownParts {
    pages: HttpsClient,
    clock: Arc<dyn Clock>,
    told: Mutex<LruCache<String, Told>>,
    running: Mutex<HashMap<String, Lookup>>,
}

/// Why there is no delegation.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Answer(&'static str),
}

impl WellKnown {
    pub(crate) fn new(pages: HttpsClient, clock: Arc<dyn Clock>) -> Self {
        let told = Mutex::new(LruCache::new(HOSTS_KEPT.try_into().expect("not zero")));
        Self(Arc::new(WellKnownParts { pages, clock, told, running: Mutex::default() }))
    }

    /// The server that is meant by `server`: whom its host delegates to, else itself. Names with a
    /// port and IP literals never delegate.
    pub(crate) async fn delegate(&self, server: &ServerName) -> OwnedServerName {
        if server.port().is_some() || server.is_ip_literal() {
            return server.to_owned();
        }
        let host = server.host();
        let now = self.0.clock.now();
        let told = self.0.told.lock().get(host).cloned();
        let delegate = match told {
            Some(told) if told.until > now => told.delegate,
            _ => self.lookup(host).await,
        };
        delegate.unwrap_or_else(|| server.to_owned())
    }

    /// The look-up that runs for this host, or a new one.
    fn lookup(&self, host: &str) -> Lookup {
        let mut running = self.0.running.lock();
        if let Some(lookup) = running.get(host) {
            return lookup.clone();
        }
        let (known, name) = (self.clone(), host.to_owned());
        let task = tokio::spawn(async move {
            let fetched = known.fetch(&name).await;
            let delegate = known.keep(&name, fetched);
            known.0.running.lock().remove(&name);
            delegate
        });
        let lookup = task.map(|delegate| delegate.ok().flatten()).boxed().shared();
        running.insert(host.to_owned(), lookup.clone());
        lookup
    }

    fn keep(
        &self,
        host: &str,
        fetched: Result<(OwnedServerName, Duration), Failure>,
    ) -> Option<OwnedServerName> {
        let now = self.0.clock.now();
        let mut told = self.0.told.lock();
        let before = told.get(host).cloned();
        let kept = match fetched {
            Ok((delegate, good_for)) => {
                Told { delegate: Some(delegate), until: later(now, good_for), failures: 0 }
            }
            Err(failure) => {
                tracing::debug!(host, %failure, "no delegation");
                let failures = before.as_ref().map_or(0, |told| told.failures);
                let pause = FAILED_FOR.saturating_mul(1 << failures.min(10)).min(FAILED_FOR_MAX);
                // Whoever delegated and cannot be reached for a moment has not moved.
                let unreachable = matches!(failure, Failure::Transport(_)) && failures < 3;
                let delegate = before.filter(|_| unreachable).and_then(|told: Told| told.delegate);
                Told { delegate, until: later(now, pause), failures: failures + 1 }
            }
        };
        told.put(host.to_owned(), kept.clone());
        kept.delegate
    }

    async fn fetch(&self, host: &str) -> Result<(OwnedServerName, Duration), Failure> {
        let mut uri: Uri = format!("https://{host}/.well-known/matrix/server")
            .parse()
            .map_err(|_| Failure::Answer("the name makes no URI"))?;
        for _ in 0..=REDIRECTS_MAX {
            let request = http::Request::get(uri.clone()).body(Bytes::new());
            let request = request.map_err(|_| Failure::Answer("the name makes no URI"))?;
            let answer = self.0.pages.exchange(request, LIMITS).await?;
            if answer.status().is_redirection() {
                uri = target(&uri, answer.headers()).ok_or(Failure::Answer("a bad redirect"))?;
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(Failure::Answer("the status is not 200"));
            }
            let good_for = good_for(answer.headers());
            return Ok((read(answer.body())?, good_for));
        }
        Err(Failure::Answer("too many redirects"))
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

fn read(body: &[u8]) -> Result<OwnedServerName, Failure> {
    let body: Body =
        serde_json::from_slice(body).map_err(|_| Failure::Answer("it is not of the right form"))?;
    Ok(body.server)
}

/// Where a redirect leads, if that is a page over HTTPS.
fn target(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location: Uri = headers.get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
    let mut parts = location.into_parts();
    if parts.authority.is_none() {
        parts.authority = from.authority().cloned();
        parts.scheme = from.scheme().cloned();
    }
    if parts.path_and_query.as_ref().is_none_or(|path| path.as_str().is_empty()) {
        parts.path_and_query = Some("/".parse().ok()?);
    }
    if parts.scheme != Some(Scheme::HTTPS) {
        return None;
    }
    Uri::from_parts(parts).ok()
}

/// How long an answer is good, as its headers say.
pub(crate) fn good_for(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let said = text(header::CACHE_CONTROL).and_then(|control| {
        control.split(',').map(str::trim).find_map(|directive| {
            let directive = directive.to_ascii_lowercase();
            if matches!(directive.as_str(), "no-store" | "no-cache") {
                return Some(Duration::ZERO);
            }
            let seconds = directive.strip_prefix("max-age=")?;
            Some(Duration::from_secs(seconds.trim_matches('"').parse().ok()?))
        })
    });
    let said = said.or_else(|| {
        let expires = httpdate::parse_http_date(text(header::EXPIRES)?).ok()?;
        // The server's own clock goes with it; without one, nothing can be said.
        let sent = httpdate::parse_http_date(text(header::DATE)?).ok()?;
        Some(expires.duration_since(sent).unwrap_or_default())
    });
    said.unwrap_or(GOOD_FOR).clamp(GOOD_FOR_MIN, GOOD_FOR_MAX)
}
