//! A clock that only tests move, and randomness that repeats.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millrace_domain::{Clock, Random};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Where test clocks start: 2026-01-01, in milliseconds since 1970.
const START_MS: u64 = 1_767_225_600_000;

/// A clock that stands still until it is advanced. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(START_MS)))
    }
}

impl TestClock {
    /// Moves the clock forward.
    ///
    /// # Panics
    /// After some hundred million years.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("tests do not last that long");
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let ms = UInt::try_from(self.0.load(Ordering::SeqCst)).unwrap_or(UInt::MAX);
        MilliSecondsSinceUnixEpoch(ms)
    }
}

/// Random bytes that are the same in every run.
#[derive(Debug)]
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}
