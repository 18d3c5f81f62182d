//! The clock of what is not durable: typing and presence. A sync token carries a moment of it
//! beside its view (`SyncToken::ephemeral`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Env;

/// Counts the changes of typing and presence in this run of the process.
#[derive(Debug)]
pub struct EphemeralClock {
    boot: u64,
    counter: AtomicU64,
}

/// A stretch of changes: those after `since`, up to and including `up_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EphemeralRange {
    /// Already seen; 0 where nothing was, or where it was seen in another run of the process.
    pub since: u64,
    /// What the next token will say.
    pub up_to: u64,
}

impl EphemeralRange {
    /// Whether a change falls into the stretch.
    #[must_use]
    pub const fn holds(&self, change: u64) -> bool {
        self.since < change && change <= self.up_to
    }
}

impl EphemeralClock {
    /// The clock of this run.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        let mut boot = [0; 8];
        env.random.fill(&mut boot);
        Self { boot: u64::from_be_bytes(boot), counter: AtomicU64::new(0) }
    }

    /// This moment, for a token. Read it before looking at what changed: changes are counted under
    /// the lock of what they change, so none up to this moment is missed.
    #[must_use]
    pub fn token(&self) -> (u64, u64) {
        (self.boot, self.counter.load(Ordering::Acquire))
    }

    /// The changes from an earlier token up to a later one of this run; from the beginning where
    /// there is no earlier one or it is of another run.
    #[must_use]
    pub fn range(&self, since: Option<(u64, u64)>, up_to: (u64, u64)) -> EphemeralRange {
        let since = since.filter(|(boot, _)| *boot == self.boot).map_or(0, |(_, counter)| counter);
        EphemeralRange { since, up_to: up_to.1 }
    }

    /// Counts one change. To be called under the lock of what changes.
    pub(crate) fn tick(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::AcqRel) + 1
    }
}
