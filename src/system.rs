//! The real clock and the real randomness, which everything else takes as a parameter.

use std::time::{SystemTime, UNIX_EPOCH};

use millrace_domain::{Clock, Random};
use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that all others are given")]
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap_or(UInt::MAX))
    }
}

/// A generator seeded by the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the source that all others are given")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}
