//! Going through what the index finds, and choosing what the viewer may see.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use millrace_domain::rooms::{RoomView, Seen, Viewer};
use millrace_model::relations::{Relation, RelationKind};
use millrace_store::Snapshot;
use ruma::{OwnedEventId, OwnedRoomId};

use super::{
    Group, GroupFound, GroupKey, NextBatch, RESULTS_MAX, Request, SearchError, token::SKIP_MAX,
};
use crate::{
    Search,
    follow::text_of,
    index::{Cursor, Hit, Order, Query},
    words::Terms,
};

/// What matches is looked at so many at a time.
const HITS_AT_ONCE_MIN: usize = 32;
const HITS_AT_ONCE_MAX: usize = 128;
/// What one request looks at, at most. Who wants more goes on from where it ended.
const HITS_MAX: usize = 1024;
/// The most words to highlight.
const HIGHLIGHTS_MAX: usize = 100;

/// A page of results, before it is rendered.
#[derive(Default)]
pub(super) struct Collected {
    pub chosen: Vec<Chosen>,
    pub count: usize,
    pub highlights: BTreeSet<String>,
    pub groups: BTreeMap<Group, GroupFound>,
    pub next_batch: Option<NextBatch>,
}

/// A result.
pub(super) struct Chosen {
    pub seen: Seen,
    pub rank: f32,
}

/// An event that matches, and what it says now.
struct Matched {
    seen: Seen,
    text: String,
}

/// How far each group and all of it were gone through.
struct Walked {
    cursor: Cursor,
    /// What was looked at.
    looked_at: usize,
    /// Of each group: what was looked at, and the place of the last.
    groups: BTreeMap<Group, (usize, u64)>,
}

impl Search {
    pub(super) async fn collect(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        request: &Request,
        terms: Terms,
    ) -> Result<Collected, SearchError> {
        let known = request.next_batch.as_ref().map(|token| token.count);
        let mut collected = Collected { count: known.unwrap_or(0), ..Collected::default() };
        let query = self.query(snapshot, viewer, request, terms).await?;
        let limit = request.limit.clamp(1, RESULTS_MAX);
        let mut walked = begin(request)?;
        let mut total = None;
        'walk: while walked.looked_at < HITS_MAX {
            let (wanted, cursor) = (query.clone(), walked.cursor);
            let at_once = (limit * 2).clamp(HITS_AT_ONCE_MIN, HITS_AT_ONCE_MAX);
            let page = self.on_index(move |index| index.find(&wanted, cursor, at_once)).await?;
            let total = *total.get_or_insert(page.total);
            let mut matched = self.look(snapshot, viewer, request, &page.hits).await?;
            for hit in &page.hits {
                walked.past(hit, request.order);
                if let Some(matched) = matched.remove(&hit.number) {
                    collected.take(matched, hit, (&query.terms, request));
                }
                if collected.chosen.len() == limit {
                    break 'walk;
                }
            }
            if walked.looked_at >= total || page.hits.is_empty() {
                break;
            }
        }
        if known.is_none() {
            collected.count =
                estimate(collected.chosen.len(), walked.looked_at, total.unwrap_or(0));
        }
        let ended = collected.chosen.len() < limit && walked.looked_at >= total.unwrap_or(0);
        let too_far = matches!(walked.cursor, Cursor::Skip(skip) if skip > SKIP_MAX);
        if !ended && !too_far {
            collected.go_on(&walked, request);
        }
        Ok(collected)
    }

    async fn query(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        request: &Request,
        terms: Terms,
    ) -> Result<Query, SearchError> {
        let group = request.next_batch.as_ref().and_then(|token| token.group.as_ref());
        let senders = match group {
            Some(Group::Sender(sender)) => Some(vec![sender.clone()]),
            Some(Group::Room(_)) | None => request.senders.clone(),
        };
        let kinds = request.kinds.iter().filter(|kind| request.filter.admits_type(kind));
        Ok(Query {
            terms,
            rooms: self.scope(snapshot, viewer, request).await?,
            kinds: kinds.cloned().collect(),
            senders,
            order: request.order,
        })
    }

    /// What of the hits the viewer may see and wants, by the hits' numbers.
    async fn look(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        request: &Request,
        hits: &[Hit],
    ) -> Result<HashMap<u64, Matched>, SearchError> {
        let mut by_room: BTreeMap<&OwnedRoomId, Vec<u64>> = BTreeMap::new();
        for hit in hits {
            by_room.entry(&hit.room).or_default().push(hit.number);
        }
        let mut found = HashMap::new();
        for (room, numbers) in by_room {
            let Some(view) = self.searchable(snapshot, room, viewer).await? else { continue };
            for seen in view.look(&numbers).await? {
                let number = seen.event.number;
                let Some(matched) = result(&view, seen).await? else { continue };
                if request.filter.admits_in_room(&matched.seen.event.pdu) {
                    found.insert(number, matched);
                }
            }
        }
        Ok(found)
    }
}

/// The result that a match stands for: an event that was edited is found by what the edit that counts
/// for the viewer says, and by nothing else.
async fn result(view: &RoomView<'_>, seen: Seen) -> Result<Option<Matched>, SearchError> {
    if seen.header.redacted_by.is_some() {
        return Ok(None);
    }
    let text = text_of(&seen.event.pdu).unwrap_or_default();
    let relation = Relation::of(&seen.event.pdu);
    let Some(edited) = relation.filter(|relation| relation.kind == RelationKind::Replace) else {
        let is_edited = seen.header.aggregated && view.newest_edit(&seen).await?.is_some();
        return Ok((!is_edited).then_some(Matched { seen, text }));
    };
    let Some(original) = view.find(&edited.parent).await? else { return Ok(None) };
    if original.header.redacted_by.is_some() {
        return Ok(None);
    }
    let newest = view.newest_edit(&original).await?;
    let counts = newest.is_some_and(|newest| newest.event.number == seen.event.number);
    Ok(counts.then_some(Matched { seen: original, text }))
}

fn begin(request: &Request) -> Result<Walked, SearchError> {
    let cursor = request.next_batch.as_ref().map_or(Cursor::Start, |token| token.cursor);
    match (request.order, cursor) {
        (_, Cursor::Start)
        | (Order::Rank, Cursor::Skip(_))
        | (Order::Recent, Cursor::Before(_)) => {}
        (Order::Rank, Cursor::Before(_)) | (Order::Recent, Cursor::Skip(_)) => {
            return Err(super::InvalidNextBatch.into());
        }
    }
    Ok(Walked { cursor, looked_at: 0, groups: BTreeMap::new() })
}

/// About how many results there are: what was not looked at is taken to be as what was.
fn estimate(chosen: usize, looked_at: usize, total: usize) -> usize {
    let unseen = total.saturating_sub(looked_at);
    (unseen * chosen).checked_div(looked_at).map_or(0, |more| chosen + more)
}

impl Walked {
    fn past(&mut self, hit: &Hit, order: Order) {
        self.looked_at += 1;
        self.cursor = match (order, self.cursor) {
            (Order::Recent, _) => Cursor::Before(hit.order),
            (Order::Rank, Cursor::Skip(skip)) => Cursor::Skip(skip + 1),
            (Order::Rank, Cursor::Start | Cursor::Before(_)) => Cursor::Skip(1),
        };
        for group in [Group::Room(hit.room.clone()), Group::Sender(hit.sender.clone())] {
            let (looked_at, last) = self.groups.entry(group).or_default();
            (*looked_at, *last) = (*looked_at + 1, hit.order);
        }
    }
}

impl Collected {
    fn take(&mut self, matched: Matched, hit: &Hit, (terms, request): (&Terms, &Request)) {
        let Matched { seen, text } = matched;
        let pdu = &seen.event.pdu;
        if self.highlights.len() < HIGHLIGHTS_MAX {
            self.highlights.extend(terms.found_in(&text));
        }
        for key in &request.group_by {
            let group = match key {
                GroupKey::Room => Group::Room(pdu.room_id.clone()),
                GroupKey::Sender => Group::Sender(pdu.sender.clone()),
            };
            let order = self.chosen.len() + 1;
            let empty = GroupFound { order, results: Vec::new(), next_batch: None };
            let event_id: OwnedEventId = pdu.event_id.clone();
            self.groups.entry(group).or_insert(empty).results.push(event_id);
        }
        self.chosen.push(Chosen { seen, rank: hit.score });
    }

    /// Notes where to go on.
    fn go_on(&mut self, walked: &Walked, request: &Request) {
        let token = request.next_batch.as_ref();
        let (count, group) = (self.count, token.and_then(|token| token.group.clone()));
        self.next_batch = Some(NextBatch { cursor: walked.cursor, count, group });
        for (group, found) in &mut self.groups {
            let Some((looked_at, last)) = walked.groups.get(group) else { continue };
            let cursor = match (request.order, token) {
                (Order::Recent, _) => Cursor::Before(*last),
                (Order::Rank, None) => Cursor::Skip(*looked_at),
                (Order::Rank, Some(token)) if token.group.as_ref() == Some(group) => walked.cursor,
                // How much of the group earlier pages have shown is not known here.
                (Order::Rank, Some(_)) => continue,
            };
            found.next_batch = Some(NextBatch { cursor, count, group: Some(group.clone()) });
        }
    }
}
