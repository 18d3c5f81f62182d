//! A view: how far each writer has been seen.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::Position;

/// How far each writer has been seen: a map from writer to seq, where an absent writer is at 0.
/// On one machine it has at most one entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct View {
    /// Sorted by writer; no entry has seq 0, so that equal views are equal values.
    entries: SmallVec<[(u16, u64); 1]>,
}

impl View {
    /// The view that covers nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The view of one writer, up to and including `position`.
    pub fn at(position: Position) -> Self {
        let mut view = Self::empty();
        view.advance(position);
        view
    }

    /// How far `writer` has been seen; 0 where it has not been seen at all.
    pub fn seq(&self, writer: u16) -> u64 {
        match self.place(writer) {
            Ok(at) => self.entries[at].1,
            Err(_) => 0,
        }
    }

    /// Whether the commit at `position` is part of this view.
    pub fn covers(&self, position: Position) -> bool {
        position.seq <= self.seq(position.writer)
    }

    /// Whether everything in `other` is part of this view too.
    pub fn includes(&self, other: &Self) -> bool {
        other.entries.iter().all(|&(writer, seq)| seq <= self.seq(writer))
    }

    /// Extends the view to `position`; never moves a writer back.
    pub fn advance(&mut self, position: Position) {
        if position.seq == 0 {
            return;
        }
        match self.place(position.writer) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(position.seq),
            Err(at) => self.entries.insert(at, (position.writer, position.seq)),
        }
    }

    /// Extends the view by everything that `other` covers.
    pub fn merge(&mut self, other: &Self) {
        for position in other.iter() {
            self.advance(position);
        }
    }

    /// The newest position of each writer seen, by writer.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Position> + '_ {
        self.entries.iter().map(|&(writer, seq)| Position { writer, seq })
    }

    /// Whether the view covers nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn place(&self, writer: u16) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&writer, |&(writer, _)| writer)
    }
}

impl FromIterator<Position> for View {
    fn from_iter<I: IntoIterator<Item = Position>>(positions: I) -> Self {
        let mut view = Self::empty();
        for position in positions {
            view.advance(position);
        }
        view
    }
}

/// One view is less than another when it is included in it and differs. Views of several writers
/// can be unordered.
impl PartialOrd for View {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn view(entries: &[(u16, u64)]) -> View {
        entries.iter().map(|&(writer, seq)| Position { writer, seq }).collect()
    }

    fn any_view() -> impl Strategy<Value = View> {
        proptest::collection::vec((0..4_u16, 0..5_u64), 0..5).prop_map(|entries| view(&entries))
    }

    #[test]
    fn an_empty_view_covers_nothing_and_is_least() {
        assert!(!View::empty().covers(Position { writer: 0, seq: 1 }));
        assert!(View::empty() < view(&[(0, 1)]));
    }

    #[test]
    fn a_view_covers_what_each_writer_had_done() {
        let view = view(&[(3, 7), (1, 2)]);
        for (writer, seq, covered) in [(3, 7, true), (3, 8, false), (1, 2, true), (2, 1, false)] {
            assert_eq!(view.covers(Position { writer, seq }), covered, "{writer} {seq}");
        }
    }

    #[test]
    fn views_that_each_know_something_else_are_unordered() {
        assert_eq!(view(&[(0, 2), (1, 1)]).partial_cmp(&view(&[(0, 1), (1, 2)])), None);
    }

    proptest! {
        #[test]
        fn a_merge_is_the_least_view_that_includes_both(a in any_view(), b in any_view()) {
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert!(merged >= a && merged >= b);
            for at in merged.iter() {
                prop_assert!(a.covers(at) || b.covers(at));
            }
        }

        #[test]
        fn order_agrees_with_equality(a in any_view(), b in any_view()) {
            prop_assert_eq!(a == b, a.partial_cmp(&b) == Some(Ordering::Equal));
        }
    }
}
