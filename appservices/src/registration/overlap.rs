//! Whether two namespaces have an identifier in common.
//!
//! Each regular expression becomes a graph whose edges are ranges of characters; a walk through all
//! graphs at once looks for a word that leads through each. The form of an identifier of this server
//! is a graph too, so that only identifiers that there can be count.

use std::collections::{HashMap, HashSet};

use regex_syntax::hir::{Class, Hir, HirKind};

/// A graph has so many states at most; a larger one is not looked at.
const STATES_MAX: usize = 20_000;
/// So many places of the walk are looked at; beyond, nothing is said.
const WALK_MAX: usize = 200_000;
/// A repetition is written out so often at most; what is beyond counts as any number.
const REPEATED_MAX: u32 = 64;

/// States, with edges over ranges of characters, and edges that cost none. The first state is 0.
#[derive(Default)]
struct Graph {
    over: Vec<Vec<(char, char, usize)>>,
    free: Vec<Vec<usize>>,
    end: usize,
}

/// An identifier's form is a regular expression over the whole of it.
pub(super) fn user_form(server: &str) -> String {
    format!("@[a-z0-9._=/+-]+:{}", regex::escape(server))
}

/// As [`user_form`], of aliases.
pub(super) fn alias_form(server: &str) -> String {
    format!("#[^:\\s]+:{}", regex::escape(server))
}

/// Whether an identifier of this form can be in both namespaces. An expression that is too large to
/// be looked at overlaps with none.
pub(super) fn overlap(form: &str, a: &str, b: &str) -> bool {
    let open = |text: &str| Graph::of(&format!("(?:{text})(?s:.)*"));
    let (Some(form), Some(a), Some(b)) = (Graph::of(form), open(a), open(b)) else {
        return false;
    };
    walk([&form, &a, &b])
}

impl Graph {
    /// The graph of the words that a regular expression matches as a whole; none where it is too large.
    fn of(text: &str) -> Option<Self> {
        let hir = regex_syntax::Parser::new().parse(text).ok()?;
        let mut graph = Self::default();
        let start = graph.state();
        let end = graph.state();
        graph.end = end;
        graph.add(&hir, start, end)?;
        Some(graph)
    }

    fn state(&mut self) -> usize {
        self.over.push(Vec::new());
        self.free.push(Vec::new());
        self.over.len() - 1
    }

    /// Adds ways from `from` to `to` for every word that `hir` matches.
    fn add(&mut self, hir: &Hir, from: usize, to: usize) -> Option<()> {
        if self.over.len() > STATES_MAX {
            return None;
        }
        match hir.kind() {
            // What stands at the beginning or the end of a word is taken to hold.
            HirKind::Empty | HirKind::Look(_) => self.free[from].push(to),
            HirKind::Literal(literal) => {
                let mut at = from;
                for c in std::str::from_utf8(&literal.0).ok()?.chars() {
                    let next = self.state();
                    self.over[at].push((c, c, next));
                    at = next;
                }
                self.free[at].push(to);
            }
            HirKind::Class(Class::Unicode(class)) => {
                let ranges = class.iter().map(|range| (range.start(), range.end(), to));
                self.over[from].extend(ranges);
            }
            HirKind::Class(Class::Bytes(class)) => {
                let ranges = class.iter();
                let ranges = ranges.map(|range| (range.start().into(), range.end().into(), to));
                self.over[from].extend(ranges);
            }
            HirKind::Capture(capture) => self.add(&capture.sub, from, to)?,
            HirKind::Concat(parts) => {
                let mut at = from;
                for part in parts {
                    let next = self.state();
                    self.add(part, at, next)?;
                    at = next;
                }
                self.free[at].push(to);
            }
            HirKind::Alternation(ways) => {
                for way in ways {
                    self.add(way, from, to)?;
                }
            }
            HirKind::Repetition(repetition) => {
                let mut at = from;
                for _ in 0..repetition.min.min(REPEATED_MAX) {
                    let next = self.state();
                    self.add(&repetition.sub, at, next)?;
                    at = next;
                }
                match repetition.max.filter(|max| *max <= REPEATED_MAX) {
                    Some(max) => {
                        self.free[at].push(to);
                        for _ in repetition.min..max {
                            let next = self.state();
                            self.add(&repetition.sub, at, next)?;
                            self.free[next].push(to);
                            at = next;
                        }
                    }
                    None => {
                        // A state of its own, so that the way back leads nowhere else.
                        let again = self.state();
                        self.free[at].push(again);
                        let after = self.state();
                        self.add(&repetition.sub, again, after)?;
                        self.free[after].push(again);
                        self.free[again].push(to);
                    }
                }
            }
        }
        Some(())
    }

    /// All that can be reached from a state at no cost, itself included.
    fn closure(&self, state: usize) -> Vec<usize> {
        let (mut reached, mut seen) = (vec![state], HashSet::from([state]));
        let mut at = 0;
        while let Some(&state) = reached.get(at) {
            at += 1;
            for &next in &self.free[state] {
                if seen.insert(next) {
                    reached.push(next);
                }
            }
        }
        reached
    }
}

/// Whether one word leads through all three graphs from the first state to the end.
fn walk(graphs: [&Graph; 3]) -> bool {
    let mut closures: [HashMap<usize, Vec<usize>>; 3] = Default::default();
    let mut waiting = vec![[0_usize; 3]];
    let mut seen: HashSet<[usize; 3]> = HashSet::from([[0; 3]]);
    while let Some(place) = waiting.pop() {
        if seen.len() > WALK_MAX {
            return false;
        }
        let mut reached: Vec<Vec<usize>> = Vec::with_capacity(3);
        for (index, graph) in graphs.iter().enumerate() {
            let state = place[index];
            let closure = closures[index].entry(state).or_insert_with(|| graph.closure(state));
            reached.push(closure.clone());
        }
        if graphs.iter().zip(&reached).all(|(graph, reached)| reached.contains(&graph.end)) {
            return true;
        }
        let edges = |index: usize| {
            let graph = graphs[index];
            reached[index].iter().flat_map(|state| graph.over[*state].iter().copied())
        };
        for (low_a, high_a, to_a) in edges(0) {
            for (low_b, high_b, to_b) in edges(1) {
                let (low, high) = (low_a.max(low_b), high_a.min(high_b));
                if low > high {
                    continue;
                }
                for (low_c, high_c, to_c) in edges(2) {
                    let next = [to_a, to_b, to_c];
                    if low.max(low_c) <= high.min(high_c) && seen.insert(next) {
                        waiting.push(next);
                    }
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(a: &str, b: &str) -> bool {
        let form = user_form("one.test");
        assert_eq!(overlap(&form, a, b), overlap(&form, b, a), "{a} {b}");
        overlap(&form, a, b)
    }

    #[test]
    fn namespaces_overlap_where_an_identifier_of_this_server_is_in_both() {
        for (a, b) in [
            ("@irc_.*", "@irc_.*"),
            ("@irc_.*", "@irc_libera_.*"),
            ("@irc_.*", ".*_bot:one.test"),
            ("@irc_[a-m]+:one.test", "@irc_(k|z).*"),
            ("@a{2,3}:one.test", "@aaa"),
            (".*", "@x"),
            ("@(irc|xmpp)_.*", "@xmpp_x{1000}"),
            ("^@irc_.*$", "@irc_a:one\\.test"),
        ] {
            assert!(users(a, b), "{a} {b}");
        }
    }

    #[test]
    fn those_without_a_common_identifier_do_not() {
        for (a, b) in [
            ("@irc_.*", "@xmpp_.*"),
            ("@irc_.*:one.test", "@irc_.*:two.test"),
            ("@irc_[0-9]+:", "@irc_[a-z]+:"),
            ("@a{2}:", "@a{3}:"),
            ("@_irc_.*", "@irc_.*"),
            ("#irc_.*", "#irc_.*"),
            ("@IRC_.*", "@IRC_.*"),
        ] {
            assert!(!users(a, b), "{a} {b}");
        }
        assert!(overlap(&alias_form("one.test"), "#irc_.*", "#irc_.*"));
    }
}
