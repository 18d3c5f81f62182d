//! Finding an event by its time (spec: Client-Server API, `timestamp_to_event`).

use millrace_model::TimelineIndex;
use millrace_store::{Read, tables::TIMELINE};
use ruma::{MilliSecondsSinceUnixEpoch, api::Direction};

use super::{
    history::{self, Gaps, HistoryError, Walk},
    view::{ReadError, RoomView, Seen},
};

/// Servers' clocks differ: so many events to either side are looked at for one that is closer.
const NEIGHBOURS: i64 = 64;
/// Pages of further events that are looked through where none is near.
const PAGES_MAX: usize = 16;
const PAGE: usize = 128;

/// The event closest to `at`: at it or after it, or at it or before it.
///
/// The timeline is searched as if its times rose, then the neighbourhood is looked at closely.
///
/// # Errors
/// [`HistoryError::NoEvent`] where there is none that the viewer may see.
pub async fn closest(
    view: &RoomView<'_>,
    at: MilliSecondsSinceUnixEpoch,
    direction: Direction,
) -> Result<Seen, HistoryError> {
    let n = first_not_before(view, at).await?;
    let (end, _) = history::readable_end(view).await?;
    let begin = match direction {
        Direction::Forward => n.saturating_sub(NEIGHBOURS),
        Direction::Backward => n.saturating_add(NEIGHBOURS),
    };
    let end = millrace_model::PageToken::after(end).index;
    let gaps = Gaps::Pass;
    let mut walk = match direction {
        Direction::Forward => Walk {
            low: TimelineIndex { n: begin, k: i32::MIN },
            high: end,
            direction,
            limit: PAGE,
            gaps,
        },
        Direction::Backward => Walk {
            low: TimelineIndex::MIN,
            high: TimelineIndex { n: begin, k: 0 }.min(end),
            direction,
            limit: PAGE,
            gaps,
        },
    };
    for _ in 0..PAGES_MAX {
        let (low, high) = (walk.low, walk.high);
        let walked = walk.run(view, &millrace_model::filter::EventFilter::default()).await?;
        let time = |seen: &Seen| seen.event.pdu.origin_server_ts;
        let fits = |seen: &Seen| match direction {
            Direction::Forward => time(seen) >= at,
            Direction::Backward => time(seen) <= at,
        };
        let fitting = walked.events.into_iter().filter(fits);
        // Of several at the same distance, the one that the walk met first.
        let closest = fitting.min_by_key(|seen| u64::from(time(seen).0).abs_diff(at.0.into()));
        if let Some(closest) = closest {
            return Ok(closest);
        }
        let next = walked.next.ok_or(HistoryError::NoEvent)?;
        walk = match direction {
            Direction::Forward => Walk { low: next, high, direction, limit: PAGE, gaps },
            Direction::Backward => Walk { low, high: next, direction, limit: PAGE, gaps },
        };
    }
    Err(HistoryError::NoEvent)
}

/// `n` of the first live event that is not before `at`, if times rise; one past the last where all
/// are before it.
async fn first_not_before(
    view: &RoomView<'_>,
    at: MilliSecondsSinceUnixEpoch,
) -> Result<i64, ReadError> {
    let (mut low, mut high) = (1, view.head.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = view.snapshot.get(&TIMELINE, view.room_id, (middle, 0)).await?;
        let event = match row {
            Some(row) => view.load_events(&[row.event]).await?.pop(),
            None => None,
        };
        // What came before the history that we have is before everything.
        let is_before = event.is_none_or(|event| event.pdu.origin_server_ts < at);
        if is_before { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
