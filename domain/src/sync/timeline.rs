//! Which part of a room's timeline a sync returns.

use millrace_model::{PageToken, TimelineIndex, filter::EventFilter};
use millrace_store::{
    Read, Scan, rows::room::TimelineRow, state_tree::StateRoot, tables::TIMELINE,
};

use super::{Step, SyncError};
use crate::{
    json::Object,
    rooms::{RoomView, Seen, gap, recent::Rows},
};

/// So many rows are looked through at most for events that a filter admits.
const LOOKED_AT_MAX: usize = 2_000;
/// Where all of a timeline begins.
const ALL: (i64, i32) = (1, i32::MIN);

/// What part of a timeline is wanted.
pub struct Wanted<'a> {
    /// The first live event the client has not seen; 1 for all.
    pub first_new: i64,
    /// The last live event it may see.
    pub last: i64,
    /// At most so many events, the newest.
    pub limit: usize,
    /// Which events.
    pub filter: &'a EventFilter,
}

/// A part of a timeline, oldest first.
pub struct Timeline {
    /// The events.
    pub events: Vec<Seen>,
    /// Whether events between the client's last and the first of these were left out.
    pub limited: bool,
    /// Where paging back begins: before this place.
    pub start: (i64, i32),
    /// The room's state before the first of these; where there are none, after the last event.
    pub state_before: StateRoot,
    /// Whether the state between some of them changed by more than they say, as forks were joined.
    pub forked: bool,
}

/// Reads the newest visible events of `wanted`.
///
/// # Errors
/// Where the store cannot be read.
pub async fn read(view: &RoomView<'_>, wanted: &Wanted<'_>) -> Result<Timeline, SyncError> {
    let mut timeline = Timeline {
        events: Vec::new(),
        limited: false,
        start: (wanted.last + 1, i32::MIN),
        state_before: view.head.root,
        forked: false,
    };
    let mut looked_at = 0;
    let (oldest, cut) = beginning(view, wanted).await?;
    loop {
        let missing = wanted.limit.saturating_sub(timeline.events.len());
        // At least two: `clamp` would panic where less is left than that.
        let batch = (missing + 1).min(LOOKED_AT_MAX - looked_at).max(2);
        let rows = batch_of_rows(view, oldest, timeline.start, batch).await?;
        let exhausted = rows.len() < batch;
        looked_at += rows.len();
        if let Some(more) = take(view, wanted, rows, &mut timeline).await? {
            timeline.limited = more;
            break;
        }
        if exhausted || looked_at >= LOOKED_AT_MAX {
            timeline.limited = !exhausted || cut;
            break;
        }
    }
    timeline.events.reverse();
    Ok(timeline)
}

/// The oldest event that may be told, and whether there are older ones that are wanted: the timeline
/// begins after the newest gap, and what was filled in there is no news.
async fn beginning(
    view: &RoomView<'_>,
    wanted: &Wanted<'_>,
) -> Result<((i64, i32), bool), SyncError> {
    if wanted.first_new == ALL.0 && view.newest().await?.without_gaps {
        return Ok((ALL, false));
    }
    let gap = gap::before(view.snapshot, view.room_id, (wanted.last, 0)).await?;
    match gap {
        Some(gap) if gap.n >= wanted.first_new => Ok(((gap.n, 0), true)),
        _ => Ok(((wanted.first_new, i32::MIN), false)),
    }
}

/// The newest rows from one place on and before another, at most so many.
async fn batch_of_rows(
    view: &RoomView<'_>,
    oldest: (i64, i32),
    before: (i64, i32),
    limit: usize,
) -> Result<Rows, SyncError> {
    // Who begins with the room mostly gets what others got who did.
    if oldest == ALL && before.0 > view.head.last {
        let newest = view.newest().await?;
        let begins = newest.rows.first().is_none_or(|(place, _)| *place < before);
        if begins && newest.suffices(limit) {
            let wanted = newest.rows.iter().take_while(|(place, _)| *place >= oldest);
            return Ok(wanted.take(limit).copied().collect());
        }
    }
    let scan = Scan::all().from(oldest).before(before).reverse().limit(limit);
    Ok(view.snapshot.scan(&TIMELINE, view.room_id, scan).await?)
}

/// Adds a timeline to a room.
pub(super) async fn put(
    step: &Step<'_>,
    view: &RoomView<'_>,
    timeline: &Timeline,
    room: &mut Object<'_>,
) -> Result<(), SyncError> {
    let mut object = room.object("timeline");
    step.put_events(view, &timeline.events, &mut object).await?;
    object.put("limited", &timeline.limited);
    let (n, k) = timeline.start;
    object.put_str("prev_batch", &PageToken::before(TimelineIndex { n, k }).to_string());
    object.end();
    Ok(())
}

/// Takes what fits from rows (newest first). `Some(limited)` where enough was taken.
async fn take(
    view: &RoomView<'_>,
    wanted: &Wanted<'_>,
    rows: Vec<((i64, i32), TimelineRow)>,
    timeline: &mut Timeline,
) -> Result<Option<bool>, SyncError> {
    let mut visible = view.look_at_rows(&rows).await?.into_iter().peekable();
    for (key, row) in rows {
        let seen = visible.next_if(|seen| seen.event.number == row.event);
        let admitted = seen.filter(|seen| wanted.filter.admits_in_room(&seen.event.pdu));
        let is_newest = timeline.start.0 > wanted.last;
        if !is_newest && row.after != timeline.state_before && key.1 == 0 {
            timeline.forked = true;
            timeline.state_before = row.after;
        }
        // What was filled in is no news.
        let enough = admitted.is_some() && timeline.events.len() == wanted.limit;
        if enough || key.1 != 0 {
            return Ok(Some(true));
        }
        timeline.start = key;
        timeline.state_before = row.before;
        timeline.events.extend(admitted);
    }
    Ok(None)
}
