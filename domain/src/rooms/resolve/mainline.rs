//! The power levels events that the mainline ordering reads (spec: room version 2, State
//! resolution, Mainline ordering).

use std::{collections::BTreeMap, sync::Arc};

use millrace_store::{Read, rows::room::AuthLinks};
use rustc_hash::FxHashSet;

use super::{ResolveStateError, conflict::Source};

/// A power levels event of a mainline, and the one before it that its auth events name.
pub(super) struct Step {
    pub event: u64,
    /// None for the first one of the room, and where no more is needed.
    pub before: Option<u64>,
}

/// The mainlines that begin at `events`: themselves where they are power levels, then those that
/// they name, and so on.
///
/// Two mainlines that meet go on as one. Where all that have not come to their end have met, events
/// are ordered by what is above, so the walk ends there. `whole` are events that must be seen with all that they name, so it does
/// not end at one of them.
pub(super) async fn mainlines<R: Read>(
    source: &Source<'_, R>,
    events: &[u64],
    whole: &FxHashSet<u64>,
) -> Result<Vec<Step>, ResolveStateError> {
    let Source { rooms, read, room } = *source;
    let links = rooms.links.load(read, room, events).await?;
    // Ordered by height: nothing leads to the last one but what was taken before it.
    let mut open: BTreeMap<(u32, u64), Arc<AuthLinks>> = BTreeMap::new();
    for (event, links) in events.iter().zip(links) {
        let first = match is_power_levels(&links) {
            true => Some((*event, links)),
            false => named_by(source, &links).await?,
        };
        if let Some((event, links)) = first {
            open.insert((links.height, event), links);
        }
    }
    let mut steps = Vec::new();
    while let Some(((_, event), links)) = open.pop_last() {
        if open.is_empty() && !whole.contains(&event) {
            steps.push(Step { event, before: None });
            break;
        }
        let before = named_by(source, &links).await?;
        steps.push(Step { event, before: before.as_ref().map(|(event, _)| *event) });
        if let Some((event, links)) = before {
            open.insert((links.height, event), links);
        }
    }
    Ok(steps)
}

/// The first power levels event among the auth events of another.
async fn named_by<R: Read>(
    source: &Source<'_, R>,
    links: &AuthLinks,
) -> Result<Option<(u64, Arc<AuthLinks>)>, ResolveStateError> {
    let named = source.rooms.links.load(source.read, source.room, &links.auth).await?;
    let mut both = links.auth.iter().copied().zip(named);
    Ok(both.find(|(_, links)| is_power_levels(links)))
}

fn is_power_levels(links: &AuthLinks) -> bool {
    links.kind == "m.room.power_levels" && links.state_key.is_empty()
}
