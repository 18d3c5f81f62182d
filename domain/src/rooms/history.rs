//! Paging through a room's history (spec: Client-Server API, Getting events for a room).

use millrace_model::{
    PageToken, Position, TimelineIndex, View, filter::EventFilter, position::FromToken,
};
use millrace_store::{
    Read, Scan, Snapshot, rows::room::TimelineRow, state_tree::StateRoot, tables::TIMELINE,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, api::Direction};

use super::{
    Rooms,
    gap::{self, Gap},
    view::{ReadError, RoomView, Seen, Viewer},
};

/// Rows of the timeline that one request looks through, at most. Who wants more goes on from where
/// it ended.
const ROWS_MAX: usize = 4096;
/// Rows that are read at once, at most.
const BATCH_MAX: usize = 512;

/// Why nothing is shown of a room's history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The user may not look into the room, or there is none.
    #[error("{user} may not read room {room}")]
    Forbidden {
        /// Who asked.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
    },
    /// There is no such event, or the user may not see it.
    #[error("event {0} is not known here")]
    UnknownEvent(OwnedEventId),
    /// No event lies in the direction asked for.
    #[error("there is no event in this direction")]
    NoEvent,
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<millrace_store::Error> for HistoryError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Opens a room that the viewer may read something of.
///
/// # Errors
/// [`HistoryError::Forbidden`] where they may not, or where there is no such room here.
pub async fn open<'a>(
    rooms: &'a Rooms,
    snapshot: &'a Snapshot,
    room_id: &'a RoomId,
    viewer: &'a Viewer,
) -> Result<RoomView<'a>, HistoryError> {
    let view = RoomView::open(rooms, snapshot, room_id, viewer).await?;
    match view {
        Some(view) if view.end().await?.is_some() => Ok(view),
        _ => Err(HistoryError::Forbidden { user: viewer.user.clone(), room: room_id.to_owned() }),
    }
}

/// One event that the viewer may see.
///
/// # Errors
/// [`HistoryError::UnknownEvent`] also where it exists but may not be seen.
pub async fn event(
    rooms: &Rooms,
    snapshot: &Snapshot,
    (room_id, event_id): (&RoomId, &ruma::EventId),
    viewer: &Viewer,
) -> Result<Box<serde_json::value::RawValue>, HistoryError> {
    let unknown = || HistoryError::UnknownEvent(event_id.to_owned());
    let view = RoomView::open(rooms, snapshot, room_id, viewer).await?.ok_or_else(unknown)?;
    let seen = view.find(event_id).await?.ok_or_else(unknown)?;
    Ok(view.render_one(&seen, millrace_model::client_event::RoomIdField::Present).await?)
}

/// What a walk back in time does at a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// It goes no further, and says so.
    StopAt,
    /// It goes on with what lies beyond.
    Pass,
}

/// Which part of a timeline is wanted.
#[derive(Debug, Clone)]
pub struct PageRequest<'a> {
    /// The point to begin at; the end of the room, or its beginning for [`Direction::Forward`].
    pub from: Option<TimelineIndex>,
    /// The point not to pass.
    pub to: Option<TimelineIndex>,
    /// Where to go.
    pub direction: Direction,
    /// How many events, at most.
    pub limit: usize,
    /// Which events.
    pub filter: &'a EventFilter,
    /// Whether to go on beyond gaps.
    pub gaps: Gaps,
}

/// A part of a timeline.
#[derive(Debug)]
pub struct Page {
    /// Where it began.
    pub start: PageToken,
    /// Where to go on; none where the timeline ends. What the filter leaves out belongs to the
    /// timeline, so only the page after the last admitted event ends where that lies beyond it.
    pub end: Option<PageToken>,
    /// The events, in the direction asked for.
    pub events: Vec<Seen>,
    /// The room's state after the newest of them.
    pub newest: Option<StateRoot>,
    /// The gap at which it ended, where it is to stop at gaps: once that is filled
    /// ([`super::gap::fill`]), the same request gives more.
    pub gap: Option<Gap>,
}

/// Reads one page of the timeline.
///
/// # Errors
/// Where the room may not or cannot be read.
pub async fn page(view: &RoomView<'_>, request: &PageRequest<'_>) -> Result<Page, HistoryError> {
    let end = PageToken::after(readable_end(view).await?.0).index;
    let (low, high) = match request.direction {
        Direction::Forward => (request.from.unwrap_or(TimelineIndex::MIN), request.to),
        Direction::Backward => (request.to.unwrap_or(TimelineIndex::MIN), request.from),
    };
    let high = high.map_or(end, |high| high.min(end));
    let limit = if request.filter.admits_room(view.room_id) { request.limit } else { 0 };
    let walk = Walk { low, high, direction: request.direction, limit, gaps: request.gaps };
    let walked = walk.run(view, request.filter).await?;
    let start = match request.direction {
        Direction::Forward => low,
        Direction::Backward => high,
    };
    let newest = match request.direction {
        Direction::Forward => walked.rows.last(),
        Direction::Backward => walked.rows.first(),
    };
    let end = walked.next.or_else(|| walked.before_what_is_left_out(request.direction));
    Ok(Page {
        start: PageToken::before(request.from.unwrap_or(start)),
        end: end.map(PageToken::before),
        newest: newest.map(|row| row.after),
        events: walked.events,
        gap: walked.gap,
    })
}

pub(super) async fn readable_end(
    view: &RoomView<'_>,
) -> Result<(TimelineIndex, StateRoot), HistoryError> {
    let forbidden = || HistoryError::Forbidden {
        user: view.viewer.user.clone(),
        room: view.room_id.to_owned(),
    };
    view.end().await?.ok_or_else(forbidden)
}

/// A walk over the timeline, from `low` on or from below `high` down.
pub(super) struct Walk {
    pub low: TimelineIndex,
    pub high: TimelineIndex,
    pub direction: Direction,
    pub limit: usize,
    /// Of no matter to a walk forward.
    pub gaps: Gaps,
}

/// What a walk met.
#[derive(Default)]
pub(super) struct Walked {
    pub events: Vec<Seen>,
    /// The rows of `events`.
    pub rows: Vec<TimelineRow>,
    /// The point at which there is more.
    pub next: Option<TimelineIndex>,
    /// Whether the last events that the viewer may see were left out by the filter.
    left_out: bool,
    /// The gap at which it ended.
    pub gap: Option<Gap>,
}

impl Walked {
    /// The point past the last event taken, where others follow that the filter leaves out.
    fn before_what_is_left_out(&self, direction: Direction) -> Option<TimelineIndex> {
        let last = self.events.last().filter(|_| self.left_out)?;
        Some(past(direction, last.index()))
    }
}

/// The point past an event in a direction.
fn past(direction: Direction, index: TimelineIndex) -> TimelineIndex {
    match direction {
        Direction::Forward => PageToken::after(index).index,
        Direction::Backward => index,
    }
}

impl Walk {
    pub async fn run(
        mut self,
        view: &RoomView<'_>,
        filter: &EventFilter,
    ) -> Result<Walked, ReadError> {
        let mut walked = Walked::default();
        if self.limit == 0 {
            return Ok(walked);
        }
        let gap = self.stop_at_gap(view).await?;
        self.walk(view, filter, &mut walked).await?;
        if let (None, Some(gap)) = (walked.next, gap) {
            walked.next = Some(TimelineIndex { n: gap.n, k: gap.filled_to });
            walked.gap = Some(gap);
        }
        Ok(walked)
    }

    /// Ends the walk at the nearest gap before its end.
    async fn stop_at_gap(&mut self, view: &RoomView<'_>) -> Result<Option<Gap>, ReadError> {
        if self.direction == Direction::Forward || self.gaps == Gaps::Pass {
            return Ok(None);
        }
        let high = (self.high.n, self.high.k);
        let Some(gap) = gap::before(view.snapshot, view.room_id, high).await? else {
            return Ok(None);
        };
        let begin = TimelineIndex { n: gap.n, k: i32::MIN };
        if begin < self.low {
            return Ok(None);
        }
        self.low = begin;
        Ok(Some(gap))
    }

    async fn walk(
        &mut self,
        view: &RoomView<'_>,
        filter: &EventFilter,
        walked: &mut Walked,
    ) -> Result<(), ReadError> {
        let (mut batch, mut rows_left) = (self.limit + 1, ROWS_MAX);
        while self.low < self.high && rows_left > 0 {
            batch = batch.min(BATCH_MAX);
            let rows = self.rows(view, batch).await?;
            rows_left = rows_left.saturating_sub(rows.len());
            let Some(((n, k), _)) = rows.last() else { return Ok(()) };
            let last = TimelineIndex { n: *n, k: *k };
            for seen in view.look_at_rows(&rows).await? {
                walked.left_out = !filter.admits_in_room(&seen.event.pdu);
                if walked.left_out {
                    continue;
                }
                if walked.events.len() == self.limit {
                    // One more than wanted: there is more after the last one taken.
                    let taken = walked.events.last();
                    walked.next = taken.map(|taken| past(self.direction, taken.index()));
                    return Ok(());
                }
                let row = rows.iter().find(|(_, row)| row.event == seen.event.number);
                walked.rows.extend(row.map(|(_, row)| *row));
                walked.events.push(seen);
            }
            match self.direction {
                Direction::Forward => self.low = past(self.direction, last),
                Direction::Backward => self.high = last,
            }
            if rows.len() < batch {
                return Ok(());
            }
            batch *= 4;
        }
        let next = match self.direction {
            Direction::Forward => self.low,
            Direction::Backward => self.high,
        };
        walked.next = (self.low < self.high).then_some(next);
        Ok(())
    }

    async fn rows(
        &self,
        view: &RoomView<'_>,
        limit: usize,
    ) -> Result<Vec<((i64, i32), TimelineRow)>, ReadError> {
        let (low, high) = ((self.low.n, self.low.k), (self.high.n, self.high.k));
        let scan = Scan::all().from(low).before(high).limit(limit);
        let scan = if self.direction == Direction::Backward { scan.reverse() } else { scan };
        Ok(view.snapshot.scan(&TIMELINE, view.room_id, scan).await?)
    }
}

/// The point of the timeline that a token stands for: for that of a sync, the end of what it saw.
///
/// # Errors
/// Where the store cannot be read.
pub async fn point(view: &RoomView<'_>, token: &FromToken) -> Result<TimelineIndex, ReadError> {
    match token {
        FromToken::Page(token) => Ok(token.index),
        FromToken::Sync(token) => {
            let n = last_covered(view, &token.view).await?;
            Ok(PageToken::after(TimelineIndex::live(n)).index)
        }
    }
}

/// `n` of the newest live event that `seen` covers; 0 where it covers none. The events that a view
/// covers are the first ones, so this is a binary search.
async fn last_covered(view: &RoomView<'_>, seen: &View) -> Result<i64, ReadError> {
    let covers = async |n: i64| -> Result<bool, ReadError> {
        let row = view.snapshot.get_stamped(&TIMELINE, view.room_id, (n, 0)).await?;
        // What came before the history that we have is covered.
        Ok(row.is_none_or(|(position, _): (Position, TimelineRow)| seen.covers(position)))
    };
    let (mut low, mut high) = (0, view.head.last);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        if covers(middle).await? { low = middle } else { high = middle - 1 }
    }
    Ok(low)
}

/// The members of a state who sent any of the events, for clients that load members lazily.
///
/// # Errors
/// Where the state cannot be read.
pub async fn senders(
    view: &RoomView<'_>,
    root: Option<StateRoot>,
    events: &[&Seen],
) -> Result<Vec<Seen>, ReadError> {
    let Some(root) = root else { return Ok(Vec::new()) };
    let mut senders: Vec<&str> = events.iter().map(|seen| seen.event.pdu.sender.as_str()).collect();
    senders.sort_unstable();
    senders.dedup();
    let places: Vec<_> = senders.into_iter().map(|sender| ("m.room.member", sender)).collect();
    let states = &view.rooms.states;
    let numbers = states.get_many(view.snapshot, view.room_id, root, &places).await?;
    let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
    view.state_events(&numbers).await
}

#[cfg(test)]
mod tests {
    use millrace_model::SyncToken;

    use super::*;
    use crate::rooms::test_room::{TestRoom, viewer};

    #[tokio::test]
    async fn the_token_of_a_sync_stands_for_the_end_of_what_it_saw() {
        let room = TestRoom::with_visibility("shared").await;
        let viewer = viewer("alice");
        let mut tokens = Vec::new();
        for n in 0..9 {
            let view = room.rooms.env.store.snapshot().view().clone();
            tokens.push(FromToken::Sync(SyncToken { view, to_device: 0, ephemeral: None }));
            room.say("alice", &format!("message {n}")).await;
        }
        let snapshot = room.rooms.env.store.snapshot();
        let view = open(&room.rooms, &snapshot, &room.id, &viewer).await.unwrap();
        let first = view.head.last - 8;
        for (token, n) in tokens.iter().zip(first..) {
            let before = PageToken::after(TimelineIndex::live(n - 1)).index;
            assert_eq!(point(&view, token).await.unwrap(), before);
            let filter = &EventFilter::default();
            let (direction, limit, gaps) = (Direction::Forward, 1, Gaps::Pass);
            let request =
                PageRequest { from: Some(before), to: None, direction, limit, filter, gaps };
            let page = page(&view, &request).await.unwrap();
            assert_eq!(page.events[0].index(), TimelineIndex::live(n));
        }
        let nothing =
            FromToken::Sync(SyncToken { view: View::empty(), to_device: 0, ephemeral: None });
        assert!(point(&view, &nothing).await.unwrap() <= TimelineIndex::live(1));
    }

    #[tokio::test]
    async fn messages_of_ignored_users_are_left_out_and_their_state_is_not() {
        let room = TestRoom::with_visibility("shared").await;
        let join = room.member("bob", "bob", "join").await;
        room.say("bob", "unwanted").await;
        let mut viewer = viewer("alice");
        viewer.ignored = std::sync::Arc::new([crate::rooms::test_room::user("bob")].into());
        let snapshot = room.rooms.env.store.snapshot();
        let view = open(&room.rooms, &snapshot, &room.id, &viewer).await.unwrap();
        let filter = &EventFilter::default();
        let (direction, limit, gaps) = (Direction::Backward, 1, Gaps::Pass);
        let request = PageRequest { from: None, to: None, direction, limit, filter, gaps };
        let page = page(&view, &request).await.unwrap();
        assert_eq!(page.events[0].event.pdu.event_id, join);
    }

    #[tokio::test]
    async fn a_page_before_which_there_is_only_what_the_filter_leaves_out_is_not_the_last() {
        let room = TestRoom::with_visibility("shared").await;
        let viewer = viewer("alice");
        let said = room.say("alice", "the only message").await;
        let snapshot = room.rooms.env.store.snapshot();
        let view = open(&room.rooms, &snapshot, &room.id, &viewer).await.unwrap();
        let only = |kind: &str| {
            let filter = serde_json::json!({ "types": [kind] });
            EventFilter::room(&serde_json::from_value(filter).unwrap())
        };
        let read = async |filter: &EventFilter, from| {
            let (direction, limit, gaps) = (Direction::Backward, 10, Gaps::Pass);
            let request = PageRequest { from, to: None, direction, limit, filter, gaps };
            page(&view, &request).await.unwrap()
        };
        let messages = only("m.room.message");
        let first = read(&messages, None).await;
        assert_eq!(first.events.len(), 1);
        assert_eq!(first.events[0].event.pdu.event_id, said);
        let end = first.end.expect("the room begins before the message").index;
        assert_eq!(end, first.events[0].index());
        let last = read(&messages, Some(end)).await;
        assert!(last.events.is_empty() && last.end.is_none());
        assert!(read(&only("m.room.create"), None).await.end.is_none(), "it begins the timeline");
    }
}
