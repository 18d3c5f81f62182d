//! The time of day. Durations are measured by tokio's clock, which tests may stop.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch, as tokens state them.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
