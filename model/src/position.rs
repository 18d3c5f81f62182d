//! One clock for everything a client can sync: see "Positions" in `ARCHITECTURE.md`.

/// The place of one commit: the `seq`-th of node slot `writer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The node's slot.
    pub writer: u16,
    /// Counts the slot's commits from 1, without gaps.
    pub seq: u64,
}

/// A set of commits that is closed: for each writer all commits up to a `seq`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct View {
    /// Sorted by writer; a writer that is absent stands at 0.
    entries: smallvec::SmallVec<[(u16, u64); 1]>,
}

impl View {
    /// The view of one writer's first `seq` commits.
    #[must_use]
    pub fn of(writer: u16, seq: u64) -> Self {
        Self { entries: smallvec::smallvec![(writer, seq)] }
    }

    /// How far it covers `writer`.
    #[must_use]
    pub fn seq(&self, writer: u16) -> u64 {
        self.entries().find(|(other, _)| *other == writer).map_or(0, |(_, seq)| seq)
    }

    /// Every writer that it knows, with its seq.
    pub fn entries(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Whether the commit at `position` is in it.
    #[must_use]
    pub fn covers(&self, position: Position) -> bool {
        position.seq <= self.seq(position.writer)
    }
}
