//! Whether an event authorises, however indirectly, anything that all forks hold.
//!
//! Such an event is in the auth chain of every fork, and so in no auth difference. The state may be
//! large, so the search goes the other way: from the event to those that name it, and those that
//! name them, until one is found that the forks hold.

use futures::future::try_join_all;
use millrace_store::{Read, Scan, tables::CITATIONS};
use rustc_hash::FxHashSet;

use super::{
    ResolveStateError,
    conflict::{Conflict, Source},
    links::{can_authorise, is_create},
};

/// Rows first read from one event: mostly one of the newest is held.
const PAGE_FIRST: usize = 8;
/// Rows read from it at once, at most, when it goes on.
const PAGE_MAX: usize = 512;
/// Events read from at once.
const PAGES: usize = 16;

/// How far a search goes before it is cheaper to walk down from the whole state.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchRows(pub usize);

/// The answer of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Authorises {
    Shared,
    Nothing,
    /// The search was given up.
    Unknown,
}

/// An event whose citing ones are to be read, newest first.
struct Open {
    event: u64,
    /// Only those numbered lower.
    before: u64,
    page: usize,
}

impl Open {
    const fn new(event: u64) -> Self {
        Self { event, before: u64::MAX, page: PAGE_FIRST }
    }
}

/// Searches of one resolution, which remember what they came by.
pub(super) struct SharedSearch<'a, R> {
    source: &'a Source<'a, R>,
    conflict: &'a Conflict<'a>,
    /// Events that neither are shared nor authorise anything shared.
    fruitless: FxHashSet<u64>,
    rows_left: usize,
}

impl<'a, R: Read> SharedSearch<'a, R> {
    pub fn new(
        source: &'a Source<'a, R>,
        conflict: &'a Conflict<'a>,
        SearchRows(rows_left): SearchRows,
    ) -> Self {
        Self { source, conflict, fruitless: FxHashSet::default(), rows_left }
    }

    /// Whether `event` is in the auth chain of an event that all forks hold.
    pub async fn search(&mut self, event: u64) -> Result<Authorises, ResolveStateError> {
        let Source { rooms, read, room } = *self.source;
        if is_create(&rooms.links.load(read, room, &[event]).await?[0]) {
            return self.search_create().await;
        }
        let mut seen = FxHashSet::default();
        let mut open = vec![Open::new(event)];
        while !open.is_empty() {
            let round = open.split_off(open.len().saturating_sub(PAGES));
            let pages = round.iter().map(|Open { event, before, page }| {
                let scan = Scan::prefix(*event).before((*event, *before)).reverse().limit(*page);
                read.scan(&CITATIONS, room, scan)
            });
            let pages = try_join_all(pages).await?;
            let mut citing = Vec::new();
            for (Open { event, page, .. }, rows) in round.into_iter().zip(&pages) {
                self.rows_left = match self.rows_left.checked_sub(rows.len()) {
                    Some(left) => left,
                    None => return Ok(Authorises::Unknown),
                };
                if let Some(((_, before), ())) = rows.get(page - 1) {
                    let page = (page * 4).min(PAGE_MAX);
                    open.push(Open { event, before: *before, page });
                }
                let news = rows.iter().map(|((_, number), ())| *number);
                citing.extend(news.filter(|n| !self.fruitless.contains(n) && seen.insert(*n)));
            }
            if self.any_shared(&citing, &mut open).await? {
                return Ok(Authorises::Shared);
            }
        }
        self.fruitless.extend(seen);
        Ok(Authorises::Nothing)
    }

    /// Whether the forks hold any of these events; those that may be named in turn become `open`.
    async fn any_shared(
        &self,
        events: &[u64],
        open: &mut Vec<Open>,
    ) -> Result<bool, ResolveStateError> {
        let Source { rooms, read, room } = *self.source;
        let links = rooms.links.load(read, room, events).await?;
        let places: Vec<_> =
            links.iter().map(|links| (links.kind.as_str(), links.state_key.as_str())).collect();
        let root = self.conflict.roots[0];
        let held = rooms.states.get_many(read, room, root, &places).await?;
        for ((event, links), held) in events.iter().zip(&links).zip(held) {
            if held == Some(*event) && !self.conflict.has_place(&links.kind, &links.state_key) {
                return Ok(true);
            }
            if can_authorise(links) {
                open.push(Open::new(*event));
            }
        }
        Ok(false)
    }

    /// The create event authorises whatever else there is.
    async fn search_create(&self) -> Result<Authorises, ResolveStateError> {
        let Source { rooms, read, room } = *self.source;
        let root = self.conflict.roots[0];
        let all = rooms.states.count(read, room, root).await?;
        let conflicted = self.conflict.places.values().filter(|held| held[0].is_some()).count();
        let create = u64::from(!self.conflict.has_place("m.room.create", ""));
        match all.saturating_sub(conflicted as u64 + create) {
            0 => Ok(Authorises::Nothing),
            _ => Ok(Authorises::Shared),
        }
    }
}
