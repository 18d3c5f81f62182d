//! The rooms and spaces of a space (spec: Client-Server API, Spaces, `GET
//! /rooms/{roomId}/hierarchy`).

use std::collections::HashSet;

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

/// One page of the rooms of a space that the user may see.
///
/// # Errors
/// Where the user may not see the space, or the token is not of this question.
pub async fn hierarchy(rooms: &Rooms, query: &Query) -> Result<Page, HierarchyError> {
    let offset = query.offset().ok_or(HierarchyError::Token)?;
    let limit = query.limit.unwrap_or(PAGE_ROOMS_MAX).clamp(1, PAGE_ROOMS_MAX);
    let snapshot = &rooms.env.store.snapshot();
    let mut waiting = vec![(query.room.clone(), 0_u64)];
    let mut visited = HashSet::new();
    let mut page = Page { rooms: Vec::new(), next: None };
    let mut shown = 0;
    while let Some((room, depth)) = waiting.pop() {
        if visited.len() >= VISITS_MAX || !visited.insert(room.clone()) {
            continue;
        }
        let summary = summarise(rooms, snapshot, &room).await?;
        let summary = match summary {
            Some(summary) if is_visible(snapshot, Some(&query.user), &summary).await? => summary,
            _ if depth == 0 => return Err(HierarchyError::NotVisible(room)),
            _ => continue,
        };
        if page.rooms.len() == limit {
            page.next = Some(query.token(shown));
            break;
        }
        let children = children(rooms, snapshot, &summary, query.suggested_only).await?;
        if query.max_depth.is_none_or(|max| depth < max) {
            waiting.extend(children.iter().rev().map(|child| (child.room.clone(), depth + 1)));
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
    order: Option<String>,
    at: MilliSecondsSinceUnixEpoch,
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct ChildContent {
    via: Option<Vec<OwnedServerName>>,
    order: Option<serde_json::Value>,
    suggested: Option<bool>,
}

async fn children(
    rooms: &Rooms,
    snapshot: &Snapshot,
    space: &RoomSummary,
    suggested_only: bool,
) -> Result<Vec<Child>, ReadError> {
    let room = &space.room_id;
    if space.room_type != Some(ruma::room::RoomType::Space) {
        return Ok(Vec::new());
    }
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(Vec::new()) };
    let rows = snapshot.scan(&CURRENT_STATE, room, Scan::prefix("m.space.child")).await?;
    let numbers: Vec<u64> = rows.into_iter().map(|(_, number)| number).collect();
    let headers = snapshot.get_many(&EVENT_HEADERS, room, numbers.iter().copied()).await?;
    let events = rooms.events.load(snapshot, room, &head.version, &numbers).await?;
    let mut children = Vec::new();
    for (event, header) in events.iter().zip(headers) {
        let redacted = header.is_none_or(|header| header.redacted_by.is_some());
        let Ok(content) = event.pdu.content_as::<ChildContent>() else { continue };
        let Some(child) = event.pdu.state_key.as_deref().and_then(|key| RoomId::parse(key).ok())
        else {
            continue;
        };
        let is_child = content.via.is_some_and(|via| !via.is_empty());
        if redacted || !is_child || (suggested_only && content.suggested != Some(true)) {
            continue;
        }
        let order = content.order.and_then(|order| order.as_str().map(str::to_owned));
        children.push(Child {
            room: child,
            order: order.filter(|order| is_order(order)),
            at: event.pdu.origin_server_ts,
            event: stripped(&event.pdu),
        });
    }
    children.sort_by(|a, b| {
        let key = |child: &Child| (child.order.is_none(), child.order.clone(), child.at);
        key(a).cmp(&key(b)).then_with(|| a.room.cmp(&b.room))
    });
    Ok(children)
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
