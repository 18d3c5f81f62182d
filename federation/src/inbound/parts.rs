//! What comes in from other servers.

use std::{sync::Arc, time::Duration};

use millrace_domain::{
    Env, deliveries::Deliveries, presence::Presence, rooms::Rooms, typing::Typing,
};
use tokio::sync::{Notify, Semaphore};

use super::{backfill::Gaps, late::LateReceipts, schedule::Schedule, serving, vain::Vain};
use crate::Federation;

/// How much may wait for one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Events.
    pub events_max: u64,
    /// Bytes of them.
    pub bytes_max: u64,
}

/// How much is fetched from other servers for the sake of one event that they sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// Events between what we have and the event.
    pub missing_events_max: usize,
    /// Events of the state before it, with their auth chains.
    pub state_events_max: usize,
    /// Largest answer with a whole state, in bytes.
    pub state_bytes_max: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Events that are asked for at once, one by one.
    pub at_once: usize,
}

/// What administrators decide about what comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundSettings {
    /// How much may wait for one room.
    pub queue: QueueLimits,
    /// How much is fetched for one event.
    pub fetch: FetchLimits,
    /// Rooms that are worked on at once, those that wait for other servers included.
    pub rooms_at_once: usize,
    /// Longest time that a client's request waits for history of other servers.
    pub backfill_timeout: Duration,
    /// How long a user of another server is shown as typing.
    pub typing_timeout: Duration,
}

impl Default for InboundSettings {
    fn default() -> Self {
        Self {
            queue: QueueLimits { events_max: 10_000, bytes_max: 64 << 20 },
            fetch: FetchLimits {
                missing_events_max: 500,
                state_events_max: 200_000,
                state_bytes_max: 128 << 20,
                timeout: Duration::from_secs(30),
                at_once: 8,
            },
            rooms_at_once: 128,
            backfill_timeout: Duration::from_secs(15),
            typing_timeout: Duration::from_secs(30),
        }
    }
}

/// Takes in what other servers send: transactions into durable queues, a worker for each room that
/// has something to receive.
pub struct Inbound {
    pub(super) federation: Federation,
    pub(super) typing: Arc<Typing>,
    pub(super) presence: Arc<Presence>,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) settings: InboundSettings,
    pub(super) schedule: Schedule,
    pub(super) late: LateReceipts,
    /// Somebody's devices are to be fetched again.
    pub(super) stale_devices: Notify,
    /// Whose events were worked on in vain.
    pub(super) vain: Vain,
    pub(super) large_answers: Semaphore,
    pub(super) gaps: Gaps,
}

impl Inbound {
    /// Nothing is worked on before [`Inbound::run`].
    #[must_use]
    pub fn new(
        federation: Federation,
        typing: Arc<Typing>,
        presence: Arc<Presence>,
        deliveries: Arc<Deliveries>,
        settings: InboundSettings,
    ) -> Self {
        Self {
            federation,
            typing,
            presence,
            deliveries,
            settings,
            schedule: Schedule::new(),
            late: LateReceipts::default(),
            stale_devices: Notify::new(),
            vain: Vain::default(),
            gaps: Gaps::default(),
            large_answers: Semaphore::new(serving::LARGE_ANSWERS),
        }
    }

    pub(super) fn env(&self) -> &Env {
        &self.federation.env
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.federation.rooms
    }
}
