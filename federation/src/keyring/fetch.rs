//! Asking for keys: their server, or notaries. Whoever waits for the same server shares one request;
//! a server that did not answer is not asked again at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use lru::LruCache;
use millrace_domain::Env;
use millrace_store::{
    Node, Read,
    rows::federation::ServerKeys,
    tables::{SERVER_KEYS, SERVER_KEYS_PUBLISHED},
};
use parking_lot::Mutex;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName,
    api::federation::discovery::{
        get_remote_server_keys_batch::v2 as get_batch, get_server_keys::v2 as get_keys,
    },
};
use tokio::sync::Semaphore;

use super::{
    Known, WantedKeys,
    published::{Published, Source},
};
use crate::{
    peers::{PeerError, Peers},
    time::later,
    transport::ExchangeLimits,
};

/// Servers that are asked at once, by all who wait.
const REQUESTS_AT_ONCE: usize = 200;
/// Servers in one question to a notary.
const BATCH_SERVERS_MAX: usize = 100;
/// Failures that are remembered.
const FAILURES_KEPT: usize = 10_000;
/// How long a server is left alone after a failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// How long it is left alone at most. Short: a server that is back and asks us something is to be
/// believed soon.
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// How long an answer is good enough although it lacks a key that is wanted, or is not valid for as
/// long as is wanted: a hostile server may name any key.
const ANSWER_GOOD_FOR: Duration = Duration::from_secs(60);
/// Bounds on asking a server for its keys.
const LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(15), answer_bytes_max: 64 * 1024 };
/// Bounds on asking a notary for the keys of many.
const NOTARY_LIMITS: ExchangeLimits =
    ExchangeLimits { timeout: Duration::from_secs(20), answer_bytes_max: 8 << 20 };

type Fetch = Shared<BoxFuture<'static, Option<Arc<ServerKeys>>>>;

/// Fetches keys. Clones are the same.
#[derive(Clone)]
pub(super) struct Fetcher(Arc<FetcherParts>);

struct FetcherParts {
    env: Env,
    peers: Peers,
    notaries: Vec<OwnedServerName>,
    known: Known,
    running: Mutex<HashMap<OwnedServerName, Fetch>>,
    failures: Mutex<LruCache<OwnedServerName, Failure>>,
    free: Semaphore,
}

/// That a server did not tell its keys.
#[derive(Debug, Clone, Copy)]
struct Failure {
    count: u32,
    again_at: MilliSecondsSinceUnixEpoch,
}

impl Fetcher {
    pub(super) fn new(
        env: Env,
        peers: Peers,
        notaries: Vec<OwnedServerName>,
        known: Known,
    ) -> Self {
        let kept = FAILURES_KEPT.try_into().expect("not zero");
        let notaries = notaries.into_iter().filter(|notary| *notary != env.identity.name).collect();
        // Whoever signs must be known; failures have their own, shorter pauses here.
        let peers = peers.insisting();
        Self(Arc::new(FetcherParts {
            env,
            peers,
            notaries,
            known,
            running: Mutex::default(),
            failures: Mutex::new(LruCache::new(kept)),
            free: Semaphore::new(REQUESTS_AT_ONCE),
        }))
    }

    /// Asks `server` for its keys, or the notaries where it does not answer; `known` are those that
    /// do not suffice. `None` where nobody can be asked now.
    pub(super) async fn fetch(
        &self,
        server: &ServerName,
        known: Option<&ServerKeys>,
    ) -> Option<Arc<ServerKeys>> {
        let now = self.0.env.now();
        if known.is_some_and(|known| later(known.fetched, ANSWER_GOOD_FOR) > now)
            || self.is_paused(server)
        {
            return None;
        }
        self.shared(server).await
    }

    /// Asks for the keys again, in the background, when half of the time is over for which they
    /// are valid.
    pub(super) fn refresh_if_due(&self, server: &ServerName, known: &ServerKeys) {
        let (from, until) = (u64::from(known.fetched.0), u64::from(known.valid_until.0));
        let half = from + until.saturating_sub(from) / 2;
        let now = u64::from(self.0.env.now().0);
        let good = u64::from(later(known.fetched, ANSWER_GOOD_FOR).0);
        if now > half && now >= good && !self.is_paused(server) {
            drop(self.shared(server));
        }
    }

    /// The request that runs for this server, or a new one. It goes on when nobody waits.
    fn shared(&self, server: &ServerName) -> Fetch {
        let mut running = self.0.running.lock();
        if let Some(fetch) = running.get(server) {
            return fetch.clone();
        }
        let (fetcher, name) = (self.clone(), server.to_owned());
        let task = tokio::spawn(async move {
            let fetched = fetcher.ask(&name).await;
            fetcher.0.running.lock().remove(&name);
            fetched
        });
        let fetch = task.map(|fetched| fetched.ok().flatten()).boxed().shared();
        running.insert(server.to_owned(), fetch.clone());
        fetch
    }

    async fn ask(&self, server: &ServerName) -> Option<Arc<ServerKeys>> {
        let _permit = self.0.free.acquire().await.ok()?;
        let reason = match self.ask_itself(server).await {
            Ok(published) => {
                self.0.failures.lock().pop(server);
                let kept = self.keep(vec![published], Source::Server).await;
                return kept.into_iter().next().map(|(_, keys)| keys);
            }
            Err(reason) => reason,
        };
        self.failed(server);
        let mut wanted = WantedKeys::default();
        wanted.0.insert(server.to_owned(), BTreeMap::new());
        let told = self.ask_notaries(&[server.to_owned()], &wanted).await;
        let told = told.into_iter().next().map(|(_, keys)| keys);
        tracing::info!(%server, reason, notary_knows = told.is_some(), "keys cannot be fetched");
        told
    }

    async fn ask_itself(&self, server: &ServerName) -> Result<Published, String> {
        let answer = self.0.peers.ask_unsigned(server, get_keys::Request::new(), LIMITS).await;
        let answer = answer.map_err(|error| error.to_string())?;
        Published::read(answer.server_key.json().get(), server, self.0.env.now())
    }

    /// What the notaries know of the keys of `servers`, asking one after the other for what is
    /// still lacking.
    pub(super) async fn ask_notaries(
        &self,
        servers: &[OwnedServerName],
        wanted: &WantedKeys,
    ) -> HashMap<OwnedServerName, Arc<ServerKeys>> {
        let mut found = HashMap::new();
        for notary in &self.0.notaries {
            let lacking: Vec<_> = servers
                .iter()
                .filter(|server| !found.contains_key(*server) && *server != notary)
                .collect();
            for batch in lacking.chunks(BATCH_SERVERS_MAX) {
                match self.ask_notary(notary, batch, wanted).await {
                    Ok(told) => found.extend(self.keep(told, Source::Notary).await),
                    Err(error) => {
                        tracing::info!(%notary, %error, "a notary cannot be asked for keys");
                        break;
                    }
                }
            }
        }
        found
    }

    async fn ask_notary(
        &self,
        notary: &ServerName,
        servers: &[&OwnedServerName],
        wanted: &WantedKeys,
    ) -> Result<Vec<Published>, PeerError> {
        let now = self.0.env.now();
        let criteria = |at: MilliSecondsSinceUnixEpoch| {
            let mut criteria = get_batch::QueryCriteria::new();
            criteria.minimum_valid_until_ts = Some(at.min(now));
            criteria
        };
        let question = servers.iter().map(|server| {
            let keys = wanted.0.get(*server).into_iter().flatten();
            let keys = keys.map(|(key, at)| (key.clone(), criteria(*at))).collect();
            ((*server).clone(), keys)
        });
        let request = get_batch::Request::new(question.collect());
        let answer = self.0.peers.ask_unsigned(notary, request, NOTARY_LIMITS).await?;
        let mut told = Vec::new();
        for raw in answer.server_keys.iter().take(4 * BATCH_SERVERS_MAX) {
            let Ok(Some(name)) = raw.get_field::<OwnedServerName>("server_name") else { continue };
            if !servers.iter().any(|server| **server == name) {
                continue;
            }
            match Published::read(raw.json().get(), &name, now) {
                Ok(published) => told.push(published),
                Err(reason) => tracing::info!(%notary, server = %name, reason, "a notary's word"),
            }
        }
        Ok(told)
    }

    /// Adds what was published to what is known, in memory and in the database.
    async fn keep(
        &self,
        published: Vec<Published>,
        source: Source,
    ) -> HashMap<OwnedServerName, Arc<ServerKeys>> {
        let now = self.0.env.now();
        let published = &published;
        let stored = self.0.env.store.transact(|tx| {
            async move {
                let mut rows = HashMap::new();
                for said in published {
                    let known = tx.get(&SERVER_KEYS, Node, &said.server).await?;
                    let row = said.added_to(known.as_ref(), source, now);
                    tx.put(&SERVER_KEYS, Node, &said.server, &row);
                    tx.put(&SERVER_KEYS_PUBLISHED, Node, &said.server, &said.text);
                    rows.insert(said.server.clone(), Arc::new(row));
                }
                Ok::<_, millrace_store::Error>(rows)
            }
            .boxed()
        });
        let rows = stored.await.unwrap_or_else(|error| {
            tracing::error!(%error, "keys of servers cannot be kept");
            let rows = published
                .iter()
                .map(|said| (said.server.clone(), Arc::new(said.added_to(None, source, now))));
            rows.collect()
        });
        for (server, keys) in &rows {
            self.0.known.keep(server.clone(), Arc::clone(keys));
        }
        rows
    }

    fn is_paused(&self, server: &ServerName) -> bool {
        let now = self.0.env.now();
        self.0.failures.lock().get(server).is_some_and(|failure| failure.again_at > now)
    }

    fn failed(&self, server: &ServerName) {
        let mut failures = self.0.failures.lock();
        let count = failures.get(server).map_or(0, |failure| failure.count);
        let pause = FIRST_PAUSE.saturating_mul(1 << count.min(16)).min(PAUSE_MAX);
        let again_at = later(self.0.env.now(), pause);
        failures.put(server.to_owned(), Failure { count: count + 1, again_at });
    }
}
