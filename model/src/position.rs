//! The one clock of everything a client can sync: positions, views, and the tokens made of them.
//!
//! A commit has a [`Position`]; what one may see is a [`View`]; a room's history is ordered by
//! [`TimelineIndex`]. Their text forms, [`SyncToken`] and [`PageToken`], are opaque to clients.

mod token;
mod view;

pub use token::{FromToken, InvalidToken, PageToken, SyncToken};
pub use view::View;

use serde::{Deserialize, Serialize};

/// Where a commit stands: `writer` is a node's slot, `seq` counts its commits from 1, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The slot of the node that made the commit.
    pub writer: u16,
    /// How many commits that writer had made, this one included.
    pub seq: u64,
}

/// An event's place in its room's timeline. Live events are `(n, 0)`, `n` counting up; events that
/// were filled in before live event `n` are `(n, -1)`, `(n, -2)`, … , the oldest last. The derived
/// order is the order of the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimelineIndex {
    /// The live event this place belongs to.
    pub n: i64,
    /// Zero for the live event itself, negative for what was filled in before it.
    pub k: i32,
}

impl TimelineIndex {
    /// The earliest place there can be.
    pub const MIN: Self = Self { n: i64::MIN, k: i32::MIN };
    /// The latest place there can be.
    pub const MAX: Self = Self { n: i64::MAX, k: i32::MAX };

    /// The place of live event `n`.
    pub const fn live(n: i64) -> Self {
        Self { n, k: 0 }
    }

    /// Whether this is the place of a live event, one that is news to `/sync`.
    pub const fn is_live(self) -> bool {
        self.k == 0
    }
}
