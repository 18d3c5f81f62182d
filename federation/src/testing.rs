//! A world for tests: a server whose peers are closures, a clock that is told the time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use millrace_domain::{
    Clock, Env, Identity, Random,
    rooms::{CacheSizes, Rooms},
};
use millrace_model::rules::{room_version, signing_key::ServerSigningKey};
use millrace_store::{Limits, Store, engine::MemoryEngine};
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, ServerName, UInt, server_name};
use serde_json::{Value, json};

use crate::{
    Federation, Settings, Transport,
    transport::{ExchangeLimits, TransportError},
};

/// When tests begin, in milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_700_000_000_000;
/// A day in milliseconds.
pub(crate) const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(START_MS + self.0.load(Ordering::SeqCst)))
    }
}

#[derive(Debug)]
pub(crate) struct TestRandom;

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

type Answer = Box<dyn Fn(&http::Request<Bytes>) -> http::Response<Bytes> + Send + Sync>;

/// Other servers: what each answers, and who was asked for what.
#[derive(Default)]
pub(crate) struct TestPeers {
    answers: Mutex<HashMap<String, Answer>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl TestPeers {
    /// From now on `server` answers so.
    pub(crate) fn answer(
        &self,
        server: &str,
        answer: impl Fn(&http::Request<Bytes>) -> Value + Send + Sync + 'static,
    ) {
        let ok = move |request: &_| http::Response::new(answer(request).to_string().into());
        self.answer_with(server, ok);
    }

    /// From now on `server` answers so, whatever the status.
    pub(crate) fn answer_with(
        &self,
        server: &str,
        answer: impl Fn(&http::Request<Bytes>) -> http::Response<Bytes> + Send + Sync + 'static,
    ) {
        self.answers.lock().insert(server.to_owned(), Box::new(answer));
    }

    pub(crate) fn leave(&self, server: &str) {
        self.answers.lock().remove(server);
    }

    /// How many requests came to `server`.
    pub(crate) fn asked(&self, server: &str) -> usize {
        self.asked.lock().iter().filter(|asked| asked.as_str() == server).count()
    }
}

impl Transport for TestPeers {
    fn exchange<'a>(
        &'a self,
        destination: &'a ServerName,
        request: http::Request<Bytes>,
        _: ExchangeLimits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        async move {
            self.asked.lock().push(destination.to_string());
            tokio::task::yield_now().await;
            let answers = self.answers.lock();
            let answer = answers.get(destination.as_str());
            let answer = answer.ok_or_else(|| TransportError::Unreachable("down".to_owned()))?;
            Ok(answer(&request))
        }
        .boxed()
    }
}

/// A server, `us`, that asks `peers`.
pub(crate) struct World {
    pub(crate) federation: Federation,
    pub(crate) peers: Arc<TestPeers>,
    pub(crate) clock: Arc<TestClock>,
    engine: MemoryEngine,
    settings: Settings,
}

impl World {
    pub(crate) async fn new(settings: Settings) -> Self {
        Self::on(MemoryEngine::new(), settings, Arc::default(), Arc::default()).await
    }

    async fn on(
        engine: MemoryEngine,
        settings: Settings,
        peers: Arc<TestPeers>,
        clock: Arc<TestClock>,
    ) -> Self {
        let name = server_name!("us").to_owned();
        let engine_handle = Arc::new(engine.clone());
        let store = Store::open(engine_handle, &name, Limits::default()).await.unwrap();
        let identity = Arc::new(Identity { name, key: key("us") });
        let random = Arc::new(TestRandom);
        let env = Env { store, clock: clock.clone(), random, identity, rules: room_version::rules };
        let rooms = Rooms::open(env, CacheSizes::default()).await.unwrap();
        let federation = Federation::open(rooms, peers.clone(), settings.clone()).await.unwrap();
        Self { federation, peers, clock, engine, settings }
    }

    /// The same server, started again.
    pub(crate) async fn restarted(self) -> Self {
        self.federation.env.store.close().await;
        Self::on(self.engine, self.settings, self.peers, self.clock).await
    }

    /// Lets `server` publish [`key`], valid for a day.
    pub(crate) fn publish(&self, server: &'static str) {
        let published = published(server, &key(server), START_MS + DAY_MS);
        self.peers.answer(server, move |_| published.clone());
    }
}

/// The signing key of a server in tests.
pub(crate) fn key(server: &str) -> ServerSigningKey {
    let mut seed = [0; 32];
    for (byte, from) in seed.iter_mut().zip(server.bytes()) {
        *byte = from;
    }
    ServerSigningKey::new("k", &seed).unwrap()
}

/// What a server publishes of `key`.
pub(crate) fn published(server: &str, key: &ServerSigningKey, until_ms: u64) -> Value {
    signed(
        server,
        key,
        json!({
            "server_name": server, "valid_until_ts": until_ms, "old_verify_keys": {},
            "verify_keys": { key.key_id().as_str(): { "key": key.public_base64() } },
        }),
    )
}

/// `object` with the signature of a server.
pub(crate) fn signed(server: &str, key: &ServerSigningKey, object: Value) -> Value {
    let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
    key.sign_json(server.try_into().unwrap(), &mut object).unwrap();
    serde_json::to_value(object).unwrap()
}
