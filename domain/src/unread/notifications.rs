//! The list of what notified a user (spec: Client-Server API, Listing Notifications), made when it
//! is asked for.

use millrace_model::client_event::RoomIdField;
use millrace_store::{
    Read, Scan, Snapshot,
    tables::{ROOM_HEAD, TIMELINE, USER_ROOMS},
};
use ruma::{OwnedRoomId, UserId, events::room::member::MembershipState, push::Action};
use serde_json::value::RawValue;

use super::{UnreadError, Unreads, count::joined_at, evaluate::Evaluator};
use crate::{
    receipts::{read_up_to, thread_of},
    rooms::Rooms,
};

/// Only so many of a room's newest events are looked at.
const EVENTS_MAX: usize = 1000;
/// Events that are loaded at once.
const CHUNK: usize = 100;
/// The longest page.
const PAGE_MAX: usize = 100;

/// Which notifications are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotificationsQuery {
    /// Only those before this place, as [`NotificationsPage::next`] gave it.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// Only highlights.
    pub highlights_only: bool,
}

/// An event that notified the user.
#[derive(Debug)]
pub struct Notification {
    /// The room.
    pub room: OwnedRoomId,
    /// The event as clients see it.
    pub event: Box<RawValue>,
    /// When it was sent, in milliseconds since 1970.
    pub ts: u64,
    /// The actions of the rule that it matched.
    pub actions: Vec<Action>,
    /// Whether the user has read it.
    pub read: bool,
    seq: u64,
}

/// A page of notifications, the newest first.
#[derive(Debug)]
pub struct NotificationsPage {
    /// The notifications.
    pub notifications: Vec<Notification>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// What notified a user in the rooms they are joined to, the newest first.
///
/// # Errors
/// Where something cannot be read.
pub async fn notifications(
    unreads: &Unreads,
    rooms: &Rooms,
    user: &UserId,
    query: NotificationsQuery,
) -> Result<NotificationsPage, UnreadError> {
    let snapshot = rooms.env.store.snapshot();
    let limit = query.limit.clamp(1, PAGE_MAX);
    let mut found = Vec::new();
    for (room, row) in snapshot.scan(&USER_ROOMS, user, Scan::all()).await? {
        if row.membership == MembershipState::Join {
            found.extend(of_room(unreads, rooms, &snapshot, (user, room), &query).await?);
        }
    }
    found.sort_by_key(|notification| std::cmp::Reverse(notification.seq));
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|notification| notification.seq);
    Ok(NotificationsPage { notifications: found, next })
}

/// One more than a page of a room's newest, so that it shows whether there are more.
async fn of_room(
    unreads: &Unreads,
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room): (&UserId, OwnedRoomId),
    query: &NotificationsQuery,
) -> Result<Vec<Notification>, UnreadError> {
    let mut found = Vec::new();
    let Some(head) = snapshot.get(&ROOM_HEAD, &room, ()).await? else { return Ok(found) };
    let evaluator = Evaluator::new(&unreads.shared, rooms, snapshot, user, (&room, &head)).await?;
    let read = read_up_to(snapshot, &room, user).await?;
    let joined = joined_at(rooms, snapshot, (user, &room, &head)).await?;
    let (mut seen, mut before) = (0, (head.last + 1, i32::MIN));
    while found.len() <= query.limit.clamp(1, PAGE_MAX) && seen < EVENTS_MAX {
        let scan = Scan::all().after((joined, 0)).before(before).reverse().limit(CHUNK);
        let rows = snapshot.scan_stamped(&TIMELINE, &room, scan).await?;
        let Some((last, ..)) = rows.last() else { break };
        (before, seen) = (*last, seen + rows.len());
        let numbers: Vec<u64> = rows.iter().map(|(_, _, row)| row.event).collect();
        let events = rooms.events.load(snapshot, &room, &head.version, &numbers).await?;
        for (((n, k), position, _), event) in rows.iter().zip(&events) {
            let older = query.before.is_none_or(|before| position.seq < before);
            let meaning = evaluator.evaluate(event).await?;
            let Some(meaning) = meaning.filter(|_| older && *k == 0) else {
                continue;
            };
            if query.highlights_only && !meaning.highlight {
                continue;
            }
            let thread = thread_of(snapshot, rooms, (&room, &head.version), event).await?;
            let of_thread = thread.map_or(read.main, |root| {
                let known = read.threads.iter().find(|(known, _)| *known == root);
                known.map_or(0, |(_, n)| *n)
            });
            found.push(Notification {
                room: room.clone(),
                event: event.client.render(None, RoomIdField::Absent),
                ts: event.pdu.origin_server_ts.get().into(),
                actions: meaning.actions.to_vec(),
                read: *n <= read.all.max(of_thread),
                seq: position.seq,
            });
        }
    }
    Ok(found)
}
