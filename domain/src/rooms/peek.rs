//! Following one room without being in it (spec: Client-Server API, Room previews, `GET
//! /events?room_id=`).

use std::time::Duration;

use millrace_model::{
    PageToken, TimelineIndex, client_event::RoomIdField, filter::EventFilter, position::FromToken,
};
use millrace_store::PartitionId;
use ruma::{OwnedRoomId, RoomId, api::Direction};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::{
    Rooms, Viewer,
    history::{self, Gaps, HistoryError, PageRequest},
};

/// Events of one answer.
const EVENTS_MAX: usize = 100;

/// What happened in a room.
#[derive(Debug)]
pub struct Peeked {
    /// Where it began.
    pub start: PageToken,
    /// Where to go on.
    pub end: PageToken,
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
}

/// What happened in a room since `from`, or happens from now on: at once where there is something,
/// else as soon as there is, else nothing after `wait`. `ended` completes when the server is to stop.
///
/// # Errors
/// [`HistoryError::Forbidden`] where the viewer may not read the room.
pub async fn peek(
    rooms: &Rooms,
    (viewer, room): (&Viewer, &RoomId),
    from: Option<&FromToken>,
    wait: Duration,
    ended: impl Future<Output = ()>,
) -> Result<Peeked, HistoryError> {
    let deadline = Instant::now() + wait;
    let mut start = None;
    tokio::pin!(ended);
    loop {
        // Watch first, then look: what is committed in between is seen by the look.
        let watch = rooms.env.store.watch(vec![PartitionId::of::<OwnedRoomId>(&room)]);
        let peeked = look(rooms, (viewer, room), from, &mut start).await?;
        if !peeked.events.is_empty() {
            return Ok(peeked);
        }
        tokio::select! {
            woken = timeout_at(deadline, watch.changed()) => if woken.is_err() {
                return Ok(peeked);
            },
            () = &mut ended => return Ok(peeked),
        }
    }
}

/// What is there from `start` on, which the first look settles.
async fn look(
    rooms: &Rooms,
    (viewer, room): (&Viewer, &RoomId),
    from: Option<&FromToken>,
    start: &mut Option<TimelineIndex>,
) -> Result<Peeked, HistoryError> {
    let snapshot = rooms.env.store.snapshot();
    let view = history::open(rooms, &snapshot, room, viewer).await?;
    let begin = match (*start, from) {
        (Some(start), _) => start,
        (None, Some(from)) => history::point(&view, from).await?,
        (None, None) => PageToken::after(history::readable_end(&view).await?.0).index,
    };
    *start = Some(begin);
    let page = history::page(
        &view,
        &PageRequest {
            from: Some(begin),
            to: None,
            direction: Direction::Forward,
            limit: EVENTS_MAX,
            filter: &EventFilter::default(),
            gaps: Gaps::Pass,
        },
    )
    .await?;
    let end = page.events.last().map_or(begin, |last| PageToken::after(last.index()).index);
    let events = view.render(&page.events, RoomIdField::Present).await;
    Ok(Peeked {
        start: PageToken::before(begin),
        end: page.end.unwrap_or_else(|| PageToken::before(end)),
        events: events?,
    })
}
