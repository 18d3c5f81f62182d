//! The conflicted state subgraph (spec: room version 12, State resolution): the events on all paths
//! along auth events from one conflicted event to another.

use millrace_store::{Read, rows::room::AuthLinks};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

use super::{ResolveStateError, conflict::Source, links::can_authorise};

/// The numbers of the events on paths between `conflicted` ones, those themselves left out.
///
/// A path that goes below all conflicted events meets none any more, so the walk ends at the least
/// of their heights.
pub(super) async fn between<R: Read>(
    source: &Source<'_, R>,
    conflicted: &[u64],
) -> Result<Vec<u64>, ResolveStateError> {
    let Source { rooms, read, room } = *source;
    let ends: FxHashSet<u64> = conflicted.iter().copied().collect();
    let mut open = rooms.links.load(read, room, conflicted).await?;
    let floor = open.iter().filter(|links| can_authorise(links)).map(|links| links.height).min();
    let Some(floor) = floor else { return Ok(Vec::new()) };
    let mut visited: FxHashMap<u64, Arc<AuthLinks>> = FxHashMap::default();
    while !open.is_empty() {
        let mut below: Vec<u64> =
            open.iter().flat_map(|links| links.auth.iter().copied()).collect();
        below.sort_unstable();
        below.dedup();
        below.retain(|event| !ends.contains(event) && !visited.contains_key(event));
        open = rooms.links.load(read, room, &below).await?;
        visited.extend(below.into_iter().zip(open.iter().cloned()));
        open.retain(|links| links.height > floor);
    }
    let mut ascending: Vec<_> = visited.into_iter().collect();
    ascending.sort_unstable_by_key(|(_, links)| links.height);
    let mut on_paths: FxHashSet<u64> = FxHashSet::default();
    for (event, links) in ascending {
        if links.auth.iter().any(|below| ends.contains(below) || on_paths.contains(below)) {
            on_paths.insert(event);
        }
    }
    Ok(on_paths.into_iter().collect())
}
