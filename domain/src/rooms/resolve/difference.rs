//! The auth difference of whole states (spec: room version 2, State resolution): what is in the
//! auth chain of some fork's state, but not of every fork's.
//!
//! The walk starts at the conflicted events only and goes down by height, so that an event is looked
//! at once everything that leads to it has been. It ends as soon as all that is left to look at is in
//! every chain, because so is all below. What an event that all forks hold leads to is in every
//! chain: of a few such events, those that authorise the conflicted ones, the walk is told at the
//! start; of the others it asks [`SharedSearch`]. A search that would go too far is given up, and
//! the walk is told of the whole state instead.

use std::collections::{BinaryHeap, hash_map::Entry};

use millrace_store::{Read, rows::room::AuthLinks};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{
    ResolveStateError,
    conflict::{Conflict, Source},
    shared::{Authorises, SearchRows, SharedSearch},
};

/// Links read at once.
const BATCH: usize = 1024;

/// The numbers of the events in the auth difference. `core` are some events that all forks hold.
pub(super) async fn auth_difference<R: Read>(
    source: &Source<'_, R>,
    conflict: &Conflict<'_>,
    core: &[u64],
    rows: SearchRows,
) -> Result<Vec<u64>, ResolveStateError> {
    let all = Reach::all(conflict.roots.len());
    let mut walk =
        Walk { source, reached: FxHashMap::default(), heap: BinaryHeap::new(), partial: 0, all };
    walk.begin(conflict, core).await?;
    let mut search = Some(SharedSearch::new(source, conflict, rows));
    let mut difference = Vec::new();
    while walk.partial > 0 {
        let Some((height, event)) = walk.heap.pop() else { break };
        let Some(mut reach) = walk.reached.remove(&event) else { continue };
        if reach != walk.all {
            let found = match &mut search {
                Some(search) => search.search(event).await?,
                None => Authorises::Nothing,
            };
            if found == Authorises::Unknown {
                walk.reached.insert(event, reach);
                walk.heap.push((height, event));
                search = None;
                walk.begin_at_all_shared(conflict).await?;
                continue;
            }
            walk.partial -= 1;
            match found {
                Authorises::Shared => reach = walk.all.clone(),
                _ => difference.push(event),
            }
        }
        walk.descend(&[event], &reach).await?;
    }
    Ok(difference)
}

/// Which forks' auth chains hold an event: a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach(SmallVec<[u64; 1]>);

impl Reach {
    fn none(forks: usize) -> Self {
        Self(SmallVec::from_elem(0, forks.div_ceil(64)))
    }

    fn one(forks: usize, fork: usize) -> Self {
        let mut reach = Self::none(forks);
        reach.0[fork / 64] |= 1 << (fork % 64);
        reach
    }

    fn all(forks: usize) -> Self {
        let mut reach = Self::none(forks);
        for fork in 0..forks {
            reach.0[fork / 64] |= 1 << (fork % 64);
        }
        reach
    }

    fn add(&mut self, other: &Self) {
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }
}

struct Walk<'a, R> {
    source: &'a Source<'a, R>,
    /// The events still to be looked at.
    reached: FxHashMap<u64, Reach>,
    /// Their heights and numbers.
    heap: BinaryHeap<(u32, u64)>,
    /// How many of them are not in every chain, as far as is known.
    partial: usize,
    all: Reach,
}

impl<R: Read> Walk<'_, R> {
    async fn begin(
        &mut self,
        conflict: &Conflict<'_>,
        core: &[u64],
    ) -> Result<(), ResolveStateError> {
        let forks = conflict.roots.len();
        self.descend(core, &self.all.clone()).await?;
        for fork in 0..forks {
            let held: Vec<u64> = conflict.places.values().filter_map(|held| held[fork]).collect();
            self.descend(&held, &Reach::one(forks, fork)).await?;
        }
        Ok(())
    }

    /// Goes on from everything that all forks hold.
    async fn begin_at_all_shared(
        &mut self,
        conflict: &Conflict<'_>,
    ) -> Result<(), ResolveStateError> {
        let Source { rooms, read, room } = *self.source;
        let whole = rooms.states.list(read, room, conflict.roots[0], None).await?;
        let shared = whole.into_iter().filter(|(place, _)| !conflict.places.contains_key(place));
        let shared: Vec<u64> = shared.map(|(_, event)| event).collect();
        self.descend(&shared, &self.all.clone()).await
    }

    /// Notes that the chains in `reach` hold the auth events of `events`.
    async fn descend(&mut self, events: &[u64], reach: &Reach) -> Result<(), ResolveStateError> {
        let Source { rooms, read, room } = *self.source;
        for events in events.chunks(BATCH) {
            let links = rooms.links.load(read, room, events).await?;
            let mut below: Vec<u64> =
                links.iter().flat_map(|links| links.auth.iter().copied()).collect();
            below.sort_unstable();
            below.dedup();
            for below in below.chunks(BATCH) {
                let links = rooms.links.load(read, room, below).await?;
                for (event, links) in below.iter().zip(&links) {
                    self.reach(*event, links, reach);
                }
            }
        }
        Ok(())
    }

    fn reach(&mut self, event: u64, links: &AuthLinks, by: &Reach) {
        match self.reached.entry(event) {
            Entry::Vacant(slot) => {
                self.partial += usize::from(*by != self.all);
                self.heap.push((links.height, event));
                slot.insert(by.clone());
            }
            Entry::Occupied(mut slot) => {
                let was_partial = *slot.get() != self.all;
                slot.get_mut().add(by);
                let is_partial = *slot.get() != self.all;
                self.partial -= usize::from(was_partial && !is_partial);
            }
        }
    }
}
