//! Counting on from what was counted before.

use std::collections::BTreeMap;

use futures::FutureExt;
use lru::LruCache;
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    rows::{
        receipt::{ReadUpTo, Unread, UnreadCount},
        room::{RoomHead, TimelineRow, UserRoom},
    },
    state_tree::StateRoot,
    tables::{TIMELINE, UNREAD, USER_ROOMS},
};
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    evaluate::{Evaluator, Shared},
    pushes::Totals,
};
use crate::{
    receipts::{read_up_to, thread_of},
    rooms::{Event, Rooms, events::LoadError, states::StateError},
};

/// Only so many of a room's newest events are counted.
const EVENTS_MAX: i64 = 10_000;
/// Events that are loaded at once.
const CHUNK: i64 = 200;
/// So few events are asked for by their keys; more by a scan.
const POINT_READS_MAX: i64 = 8;
/// A count that took so many events is written down.
const WRITTEN_FROM: i64 = 300;
/// Counts of so many users and rooms are remembered.
const REMEMBERED: usize = 100_000;

/// What a user has not read of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events outside of threads.
    pub main: UnreadCount,
    /// Events in threads that have any, by the root of the thread.
    pub threads: BTreeMap<OwnedEventId, UnreadCount>,
}

impl Counts {
    /// Everything, threads included: for clients that do not ask for threads apart.
    #[must_use]
    pub fn total(&self) -> UnreadCount {
        let counts = self.threads.values().chain([&self.main]);
        counts.fold(UnreadCount::default(), |sum, count| UnreadCount {
            notify: sum.notify + count.notify,
            highlight: sum.highlight + count.highlight,
        })
    }
}

/// Why unread events cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum UnreadError {
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store failed.
    #[error("could not read what is unread")]
    Store(#[from] millrace_store::Error),
}

/// Remembered counts, and what counting shares.
pub struct Unreads {
    pub(super) shared: Shared,
    pub(super) totals: Totals,
    counted: Mutex<LruCache<(OwnedUserId, OwnedRoomId), Unread>>,
}

impl Default for Unreads {
    fn default() -> Self {
        let size = std::num::NonZeroUsize::new(REMEMBERED).expect("not zero");
        Self {
            shared: Shared::default(),
            totals: Totals::default(),
            counted: Mutex::new(LruCache::new(size)),
        }
    }
}

impl Unreads {
    /// What `user`, who is joined, has not read of a room at a snapshot, `head` being the room's
    /// head there.
    ///
    /// # Errors
    /// Where something cannot be read.
    pub async fn counts(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
        (room, head): (&RoomId, &RoomHead),
    ) -> Result<Counts, UnreadError> {
        let read = read_up_to(snapshot, room, user).await?;
        let key = (user.to_owned(), room.to_owned());
        let remembered = self.counted.lock().get(&key).cloned();
        let usable = |known: &Unread| known.read == read && known.up_to <= head.last;
        if let Some(known) = remembered.as_ref().filter(|known| usable(known))
            && known.up_to == head.last
        {
            return Ok(counts(known));
        }
        let known = match remembered {
            Some(known) => Some(known),
            None => snapshot.get(&UNREAD, user, room).await?,
        };
        let newer_is_known = known.as_ref().is_some_and(|known| known.up_to > head.last);
        let mut unread = match known.filter(usable) {
            Some(known) => known,
            None => start(rooms, snapshot, (user, room), head, read).await?,
        };
        let behind = head.last - unread.up_to;
        count_on(&self.shared, rooms, snapshot, (user, room, head), &mut unread).await?;
        let counts = counts(&unread);
        if !newer_is_known {
            if behind >= WRITTEN_FROM {
                write_down(rooms, &key, unread.clone());
            }
            self.counted.lock().put(key, unread);
        }
        Ok(counts)
    }
}

fn counts(unread: &Unread) -> Counts {
    Counts { main: unread.main, threads: unread.threads.iter().cloned().collect() }
}

/// An empty count before the first event that can be unread.
async fn start(
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room): (&UserId, &RoomId),
    head: &RoomHead,
    read: ReadUpTo,
) -> Result<Unread, UnreadError> {
    let joined = joined_at(rooms, snapshot, (user, room, head)).await?;
    let up_to = read.all.max(head.last - EVENTS_MAX).max(joined);
    Ok(Unread { up_to, read, ..Unread::default() })
}

/// `n` of the event by which the user joined, if it is their newest member event; else 0.
pub(super) async fn joined_at(
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room, head): (&UserId, &RoomId, &RoomHead),
) -> Result<i64, UnreadError> {
    let Some(UserRoom { n, .. }) = snapshot.get(&USER_ROOMS, user, room).await? else {
        return Ok(0);
    };
    let Some(row) = snapshot.get(&TIMELINE, room, (n, 0)).await? else { return Ok(0) };
    let was_out = was_out(rooms, snapshot, (user, room, head), row.before).await?;
    Ok(if was_out { n } else { 0 })
}

/// Whether a state has the user not joined.
async fn was_out(
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room, head): (&UserId, &RoomId, &RoomHead),
    state: StateRoot,
) -> Result<bool, UnreadError> {
    let place = ("m.room.member", user.as_str());
    let Some(number) = rooms.states.get(snapshot, room, state, place).await? else {
        return Ok(true);
    };
    let member = rooms.events.load_one(snapshot, room, &head.version, number).await?;
    Ok(membership(&member) != Some(MembershipState::Join))
}

fn membership(event: &Event) -> Option<MembershipState> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    event.pdu.content_as::<Content>().ok().map(|content| content.membership)
}

/// Counts the events after `unread.up_to` up to the newest.
async fn count_on(
    shared: &Shared,
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room, head): (&UserId, &RoomId, &RoomHead),
    unread: &mut Unread,
) -> Result<(), UnreadError> {
    if unread.up_to >= head.last {
        return Ok(());
    }
    let evaluator = Evaluator::new(shared, rooms, snapshot, user, (room, head)).await?;
    while unread.up_to < head.last {
        let last = head.last.min(unread.up_to + CHUNK);
        let rows = live_rows(snapshot, room, unread.up_to + 1, last).await?;
        let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
        let events = rooms.events.load(snapshot, room, &head.version, &numbers).await?;
        for ((n, row), event) in rows.iter().zip(&events) {
            let own = event.pdu.sender == *user;
            let meaning = evaluator.evaluate(event).await?;
            if !own && meaning.is_none() {
                continue;
            }
            if own && came_in(rooms, snapshot, (user, room, head), event, row).await? {
                (unread.main, unread.threads) = (UnreadCount::default(), Vec::new());
                continue;
            }
            let thread = thread_of(snapshot, rooms, (room, &head.version), event).await?;
            match meaning {
                None => unread.sent(thread.as_deref()),
                Some(meaning) => unread.add(*n, thread, meaning.highlight),
            }
        }
        unread.up_to = last;
    }
    Ok(())
}

/// Whether an own event is the one by which the user joined: nothing before it is unread.
async fn came_in(
    rooms: &Rooms,
    snapshot: &Snapshot,
    (user, room, head): (&UserId, &RoomId, &RoomHead),
    event: &Event,
    row: &TimelineRow,
) -> Result<bool, UnreadError> {
    let joins = event.pdu.kind == TimelineEventType::RoomMember
        && event.pdu.state_key.as_deref() == Some(user.as_str())
        && membership(event) == Some(MembershipState::Join);
    Ok(joins && was_out(rooms, snapshot, (user, room, head), row.before).await?)
}

/// The live rows of a stretch of the timeline, with their `n`.
pub(super) async fn live_rows(
    snapshot: &Snapshot,
    room: &RoomId,
    first: i64,
    last: i64,
) -> millrace_store::Result<Vec<(i64, TimelineRow)>> {
    if last - first < POINT_READS_MAX {
        let rows = snapshot.get_many(&TIMELINE, room, (first..=last).map(|n| (n, 0))).await?;
        return Ok((first..).zip(rows).filter_map(|(n, row)| Some((n, row?))).collect());
    }
    let scan = Scan::all().from((first, 0)).up_to((last, 0));
    let rows = snapshot.scan(&TIMELINE, room, scan).await?;
    let live = rows.into_iter().filter(|((_, k), _)| *k == 0);
    Ok(live.map(|((n, _), row)| (n, row)).collect())
}

/// Writes a count down, which nobody waits for.
fn write_down(rooms: &Rooms, (user, room): &(OwnedUserId, OwnedRoomId), unread: Unread) {
    let (store, user, room) = (rooms.env.store.clone(), user.clone(), room.clone());
    tokio::spawn(async move {
        let write = |tx: Tx| {
            tx.put(&UNREAD, &user, &room, &unread);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        if let Err(error) = store.transact(write).await {
            tracing::warn!(%error, "a count of unread events could not be written");
        }
    });
}

/// Adding to a count.
trait Count {
    /// An event that notifies, unless it is read.
    fn add(&mut self, n: i64, thread: Option<OwnedEventId>, highlight: bool);
    /// An own event: sending implies having read what it is sent to.
    fn sent(&mut self, thread: Option<&ruma::EventId>);
}

impl Count for Unread {
    fn add(&mut self, n: i64, thread: Option<OwnedEventId>, highlight: bool) {
        let Some(root) = thread else {
            if n > self.read.all.max(self.read.main) {
                self.main.notify += 1;
                self.main.highlight += u64::from(highlight);
            }
            return;
        };
        let own = self.read.threads.iter().find(|(known, _)| *known == root);
        if n <= own.map_or(self.read.all, |(_, n)| self.read.all.max(*n)) {
            return;
        }
        let at = self.threads.iter().position(|(known, _)| *known == root);
        let at = at.unwrap_or_else(|| {
            self.threads.push((root, UnreadCount::default()));
            self.threads.len() - 1
        });
        let count = &mut self.threads[at].1;
        count.notify += 1;
        count.highlight += u64::from(highlight);
    }

    fn sent(&mut self, thread: Option<&ruma::EventId>) {
        match thread {
            None => self.main = UnreadCount::default(),
            Some(root) => self.threads.retain(|(known, _)| known != root),
        }
    }
}
