//! A store that has one writer, as one machine has it: there a view is one number.
//!
//! Those who follow the log of commits remember by such numbers how far they are. With more writers they
//! will remember views, and this file goes.

use crate::{Position, Snapshot, View};

/// The only writer there is so far.
pub const WRITER: u16 = 0;

/// The number of a snapshot's newest commit.
#[must_use]
pub fn seq(snapshot: &Snapshot) -> u64 {
    snapshot.view().seq(WRITER)
}

/// All commits up to this one.
#[must_use]
pub fn view(seq: u64) -> View {
    View::at(Position { writer: WRITER, seq })
}
