//! The rooms and spaces of a space (spec: Client-Server API, Spaces, `GET
//! /rooms/{roomId}/hierarchy`).

mod for_server;

use std::collections::HashSet;

use futures::future::BoxFuture;
use millrace_store::{
    Read, Scan, Snapshot,
    tables::{CURRENT_STATE, EVENT_HEADERS, ROOM_HEAD},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    room::RoomSummary,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    ReadError, Rooms,
    summary::{is_visible, summarise},
};

pub use self::for_server::{SpaceForServer, for_server};

/// The most rooms in one answer.
pub const PAGE_ROOMS_MAX: usize = 50;
/// How many rooms are looked at for one answer, those of earlier pages included.
const VISITS_MAX: usize = 10_000;
/// The longest `order` of a child, in characters (spec: m.space.child).
const ORDER_MAX: usize = 50;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    /// The space to begin with.
    pub room: OwnedRoomId,
    /// Servers that may have it, where this one does not.
    pub via: Vec<OwnedServerName>,
    /// Who asks.
    pub user: OwnedUserId,
    /// At most so many rooms.
    pub limit: Option<usize>,
    /// How many steps below the first space rooms may be.
    pub max_depth: Option<u64>,
    /// Whether only suggested children are followed.
    pub suggested_only: bool,
    /// `next` of the page before.
    pub from: Option<String>,
}

/// A room of a space.
#[derive(Debug, Clone)]
pub struct SpaceRoom {
    /// The room.
    pub summary: RoomSummary,
    /// The room's own children: stripped `m.space.child` events with `origin_server_ts`.
    pub children: Vec<Box<RawValue>>,
}

/// Rooms of a space in the order of a walk that goes down first.
#[derive(Debug, Clone)]
pub struct Page {
    /// The rooms.
    pub rooms: Vec<SpaceRoom>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Why no rooms are shown.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// There is no such room, or the user may not see it.
    #[error("you may not see the room {0}")]
    NotVisible(OwnedRoomId),
    /// A token that no page of the same question has given.
    #[error("not a token of this hierarchy")]
    Token,
    /// A room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Query {
    /// A token says how many rooms came before, and what was asked: with other parameters it would
    /// mean other rooms.
    fn token(&self, offset: usize) -> String {
        let depth = self.max_depth.map_or_else(|| "all".to_owned(), |depth| depth.to_string());
        let children = if self.suggested_only { "suggested" } else { "any" };
        format!("{offset}_{depth}_{children}")
    }

    fn offset(&self) -> Option<usize> {
        let Some(from) = &self.from else { return Some(0) };
        let offset = from.split('_').next()?.parse().ok()?;
        (*from == self.token(offset)).then_some(offset)
    }
}

/// Rooms that this server does not have, as other servers tell of them.
pub trait Elsewhere: Sync {
    /// What one of `via` says of a room; `None` where none of them tells us of it.
    fn room<'a>(
        &'a self,
        room: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Option<SpaceRoom>>;
}

/// A room that waits to be looked at.
struct Waiting {
    room: OwnedRoomId,
    depth: u64,
    /// Servers that have it.
    via: Vec<OwnedServerName>,
}

/// One page of the rooms of a space that the user may see.
///
/// # Errors
/// Where the user may not see the space, or the token is not of this question.
pub async fn hierarchy(
    rooms: &Rooms,
    elsewhere: &dyn Elsewhere,
    query: &Query,
) -> Result<Page, HierarchyError> {
    let offset = query.offset().ok_or(HierarchyError::Token)?;
    let limit = query.limit.unwrap_or(PAGE_ROOMS_MAX).clamp(1, PAGE_ROOMS_MAX);
    let snapshot = &rooms.env.store.snapshot();
    let mut waiting = vec![Waiting { room: query.room.clone(), depth: 0, via: query.via.clone() }];
    let mut visited = HashSet::new();
    let mut page = Page { rooms: Vec::new(), next: None };
    let mut shown = 0;
    while let Some(Waiting { room, depth, via }) = waiting.pop() {
        if visited.len() >= VISITS_MAX || !visited.insert(room.clone()) {
            continue;
        }
        let found = match space_room(rooms, snapshot, &room).await? {
            Some(found) => Some(found),
            None => elsewhere.room(&room, &via, query.suggested_only).await,
        };
        let found = match found {
            Some(found) if is_visible(snapshot, Some(&query.user), &found.summary).await? => found,
            _ if depth == 0 => return Err(HierarchyError::NotVisible(room)),
            _ => continue,
        };
        if page.rooms.len() == limit {
            page.next = Some(query.token(shown));
            break;
        }
        let SpaceRoom { summary, children } = found;
        let children = sorted(children, query.suggested_only);
        if query.max_depth.is_none_or(|max| depth < max) {
            let next = children.iter().rev();
            waiting.extend(next.map(|child| Waiting {
                room: child.room.clone(),
                depth: depth + 1,
                via: child.via.clone(),
            }));
        }
        if shown >= offset {
            let children = children.into_iter().map(|child| child.event).collect();
            page.rooms.push(SpaceRoom { summary, children });
        }
        shown += 1;
    }
    Ok(page)
}

/// A child of a space, and what it is sorted by: those with an order first (spec: Ordering of
/// children within a space).
struct Child {
    room: OwnedRoomId,
    via: Vec<OwnedServerName>,
    order: Option<String>,
    at: MilliSecondsSinceUnixEpoch,
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct ChildEvent {
    state_key: String,
    content: ChildContent,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

#[derive(Deserialize)]
struct ChildContent {
    via: Option<Vec<OwnedServerName>>,
    order: Option<serde_json::Value>,
    suggested: Option<bool>,
}

impl Child {
    /// Reads a child event; `None` where it is none, or one that was taken away.
    fn read(event: Box<RawValue>) -> Option<(Self, bool)> {
        let ChildEvent { state_key, content, origin_server_ts: at } =
            serde_json::from_str(event.get()).ok()?;
        let room = RoomId::parse(state_key).ok()?;
        let via = content.via.filter(|via| !via.is_empty())?;
        let order = content.order.and_then(|order| order.as_str().map(str::to_owned));
        let order = order.filter(|order| is_order(order));
        Some((Self { room, via, order, at, event }, content.suggested == Some(true)))
    }
}

/// The children of a space in their order; those that are none are left out.
fn sorted(events: Vec<Box<RawValue>>, suggested_only: bool) -> Vec<Child> {
    let children = events.into_iter().filter_map(Child::read);
    let children = children.filter(|(_, suggested)| *suggested || !suggested_only);
    let mut children: Vec<Child> = children.map(|(child, _)| child).collect();
    children.sort_by(|a, b| {
        let key = |child: &Child| (child.order.is_none(), child.order.clone(), child.at);
        key(a).cmp(&key(b)).then_with(|| a.room.cmp(&b.room))
    });
    children
}

/// A room of this server with its child events; `None` where this server does not have it.
pub(super) async fn space_room(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
) -> Result<Option<SpaceRoom>, ReadError> {
    let Some(summary) = summarise(rooms, snapshot, room).await? else { return Ok(None) };
    let children = children(rooms, snapshot, &summary).await?;
    Ok(Some(SpaceRoom { summary, children }))
}

async fn children(
    rooms: &Rooms,
    snapshot: &Snapshot,
    space: &RoomSummary,
) -> Result<Vec<Box<RawValue>>, ReadError> {
    let room = &space.room_id;
    if space.room_type != Some(ruma::room::RoomType::Space) {
        return Ok(Vec::new());
    }
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(Vec::new()) };
    let rows = snapshot.scan(&CURRENT_STATE, room, Scan::prefix("m.space.child")).await?;
    let numbers: Vec<u64> = rows.into_iter().map(|(_, number)| number).collect();
    let headers = snapshot.get_many(&EVENT_HEADERS, room, numbers.iter().copied()).await?;
    let events = rooms.events.load(snapshot, room, &head.version, &numbers).await?;
    let kept = events
        .iter()
        .zip(headers)
        .filter(|(_, header)| header.as_ref().is_some_and(|header| header.redacted_by.is_none()));
    Ok(kept.map(|(event, _)| stripped(&event.pdu)).collect())
}

fn is_order(text: &str) -> bool {
    text.len() <= ORDER_MAX && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

fn stripped(pdu: &millrace_model::Pdu) -> Box<RawValue> {
    let event = json!({
        "type": "m.space.child",
        "state_key": pdu.state_key,
        "sender": pdu.sender,
        "content": pdu.content,
        "origin_server_ts": pdu.origin_server_ts,
    });
    RawValue::from_string(event.to_string()).expect("written as JSON")
}

#[cfg(test)]
mod tests;
