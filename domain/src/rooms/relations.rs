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

/// Kinds of relations of one event that are read where the client does not name one.
const KINDS_MAX: usize = 64;
/// Relations of one kind that are read at once, at most.
const BATCH_MAX: usize = 1024;
/// So many times more of each kind is read for one page; who wants more goes on from there.
const ROUNDS_MAX: usize = 16;

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
    Ok(match request.recursion {
        Recursion::Direct => direct(view, request, range).await?,
        Recursion::Deep => deep(view, request, range).await?,
    })
}

impl RelationsRequest<'_> {
    fn admits(&self, row: &Relation) -> bool {
        self.rel_type.is_none_or(|wanted| wanted == row.rel_type)
            && self.kind.is_none_or(|wanted| wanted == row.kind)
    }

    /// The point past an event in this direction.
    fn past(&self, index: TimelineIndex) -> PageToken {
        match self.direction {
            Direction::Forward => PageToken::after(index),
            Direction::Backward => PageToken::before(index),
        }
    }
}

/// Adds those of the events that the viewer may see, until the page is full; then the point to go
/// on from.
async fn fill(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    page: &mut Vec<Seen>,
    numbers: &[u64],
) -> Result<Option<PageToken>, ReadError> {
    // What the viewer may not see is left out, so it may take more than one look.
    for chunk in numbers.chunks(request.limit.saturating_add(1)) {
        for seen in view.look(chunk).await? {
            if let Some(last) = page.last().filter(|_| page.len() >= request.limit) {
                return Ok(Some(request.past(last.index())));
            }
            page.push(seen);
        }
    }
    Ok(None)
}

type Range = (TimelineIndex, TimelineIndex);

/// What relates to the parent itself. Each kind of relation is in order of the timeline; they are
/// read side by side.
async fn direct(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    (mut low, mut high): Range,
) -> Result<Relations, ReadError> {
    let kinds = match request.rel_type {
        Some(kind) => vec![kind.to_owned()],
        None => kinds(view, request.parent).await?,
    };
    let (mut events, mut batch) = (Vec::new(), request.limit.saturating_add(1));
    for _ in 0..ROUNDS_MAX {
        let mut found: Vec<(TimelineIndex, Relation)> = Vec::new();
        // Up to where each kind was read to its end or at least this far.
        let mut whole_until: Option<TimelineIndex> = None;
        for kind in &kinds {
            let rows = rows(view, request, kind, (low, high), batch).await?;
            if rows.len() == batch {
                let last = rows.last().map_or(TimelineIndex::MIN, |(index, _)| *index);
                let nearer = |other: TimelineIndex| match request.direction {
                    Direction::Forward => other.min(last),
                    Direction::Backward => other.max(last),
                };
                whole_until = Some(whole_until.map_or(last, nearer));
            }
            found.extend(rows);
        }
        found.retain(|(index, row)| {
            let is_whole = whole_until.is_none_or(|until| match request.direction {
                Direction::Forward => *index <= until,
                Direction::Backward => *index >= until,
            });
            is_whole && request.admits(row)
        });
        found.sort_unstable_by_key(|(index, _)| *index);
        if request.direction == Direction::Backward {
            found.reverse();
        }
        let numbers: Vec<u64> = found.into_iter().map(|(_, row)| row.event).collect();
        if let Some(next) = fill(view, request, &mut events, &numbers).await? {
            return Ok(Relations { events, next: Some(next) });
        }
        let Some(until) = whole_until else { return Ok(Relations { events, next: None }) };
        match request.direction {
            Direction::Forward => low = PageToken::after(until).index,
            Direction::Backward => high = until,
        }
        batch = batch.saturating_mul(2).min(BATCH_MAX);
    }
    let next = match request.direction {
        Direction::Forward => low,
        Direction::Backward => high,
    };
    Ok(Relations { events, next: Some(PageToken::before(next)) })
}

async fn rows(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    kind: &str,
    (low, high): Range,
    limit: usize,
) -> Result<Vec<(TimelineIndex, Relation)>, ReadError> {
    let parent = request.parent;
    let scan = Scan::prefix((parent, kind))
        .from((parent, kind, low.n, low.k))
        .before((parent, kind, high.n, high.k))
        .limit(limit);
    let scan = if request.direction == Direction::Backward { scan.reverse() } else { scan };
    let rows = view.snapshot.scan(&RELATIONS, view.room_id, scan).await?;
    Ok(rows.into_iter().map(|((_, _, n, k), row)| (TimelineIndex { n, k }, row)).collect())
}

/// The kinds of relations that a parent has, each found by one step over all of the one before.
async fn kinds(view: &RoomView<'_>, parent: &EventId) -> Result<Vec<String>, ReadError> {
    let mut kinds: Vec<String> = Vec::new();
    while kinds.len() < KINDS_MAX {
        let scan = Scan::prefix(parent).limit(1);
        let scan = match kinds.last() {
            Some(kind) => scan.after((parent, kind, i64::MAX, i32::MAX)),
            None => scan,
        };
        match view.snapshot.scan(&RELATIONS, view.room_id, scan).await?.pop() {
            Some(((_, kind, _, _), _)) => kinds.push(kind),
            None => break,
        }
    }
    Ok(kinds)
}

/// As [`direct`], with what relates to those in turn, through events of any type.
async fn deep(
    view: &RoomView<'_>,
    request: &RelationsRequest<'_>,
    (low, high): Range,
) -> Result<Relations, ReadError> {
    let mut found: BTreeMap<TimelineIndex, u64> = BTreeMap::new();
    let mut followed: HashSet<OwnedEventId> = [request.parent.to_owned()].into();
    let mut parents = vec![request.parent.to_owned()];
    for _ in 0..DEPTH_MAX {
        let mut numbers = Vec::new();
        for parent in &parents {
            let rows = view.snapshot.scan(&RELATIONS, view.room_id, Scan::prefix(parent)).await?;
            for ((_, _, n, k), row) in rows {
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
    let mut numbers: Vec<u64> = found.into_values().collect();
    if request.direction == Direction::Backward {
        numbers.reverse();
    }
    let mut events = Vec::new();
    let next = fill(view, request, &mut events, &numbers).await?;
    Ok(Relations { events, next })
}
