//! What pushers send: events that notify a user and are not read, and how much is unread in all.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use millrace_store::{
    News, PartitionId, Read, Scan, Snapshot, View,
    rows::room::RoomHead,
    tables::{ROOM_HEAD, TIMELINE, USER_ROOMS},
};
use parking_lot::Mutex;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState, push::Action,
};

use super::{UnreadError, Unreads, count::live_rows, evaluate::Evaluator};
use crate::{
    receipts::{read_up_to, thread_of},
    rooms::{Event, Rooms},
};

/// Only so many of a room's newest events are looked at for one push.
const EVENTS_MAX: i64 = 500;
/// Rows of a timeline are read so many at a time.
const ROWS_AT_ONCE: usize = 64;
/// The counts of so many users are remembered.
const USERS_REMEMBERED: usize = 20_000;

/// An event that notifies somebody who has not read it.
#[derive(Debug, Clone)]
pub struct PushedEvent {
    /// Its place in the room's timeline.
    pub n: i64,
    /// The event.
    pub event: Arc<Event>,
    /// What the rule that matched it says.
    pub actions: Vec<Action>,
    /// Whether it is to be highlighted.
    pub highlight: bool,
}

/// What a user has not read, in all rooms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnreadTotal {
    /// Events that notify.
    pub events: u64,
    /// Rooms that have any.
    pub rooms: u64,
}

/// What is unread in the rooms of a user, as it was seen.
struct Seen {
    view: View,
    rooms: BTreeMap<OwnedRoomId, u64>,
}

/// Remembered totals.
pub(super) struct Totals(Mutex<LruCache<OwnedUserId, Seen>>);

impl Default for Totals {
    fn default() -> Self {
        let size = NonZeroUsize::new(USERS_REMEMBERED).expect("not zero");
        Self(Mutex::new(LruCache::new(size)))
    }
}

impl Unreads {
    /// The events of a room from place `first` on that notify `user` and are unread and not redacted.
    /// Of who is not joined, only their own invitation is looked at.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub async fn pushed(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
        (room, head, first): (&RoomId, &RoomHead, i64),
    ) -> Result<Vec<PushedEvent>, UnreadError> {
        let Some(own) = snapshot.get(&USER_ROOMS, user, room).await? else { return Ok(Vec::new()) };
        let first = match own.membership {
            MembershipState::Join => first.max(head.last - EVENTS_MAX),
            MembershipState::Invite => first.max(own.n),
            _ => return Ok(Vec::new()),
        };
        let last = if own.membership == MembershipState::Join { head.last } else { own.n };
        if first > last || last == 0 {
            return Ok(Vec::new());
        }
        let rows = live_rows(snapshot, room, first.max(1), last).await?;
        let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
        let events = rooms.events.load_with_headers(snapshot, room, head, &numbers).await?;
        let evaluator = Evaluator::new(&self.shared, rooms, snapshot, user, (room, head)).await?;
        let read = read_up_to(snapshot, room, user).await?;
        let mut pushed = Vec::new();
        for ((n, _), (event, header)) in rows.iter().zip(events) {
            if header.redacted_by.is_some() || *n <= read.all {
                continue;
            }
            let Some(meaning) = evaluator.evaluate(&event).await? else { continue };
            let thread = thread_of(snapshot, rooms, (room, &head.version), &event).await?;
            let of_thread = thread.map_or(read.main, |root| {
                let known = read.threads.iter().find(|(known, _)| *known == root);
                known.map_or(0, |(_, n)| *n)
            });
            if *n > of_thread {
                let (actions, highlight) = (meaning.actions.to_vec(), meaning.highlight);
                pushed.push(PushedEvent { n: *n, event: Arc::clone(&event), actions, highlight });
            }
        }
        Ok(pushed)
    }

    /// What a user has not read in all. Rooms without news since the last time are not looked at.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub async fn total(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> Result<UnreadTotal, UnreadError> {
        let store = &rooms.env.store;
        let seen = self.totals.0.lock().pop(user);
        let own = PartitionId::of::<OwnedUserId>(&user);
        let mut known = match seen {
            Some(seen) if store.news_of(own, &seen.view) == News::None => seen,
            _ => Seen { view: View::default(), rooms: joined(snapshot, user).await? },
        };
        for (room, count) in &mut known.rooms {
            let partition = PartitionId::of::<OwnedRoomId>(&room);
            if store.news_of(partition, &known.view) == News::None {
                continue;
            }
            let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { continue };
            *count = self.counts(rooms, snapshot, user, (room, &head)).await?.total().notify;
        }
        known.view = snapshot.view().clone();
        let total = UnreadTotal {
            events: known.rooms.values().sum(),
            rooms: known.rooms.values().filter(|count| **count > 0).count() as u64,
        };
        self.totals.0.lock().put(user.to_owned(), known);
        Ok(total)
    }
}

async fn joined(
    snapshot: &Snapshot,
    user: &UserId,
) -> millrace_store::Result<BTreeMap<OwnedRoomId, u64>> {
    let rooms = snapshot.scan(&USER_ROOMS, user, Scan::all()).await?;
    let joined = rooms.into_iter().filter(|(_, row)| row.membership == MembershipState::Join);
    Ok(joined.map(|(room, _)| (room, 0)).collect())
}

/// The place of the first live event of a room that was committed after `since`, if any was.
///
/// # Errors
/// Where the store cannot be read.
pub async fn first_after(
    snapshot: &Snapshot,
    room: &RoomId,
    since: u64,
) -> millrace_store::Result<Option<i64>> {
    let mut first = None;
    let mut before = (i64::MAX, i32::MAX);
    loop {
        let scan = Scan::all().after((0_i64, 0_i32)).before(before).reverse().limit(ROWS_AT_ONCE);
        let rows = snapshot.scan_stamped(&TIMELINE, room, scan).await?;
        let Some((end, ..)) = rows.last() else { return Ok(first) };
        before = *end;
        for ((n, k), position, _) in rows {
            if position.seq <= since {
                return Ok(first);
            }
            if k == 0 {
                first = Some(n);
            }
        }
    }
}
