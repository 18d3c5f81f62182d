//! Reckoning with moments.

use std::time::Duration;

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// `by` after `time`.
pub(crate) fn later(time: MilliSecondsSinceUnixEpoch, by: Duration) -> MilliSecondsSinceUnixEpoch {
    let by = UInt::try_from(by.as_millis()).unwrap_or(UInt::MAX);
    MilliSecondsSinceUnixEpoch(time.0.saturating_add(by))
}
