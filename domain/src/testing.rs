//! A world for tests: a memory engine, a clock that is told the time, seeded randomness.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millrace_model::rules::{room_version, signing_key::ServerSigningKey};
use millrace_store::{Limits, Store, engine::MemoryEngine};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, UInt, owned_server_name};

use crate::{Clock, Env, Identity, Random, rooms::Rooms};

/// A clock that stands still until it is set on.
#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    /// Sets the clock on.
    pub fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let now = 1_700_000_000_000 + self.0.load(Ordering::Relaxed);
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(now))
    }
}

/// Random bytes that are the same in each run.
#[derive(Debug, Default)]
pub struct TestRandom(AtomicU64);

impl Random for TestRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = ((n ^ (n >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
        }
    }
}

/// A world on an engine that may already hold something.
pub async fn env_on(engine: MemoryEngine) -> (Env, Arc<TestClock>) {
    env_of(owned_server_name!("test.example"), engine).await
}

/// As [`env_on`], of a server with any name.
pub async fn env_of(name: OwnedServerName, engine: MemoryEngine) -> (Env, Arc<TestClock>) {
    let store = Store::open(Arc::new(engine), &name, Limits::default()).await.unwrap();
    let clock = Arc::new(TestClock::default());
    let key = ServerSigningKey::new("test", &[7; 32]).unwrap();
    let identity = Arc::new(Identity { name, key });
    let random = Arc::new(TestRandom::default());
    (Env { store, clock: clock.clone(), random, identity, rules: room_version::rules }, clock)
}

/// An empty world.
pub async fn env() -> Env {
    env_on(MemoryEngine::new()).await.0
}

/// The rooms of an empty world.
pub async fn rooms() -> Rooms {
    Rooms::open(env().await, crate::rooms::CacheSizes::default()).await.unwrap()
}
