//! What happened around an event (spec: Client-Server API, Event context).

use millrace_model::{PageToken, TimelineIndex, filter::EventFilter};
use millrace_store::{Read, state_tree::StateRoot, tables::TIMELINE};
use ruma::{EventId, api::Direction};

use super::{
    history::{self, Gaps, HistoryError, Walk},
    view::{ReadError, RoomView, Seen},
};

/// Whether the members of a state are all wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// All of them.
    All,
    /// Those who sent one of the events.
    Senders,
}

/// An event and its neighbours.
#[derive(Debug)]
pub struct Context {
    /// The event.
    pub event: Seen,
    /// The events before it, newest first.
    pub before: Vec<Seen>,
    /// The events after it, oldest first.
    pub after: Vec<Seen>,
    /// The point before the oldest of all.
    pub start: PageToken,
    /// The point after the newest of all.
    pub end: PageToken,
    /// The room's state after the newest of all.
    pub state: Vec<Seen>,
}

/// The neighbours of an event.
#[derive(Debug)]
pub struct Neighbours {
    /// The events before it, newest first.
    pub before: Vec<Seen>,
    /// The events after it, oldest first.
    pub after: Vec<Seen>,
    /// The point before the oldest of all.
    pub start: PageToken,
    /// The point after the newest of all.
    pub end: PageToken,
    /// The room's state after the newest of all.
    pub root: Option<StateRoot>,
}

/// Reads at most so many events before and after one that the viewer sees.
///
/// # Errors
/// Where the room cannot be read.
pub async fn neighbours(
    view: &RoomView<'_>,
    event: &Seen,
    (before, after): (usize, usize),
    filter: &EventFilter,
) -> Result<Neighbours, HistoryError> {
    let here = event.index();
    let walk = |direction: Direction, (low, high): (TimelineIndex, TimelineIndex), limit| {
        Walk { low, high, direction, limit, gaps: Gaps::StopAt }.run(view, filter)
    };
    let (past, now) = (
        PageToken::after(here).index,
        PageToken::after(history::readable_end(view).await?.0).index,
    );
    let before = walk(Direction::Backward, (TimelineIndex::MIN, here), before).await?.events;
    let after = walk(Direction::Forward, (past, now), after).await?.events;
    let oldest = before.last().map_or(here, Seen::index);
    let newest = after.last().map_or(here, Seen::index);
    let root = state_after(view, newest).await?;
    let (start, end) = (PageToken::before(oldest), PageToken::after(newest));
    Ok(Neighbours { before, after, start, end, root })
}

/// Reads at most `limit` events around an event, as many before as after it.
///
/// # Errors
/// [`HistoryError::UnknownEvent`] where the viewer may not see the event.
pub async fn context(
    view: &RoomView<'_>,
    event_id: &EventId,
    limit: usize,
    filter: &EventFilter,
    members: Members,
) -> Result<Context, HistoryError> {
    let event = view.find(event_id).await?;
    let event = event.ok_or_else(|| HistoryError::UnknownEvent(event_id.to_owned()))?;
    let limits = (limit / 2, limit - limit / 2);
    let Neighbours { before, after, start, end, root } =
        neighbours(view, &event, limits, filter).await?;
    let mut state = state_of(view, root, members).await?;
    if members == Members::Senders {
        let shown: Vec<_> = before.iter().chain([&event]).chain(&after).collect();
        state.extend(history::senders(view, root, &shown).await?);
    }
    state.retain(|seen| filter.admits_in_room(&seen.event.pdu));
    Ok(Context { event, before, after, start, end, state })
}

async fn state_after(
    view: &RoomView<'_>,
    index: TimelineIndex,
) -> Result<Option<StateRoot>, ReadError> {
    let row = view.snapshot.get(&TIMELINE, view.room_id, (index.n, index.k)).await?;
    Ok(row.map(|row| row.after))
}

/// The events of a state: all of them, or all but the members.
///
/// # Errors
/// Where the state cannot be read.
pub async fn state_of(
    view: &RoomView<'_>,
    root: Option<StateRoot>,
    members: Members,
) -> Result<Vec<Seen>, ReadError> {
    let Some(root) = root else { return Ok(Vec::new()) };
    let numbers = match members {
        Members::All => view.rooms.states.numbers(view.snapshot, view.room_id, root, None).await?,
        Members::Senders => view.state_without_members(root).await?.to_vec(),
    };
    view.state_events(&numbers).await
}
