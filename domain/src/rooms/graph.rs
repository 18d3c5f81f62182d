//! Walks over a room's graph for other servers (spec: Server-Server API, Backfilling and retrieving
//! missing events; Retrieving events).

use std::{
    collections::{BinaryHeap, HashSet},
    sync::Arc,
};

use millrace_store::{
    Read, Scan,
    rows::room::EventHeader,
    tables::{EVENT_NUMBERS, TIMELINE},
};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, api::Direction};

use super::{Event, ReadError, ServerView, auth_chain};

/// Events that a walk looks at for each that is wanted.
const LOOKED_AT_FACTOR: usize = 4;
/// Servers' clocks differ: so many events to either side are looked at for one that is closer.
const NEIGHBOURS: i64 = 64;
/// Events that are looked at for one at a time.
const LOOKED_AT_BY_TIME: usize = 512;

/// An event, and what is known beside it.
pub type Found = (Arc<Event>, Arc<EventHeader>);

/// What another server lacks.
#[derive(Debug, Clone)]
pub struct Lack<'a> {
    /// What it has: the walk ends there.
    pub earliest: &'a [OwnedEventId],
    /// What it has and lacks predecessors of.
    pub latest: &'a [OwnedEventId],
    /// How many events are wanted, at most.
    pub limit: usize,
    /// Events of lower depth are not wanted.
    pub min_depth: u64,
}

/// The events between `earliest` and `latest`, breadth first from `latest`; those that come before
/// others come first.
///
/// # Errors
/// Where the store cannot be read.
pub async fn missing_events(
    view: &ServerView<'_>,
    lack: &Lack<'_>,
) -> Result<Vec<Found>, ReadError> {
    let mut met: HashSet<OwnedEventId> = lack.earliest.iter().chain(lack.latest).cloned().collect();
    let mut missing: Vec<Found> = Vec::new();
    let mut step = in_graph(view.find_many(lack.latest).await?);
    while missing.len() < lack.limit && !step.is_empty() {
        let before = step.iter().flat_map(|(event, _)| &event.pdu.prev_events);
        let before: Vec<_> = before.filter(|id| met.insert((*id).clone())).cloned().collect();
        let found = in_graph(view.find_many(&before).await?);
        step = found.into_iter().filter(|(e, _)| e.pdu.depth >= lack.min_depth).collect();
        missing.extend(step.iter().take(lack.limit - missing.len()).cloned());
    }
    missing.sort_by_key(|(event, _)| (event.pdu.depth, event.pdu.origin_server_ts));
    Ok(missing)
}

/// `from` and the events before them, the deepest first.
///
/// # Errors
/// Where the store cannot be read.
pub async fn backfill(
    view: &ServerView<'_>,
    from: &[OwnedEventId],
    limit: usize,
) -> Result<Vec<Found>, ReadError> {
    let mut met: HashSet<OwnedEventId> = from.iter().cloned().collect();
    let mut found: Vec<Found> = in_graph(view.find_many(from).await?);
    let rank = |(at, (event, _)): (usize, &Found)| (event.pdu.depth, at);
    let mut open: BinaryHeap<_> = found.iter().enumerate().map(rank).collect();
    let mut history = Vec::new();
    while history.len() < limit
        && let Some((_, at)) = open.pop()
    {
        let next = found[at].clone();
        let before = next.0.pdu.prev_events.iter();
        let before: Vec<_> = before.filter(|id| met.insert((*id).clone())).cloned().collect();
        history.push(next);
        if found.len() > limit * LOOKED_AT_FACTOR {
            continue;
        }
        for event in in_graph(view.find_many(&before).await?) {
            open.push((event.0.pdu.depth, found.len()));
            found.push(event);
        }
    }
    Ok(history)
}

/// Those that are part of the graph, rejected ones left out.
fn in_graph(found: Vec<Found>) -> Vec<Found> {
    found.into_iter().filter(|(_, header)| !header.outlier && !header.rejected).collect()
}

/// The state before an event, and what authorises it.
#[derive(Debug)]
pub struct StateAt {
    /// Numbers of the state events.
    pub state: Vec<u64>,
    /// Numbers of the events of their auth chains.
    pub auth_chain: Vec<u64>,
}

/// The state before an event; `None` where we have no such event, or not its state.
///
/// # Errors
/// Where the store cannot be read.
pub async fn state_before(
    view: &ServerView<'_>,
    event: &EventId,
) -> Result<Option<StateAt>, ReadError> {
    let Some((_, header)) = view.find(event).await? else { return Ok(None) };
    let Some(root) = header.before else { return Ok(None) };
    let ServerView { rooms, snapshot, room_id, .. } = view;
    let listed = rooms.states.list(*snapshot, room_id, root, None).await?;
    let state: Vec<u64> = listed.into_iter().map(|(_, number)| number).collect();
    let auth_chain = chain(view, &state).await?;
    Ok(Some(StateAt { state, auth_chain }))
}

/// Numbers of the events of an event's auth chain; `None` where we have no such event.
///
/// # Errors
/// Where the store cannot be read.
pub async fn auth_chain_of(
    view: &ServerView<'_>,
    event: &EventId,
) -> Result<Option<Vec<u64>>, ReadError> {
    let number = view.snapshot.get(&EVENT_NUMBERS, view.room_id, event).await?;
    let Some(number) = number else { return Ok(None) };
    Ok(Some(chain(view, &[number]).await?))
}

async fn chain(view: &ServerView<'_>, events: &[u64]) -> Result<Vec<u64>, ReadError> {
    let place = (view.room_id, &view.head.version);
    let chain = auth_chain::auth_chain(view.rooms, view.snapshot, place, events).await?;
    Ok(chain.into_iter().collect())
}

/// The event of the timeline closest to a time, at it or after it, or at it or before it; `None` where
/// there is none. The timeline is searched as if its times rose, and then its neighbourhood.
///
/// # Errors
/// Where the store cannot be read.
pub async fn closest(
    view: &ServerView<'_>,
    at: MilliSecondsSinceUnixEpoch,
    direction: Direction,
) -> Result<Option<Found>, ReadError> {
    let (mut low, mut high) = (1, view.head.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = view.snapshot.get(&TIMELINE, view.room_id, (middle, 0)).await?;
        let event = match row {
            Some(row) => view.load(&[row.event]).await?.pop(),
            None => None,
        };
        // What came before the history that we have is before everything.
        let is_before = event.is_none_or(|(event, _)| event.pdu.origin_server_ts < at);
        if is_before { low = middle + 1 } else { high = middle }
    }
    let scan = match direction {
        Direction::Forward => Scan::all().from((low.saturating_sub(NEIGHBOURS), i32::MIN)),
        Direction::Backward => Scan::all().before((low.saturating_add(NEIGHBOURS), 0)).reverse(),
    };
    let rows = view.snapshot.scan(&TIMELINE, view.room_id, scan.limit(LOOKED_AT_BY_TIME)).await?;
    let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
    // Some may have been taken back.
    let is_shown = |header: &EventHeader| header.place.is_some();
    let fits = |(event, header): &Found| match direction {
        Direction::Forward => is_shown(header) && event.pdu.origin_server_ts >= at,
        Direction::Backward => is_shown(header) && event.pdu.origin_server_ts <= at,
    };
    let fitting = view.load(&numbers).await?.into_iter().filter(fits);
    let distance = |event: &Event| u64::from(event.pdu.origin_server_ts.0).abs_diff(at.0.into());
    Ok(fitting.min_by_key(|(event, _)| distance(event)))
}
