//! Message expiry: how long messages of a room are kept (MSC1763, `m.room.retention`).
//!
//! An event that has outlived its room's policy is not shown any more, at once: [`RoomView`] leaves it
//! out. What it said is taken off the disk later, by [`purge_all`]: what is left is what redaction leaves,
//! with which the room's graph and its event's ID stay as they are. State is never expired.
//!
//! [`RoomView`]: super::RoomView

use std::time::Duration;

use futures::FutureExt;
use millrace_model::{
    pdu::InvalidPdu,
    rules::{redaction, room_version},
};
use millrace_store::{
    Read, Scan, Tx,
    rows::room::{ExpiredUpTo, RoomHead},
    tables::{CURRENT_STATE, EVENTS, EXPIRED_UP_TO, EXPIRING_LATER, ROOM_HEAD, TIMELINE},
};
use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use serde::Deserialize;

use super::{Rooms, events::LoadError};

/// The state event that says how long messages are kept, and what servers used before it was in use.
const POLICY_TYPES: [&str; 2] = ["m.room.retention", "org.matrix.msc1763.retention"];
/// Rooms are listed so many at a time.
const ROOMS_AT_ONCE: usize = 200;
/// Events that are looked at in one transaction: so many of the largest fit into it.
const EVENTS_AT_ONCE: usize = 100;

/// What an administrator decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Whether messages expire at all.
    pub enabled: bool,
    /// How long they live in rooms that say nothing; for ever if `None`.
    pub default_lifetime: Option<Duration>,
    /// No room's messages live shorter.
    pub lifetime_min: Option<Duration>,
    /// No room's messages live longer.
    pub lifetime_max: Option<Duration>,
}

/// Why messages cannot be expired.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event cannot be redacted.
    #[error("a stored event is malformed: {0}")]
    Malformed(#[from] InvalidPdu),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// The store failed.
    #[error("messages could not be expired")]
    Store(#[from] millrace_store::Error),
}

#[derive(Deserialize)]
struct PolicyContent {
    max_lifetime: Option<u64>,
}

impl RetentionSettings {
    /// How long messages live, in milliseconds, where a room says this; for ever if `None`.
    #[must_use]
    pub fn lifetime_ms(&self, of_room: Option<u64>) -> Option<u64> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let wanted = of_room.or(self.default_lifetime.map(ms));
        let Some(wanted) = wanted else { return self.lifetime_max.map(ms) };
        let at_least = wanted.max(self.lifetime_min.map_or(0, ms));
        Some(at_least.min(self.lifetime_max.map_or(u64::MAX, ms)))
    }
}

/// The moment before which messages of a room have expired, in milliseconds since 1970; none where they
/// do not.
///
/// # Errors
/// Where the room's policy cannot be read.
pub(super) async fn expired_before(
    rooms: &Rooms,
    read: &impl Read,
    (room, head): (&RoomId, &RoomHead),
) -> Result<Option<u64>, LoadError> {
    if !rooms.retention.enabled {
        return Ok(None);
    }
    let places = POLICY_TYPES.map(|kind| (kind, ""));
    let numbers = read.get_many(&CURRENT_STATE, room, places).await?;
    let of_room = match numbers.into_iter().flatten().next() {
        Some(number) => {
            let event = rooms.events.load_one(read, room, &head.version, number).await?;
            let content = event.pdu.content_as::<PolicyContent>().ok();
            content.and_then(|content| content.max_lifetime)
        }
        None => None,
    };
    let lifetime = rooms.retention.lifetime_ms(of_room);
    let now: u64 = rooms.env.now().get().into();
    Ok(lifetime.map(|lifetime| now.saturating_sub(lifetime)))
}

/// Takes off the disk what expired messages of all rooms said, and returns how many there were.
///
/// # Errors
/// Where the store fails. A room that cannot be read is left out.
pub async fn purge_all(rooms: &Rooms) -> millrace_store::Result<u64> {
    let (mut last, mut purged): (Option<OwnedRoomId>, u64) = (None, 0);
    loop {
        let snapshot = rooms.env.store.snapshot();
        let listed = snapshot.partitions(&ROOM_HEAD, last.as_ref(), ROOMS_AT_ONCE).await?;
        let Some(end) = listed.last().cloned() else { return Ok(purged) };
        for room in listed {
            match purge(rooms, &room).await {
                Ok(count) => purged += count,
                Err(ExpireError::Store(error) | ExpireError::Load(LoadError::Store(error))) => {
                    return Err(error);
                }
                Err(error) => tracing::warn!(%error, %room, "messages cannot be expired"),
            }
        }
        last = Some(end);
    }
}

/// As [`purge_all`], in one room.
///
/// # Errors
/// Where the room cannot be read or written.
pub async fn purge(rooms: &Rooms, room: &RoomId) -> Result<u64, ExpireError> {
    let mut purged = 0;
    loop {
        let step = purge_some(rooms, room).await?;
        purged += step.purged.len() as u64;
        if !step.more {
            return Ok(purged);
        }
    }
}

/// What one transaction has done.
#[derive(Default)]
struct Step {
    /// Numbers of the events whose bodies are not what they were.
    purged: Vec<u64>,
    more: bool,
}

async fn purge_some(rooms: &Rooms, room: &RoomId) -> Result<Step, ExpireError> {
    let body = |tx: Tx| async move { purge_in(&tx, rooms, room).await }.boxed();
    let step = rooms.env.store.transact_in(room, body).await?;
    rooms.events.forget(step.purged.iter().copied());
    Ok(step)
}

/// All is read in the transaction: another purge, or older events that come into a gap, let it run again.
async fn purge_in(tx: &Tx, rooms: &Rooms, room: &RoomId) -> Result<Step, ExpireError> {
    let Some(head) = tx.get(&ROOM_HEAD, room, ()).await? else { return Ok(Step::default()) };
    let Some(before) = expired_before(rooms, tx, (room, &head)).await? else {
        return Ok(Step::default());
    };
    let mut expired = due(tx, room, before).await?;
    let passed = pass(tx, (rooms, room, &head), before, EVENTS_AT_ONCE - expired.len()).await?;
    let more = passed.more || expired.len() == EVENTS_AT_ONCE;
    expired.extend(passed.expired);
    let purged = overwrite(tx, (rooms, room, &head), &expired).await?;
    Ok(Step { purged, more })
}

/// Events that were dated in the future when the purge came to them, and have expired now.
async fn due(tx: &Tx, room: &RoomId, before: u64) -> millrace_store::Result<Vec<u64>> {
    let scan = Scan::all().before((before, 0_u64)).limit(EVENTS_AT_ONCE);
    let rows = tx.scan(&EXPIRING_LATER, room, scan).await?;
    for (key, ()) in &rows {
        tx.delete(&EXPIRING_LATER, room, key);
    }
    Ok(rows.into_iter().map(|((_, number), ())| number).collect())
}

/// Which rows of the timeline the purge has gone past.
struct Passed {
    expired: Vec<u64>,
    more: bool,
}

/// Goes on from the mark, at most `limit` rows, up to the first message that is still to live.
///
/// What is dated in the future is gone past and noted, since waiting for it would keep all that comes
/// after it on the disk for as long as its sender likes. Any other message is waited for: it expires within
/// one lifetime, and what comes after it is mostly younger.
async fn pass(
    tx: &Tx,
    (rooms, room, head): (&Rooms, &RoomId, &RoomHead),
    before: u64,
    limit: usize,
) -> Result<Passed, ExpireError> {
    let mark = tx.get(&EXPIRED_UP_TO, room, ()).await?.unwrap_or(ExpiredUpTo::START);
    // The newest event stays, so that a room is never without one.
    let scan = Scan::all().after((mark.n, mark.k)).before((head.last, 0)).limit(limit);
    let rows = tx.scan(&TIMELINE, room, scan).await?;
    let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
    let events = rooms.events.load(tx, room, &head.version, &numbers).await?;
    let now: u64 = rooms.env.now().get().into();
    let (mut expired, mut end) = (Vec::new(), None);
    for (((n, k), _), event) in rows.iter().zip(&events) {
        let sent: u64 = event.pdu.origin_server_ts.get().into();
        if !event.pdu.is_state() {
            if sent < before {
                expired.push(event.number);
            } else if sent > now {
                tx.put(&EXPIRING_LATER, room, (sent, event.number), &());
            } else {
                break;
            }
        }
        end = Some(ExpiredUpTo { n: *n, k: *k });
    }
    if let Some(end) = &end {
        tx.put(&EXPIRED_UP_TO, room, (), end);
    }
    let last = rows.last().map(|((n, k), _)| ExpiredUpTo { n: *n, k: *k });
    Ok(Passed { expired, more: rows.len() == limit && end == last })
}

/// Leaves of events what redaction leaves, and returns those that said more.
async fn overwrite(
    tx: &Tx,
    (rooms, room, head): (&Rooms, &RoomId, &RoomHead),
    expired: &[u64],
) -> Result<Vec<u64>, ExpireError> {
    let rules = room_version::rules(&head.version)
        .ok_or_else(|| ExpireError::Version(head.version.clone()))?;
    let mut purged = Vec::new();
    for event in rooms.events.load(tx, room, &head.version, expired).await? {
        let left = redaction::redacted(&event.pdu, rules)?;
        // Once the mark went back, most has been overwritten before.
        if left.json() != event.pdu.json() {
            tx.put(&EVENTS, room, event.number, &left.json().to_string());
            purged.push(event.number);
        }
    }
    Ok(purged)
}

/// Lets the purge look at older events that have come into the timeline from `place` on.
pub(super) async fn look_again_from(
    tx: &Tx,
    room: &RoomId,
    (n, k): (i64, i32),
) -> millrace_store::Result<()> {
    let before = ExpiredUpTo { n, k: k.saturating_sub(1) };
    if tx.get(&EXPIRED_UP_TO, room, ()).await?.is_some_and(|mark| before < mark) {
        tx.put(&EXPIRED_UP_TO, room, (), &before);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millrace_store::engine::MemoryEngine;
    use ruma::{MilliSecondsSinceUnixEpoch, UInt, events::TimelineEventType};
    use serde_json::json;

    use super::*;
    use crate::{
        rooms::{
            CacheSizes, Draft,
            test_room::{TestRoom, object, user},
        },
        testing::{self, TestClock},
    };

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    /// A room whose messages live for a day.
    async fn room() -> (TestRoom, Arc<TestClock>) {
        let (env, clock) = testing::env_on(MemoryEngine::new()).await;
        let rooms = Rooms::open(env, CacheSizes::default()).await.unwrap();
        let day = Some(Duration::from_millis(DAY_MS));
        let settings =
            RetentionSettings { enabled: true, default_lifetime: day, ..Default::default() };
        (TestRoom::in_world(rooms.keeping(settings), "shared").await, clock)
    }

    async fn say_dated(room: &TestRoom, text: &str, ahead_ms: u64) {
        let content = object(json!({ "msgtype": "m.text", "body": text }));
        let at = u64::from(room.rooms.env.now().get()) + ahead_ms;
        let at = Some(MilliSecondsSinceUnixEpoch(UInt::new_saturating(at)));
        let message = Draft::message(&user("alice"), TimelineEventType::RoomMessage, content);
        room.append(Draft { at, ..message }).await;
    }

    /// How often the disk says something.
    async fn count(room: &TestRoom, text: &str) -> usize {
        let snapshot = room.rooms.env.store.snapshot();
        let rows = snapshot.scan(&EVENTS, &room.id, Scan::all()).await.unwrap();
        rows.iter().filter(|(_, json)| json.contains(text)).count()
    }

    #[tokio::test]
    async fn a_purge_goes_through_rooms_of_any_length_and_goes_on_where_it_was() {
        let (room, clock) = room().await;
        let old = 2 * EVENTS_AT_ONCE + 1;
        for _ in 0..old {
            room.say("alice", "old word").await;
        }
        clock.advance(2 * DAY_MS);
        for _ in 0..3 {
            room.say("alice", "new word").await;
        }
        let both = tokio::join!(purge(&room.rooms, &room.id), purge(&room.rooms, &room.id));
        assert_eq!(both.0.unwrap() + both.1.unwrap(), old as u64, "two do not fight");
        assert_eq!((count(&room, "old word").await, count(&room, "new word").await), (0, 3));
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 0);
        clock.advance(2 * DAY_MS);
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 2, "the newest stays");
        let snapshot = room.rooms.env.store.snapshot();
        let last = snapshot.get(&ROOM_HEAD, &room.id, ()).await.unwrap().unwrap().last;
        let mark = snapshot.get(&EXPIRED_UP_TO, &room.id, ()).await.unwrap();
        assert_eq!(mark, Some(ExpiredUpTo { n: last - 1, k: 0 }));
    }

    #[tokio::test]
    async fn a_purge_that_begins_again_rewrites_nothing() {
        let (room, clock) = room().await;
        room.say("alice", "old word").await;
        clock.advance(2 * DAY_MS);
        room.say("alice", "new word").await;
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 1);
        let id = &room.id;
        let again = |tx: Tx| async move { look_again_from(&tx, id, (1, 0)).await }.boxed();
        room.rooms.env.store.transact(again).await.unwrap();
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_message_dated_in_the_future_holds_up_no_other_and_expires_in_its_time() {
        let (room, clock) = room().await;
        say_dated(&room, "ahead", 10 * DAY_MS).await;
        room.say("alice", "old word").await;
        clock.advance(2 * DAY_MS);
        room.say("alice", "newest").await;
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 1);
        assert_eq!((count(&room, "ahead").await, count(&room, "old word").await), (1, 0));
        clock.advance(10 * DAY_MS);
        assert_eq!(purge(&room.rooms, &room.id).await.unwrap(), 1);
        assert_eq!(count(&room, "ahead").await, 0);
        let snapshot = room.rooms.env.store.snapshot();
        let later = snapshot.scan(&EXPIRING_LATER, &room.id, Scan::all()).await.unwrap();
        assert_eq!(later, []);
    }

    #[test]
    fn what_a_room_says_holds_within_the_administrators_limits() {
        let day = |days: u64| Duration::from_hours(24 * days);
        let ms = |days: u64| u64::try_from(day(days).as_millis()).unwrap();
        let settings = RetentionSettings {
            enabled: true,
            default_lifetime: Some(day(30)),
            lifetime_min: Some(day(1)),
            lifetime_max: Some(day(365)),
        };
        assert_eq!(settings.lifetime_ms(None), Some(ms(30)));
        assert_eq!(settings.lifetime_ms(Some(ms(7))), Some(ms(7)));
        assert_eq!(settings.lifetime_ms(Some(5)), Some(ms(1)));
        assert_eq!(settings.lifetime_ms(Some(u64::MAX)), Some(ms(365)));
        let free = RetentionSettings { enabled: true, ..RetentionSettings::default() };
        assert_eq!(free.lifetime_ms(None), None);
        assert_eq!(free.lifetime_ms(Some(5)), Some(5));
    }
}
