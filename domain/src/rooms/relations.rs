//! Events that relate to an event (spec: Client-Server API, Relationships API).

use std::collections::{BTreeMap, HashSet};

use millrace_model::{PageToken, TimelineIndex};
use millrace_store::{
    Read, Scan,
    rows::room::{EventHeader, Relation},
    tables::{EVENT_HEADERS, RELATIONS},
};
use ruma::{EventId, OwnedEventId, api::Direction};

use super::{
    history::HistoryError,
    view::{ReadError, RoomView, Seen},
};

/// How far relations of relations are followed.
pub const DEPTH_MAX: u32 = 3;
/// Events that are followed in one request, at most.
const FOLLOWED_MAX: usize = 2048;

/// Whether relations of relations are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recursion {
    /// Only what relates to the event itself.
    Direct,
    /// Also what relates to that, [`DEPTH_MAX`] deep.
    Deep,
}

/// Which relations are wanted.
#[derive(Debug, Clone)]
pub struct RelationsRequest<'a> {
    /// The event related to.
    pub parent: &'a EventId,
    /// Only relations of this `rel_type`.
    pub rel_type: Option<&'a str>,
    /// Only events of this type.
    pub kind: Option<&'a str>,
    /// Also indirect ones.
    pub recursion: Recursion,
    /// Where to go: [`Direction::Backward`] is newest first.
    pub direction: Direction,
    /// The point to begin at.
    pub from: Option<TimelineIndex>,
    /// The point not to pass.
    pub to: Option<TimelineIndex>,
    /// How many events, at most.
    pub limit: usize,
}

/// One page of relations.
#[derive(Debug)]
pub struct Relations {
    /// The relating events, in the direction asked for.
    pub events: Vec<Seen>,
    /// Where to go on; none where there is no more.
    pub next: Option<PageToken>,
}

/// Reads one page of what relates to an event that the viewer may see.
///
/// # Errors
/// [`HistoryError::UnknownEvent`] where they may not see the event.
pub async fn relations(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
) -> Result<Relations, HistoryError> {
    let unknown = || HistoryError::UnknownEvent(request.parent.to_owned());
    view.find(request.parent).await?.ok_or_else(unknown)?;
    let (low, high) = match request.direction {
        Direction::Forward => (request.from, request.to),
        Direction::Backward => (request.to, request.from),
    };
    let range = (low.unwrap_or(TimelineIndex::MIN), high.unwrap_or(TimelineIndex::MAX));
    let mut places = match request.recursion {
        Recursion::Direct => direct(view, request, range).await?,
        Recursion::Deep => deep(view, request, range).await?,
    };
    if request.direction == Direction::Backward {
        places.reverse();
    }
    let mut events: Vec<Seen> = Vec::new();
    // What the viewer may not see is left out, so it may take more than one look.
    for chunk in places.chunks(request.limit.saturating_add(1)) {
        for seen in view.look(chunk).await? {
            if seen.header.redacted_by.is_some() {
                continue; // A redacted event relates to nothing any more.
            }
            if let Some(last) = events.last().filter(|_| events.len() >= request.limit) {
                let next = match request.direction {
                    Direction::Forward => PageToken::after(last.index()),
                    Direction::Backward => PageToken::before(last.index()),
                };
                return Ok(Relations { events, next: Some(next) });
            }
            events.push(seen);
        }
    }
    Ok(Relations { events, next: None })
}

impl RelationsRequest<'_> {
    fn admits(&self, row: &Relation) -> bool {
        self.rel_type.is_none_or(|wanted| wanted == row.rel_type)
            && self.kind.is_none_or(|wanted| wanted == row.kind)
    }
}

type Range = (TimelineIndex, TimelineIndex);

/// Numbers of the events that relate to the parent itself, in order of the timeline.
async fn direct(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    (low, high): Range,
) -> Result<Vec<u64>, ReadError> {
    let parent = request.parent;
    let scan = Scan::prefix(parent).from((parent, low.n, low.k)).before((parent, high.n, high.k));
    let rows = view.snapshot.scan(&RELATIONS, view.room_id, scan).await?;
    let wanted = rows.into_iter().filter(|(_, row)| request.admits(row));
    Ok(wanted.map(|(_, row)| row.event).collect())
}

/// As [`direct`], with what relates to those in turn, through events of any type.
async fn deep(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    (low, high): Range,
) -> Result<Vec<u64>, ReadError> {
    let mut found: BTreeMap<TimelineIndex, u64> = BTreeMap::new();
    let mut followed: HashSet<OwnedEventId> = [request.parent.to_owned()].into();
    let mut parents = vec![request.parent.to_owned()];
    for _ in 0..DEPTH_MAX {
        let mut numbers = Vec::new();
        for parent in &parents {
            let rows = view.snapshot.scan(&RELATIONS, view.room_id, Scan::prefix(parent)).await?;
            for ((_, n, k), row) in rows {
                let index = TimelineIndex { n, k };
                if request.admits(&row) && index >= low && index < high {
                    found.insert(index, row.event);
                }
                numbers.push(row.event);
            }
        }
        let headers = view.snapshot.get_many(&EVENT_HEADERS, view.room_id, numbers).await?;
        let next = |header: Option<EventHeader>| {
            let header = header.filter(|header| header.related && header.redacted_by.is_none())?;
            followed.insert(header.event_id.clone()).then_some(header.event_id)
        };
        parents = headers.into_iter().filter_map(next).collect();
        if followed.len() > FOLLOWED_MAX {
            break;
        }
    }
    Ok(found.into_values().collect())
}
