//! What comes in from other servers.

use std::time::Duration;

use millrace_federation::inbound::{FetchLimits, InboundSettings, QueueLimits};
use serde::{Deserialize, Serialize};

use super::Problems;

/// How much other servers may make us keep, fetch and do: the table `inbound`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// Events that may wait for one room.
    pub queue_events_max: u64,
    /// Bytes of events that may wait for one room.
    pub queue_bytes_max: u64,
    /// Rooms that are worked on at once.
    pub rooms_at_once: usize,
    /// Missing events that are fetched for the sake of one event.
    pub missing_events_max: usize,
    /// Events of a room's state, auth chains included, that are fetched for the sake of one event.
    pub state_events_max: usize,
    /// Largest answer with a room's state, in bytes.
    pub state_bytes_max: usize,
    /// Longest wait for one answer, in seconds.
    pub answer_timeout_s: u64,
    /// Longest time that a request of a client waits for history of other servers, in seconds.
    pub backfill_timeout_s: u64,
}

impl Default for Inbound {
    fn default() -> Self {
        let InboundSettings { queue, fetch, rooms_at_once, backfill_timeout, .. } =
            InboundSettings::default();
        Self {
            queue_events_max: queue.events_max,
            queue_bytes_max: queue.bytes_max,
            rooms_at_once,
            missing_events_max: fetch.missing_events_max,
            state_events_max: fetch.state_events_max,
            state_bytes_max: fetch.state_bytes_max,
            answer_timeout_s: fetch.timeout.as_secs(),
            backfill_timeout_s: backfill_timeout.as_secs(),
        }
    }
}

impl Inbound {
    /// The settings as they are used.
    #[must_use]
    pub fn settings(&self) -> InboundSettings {
        let defaults = InboundSettings::default();
        InboundSettings {
            queue: QueueLimits {
                events_max: self.queue_events_max,
                bytes_max: self.queue_bytes_max,
            },
            fetch: FetchLimits {
                missing_events_max: self.missing_events_max,
                state_events_max: self.state_events_max,
                state_bytes_max: self.state_bytes_max,
                timeout: Duration::from_secs(self.answer_timeout_s),
                ..defaults.fetch
            },
            rooms_at_once: self.rooms_at_once,
            backfill_timeout: Duration::from_secs(self.backfill_timeout_s),
            ..defaults
        }
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let some = self.rooms_at_once > 0;
        problems.require(some, "inbound.rooms_at_once", "must be above 0");
        let fits = self.queue_events_max >= 50;
        problems.require(fits, "inbound.queue_events_max", "must be at least 50");
        let fits = self.queue_bytes_max >= 4 << 20;
        problems.require(fits, "inbound.queue_bytes_max", "must be at least 4194304 (4 MiB)");
        let waits = self.answer_timeout_s > 0;
        problems.require(waits, "inbound.answer_timeout_s", "must be above 0");
    }
}
