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
    Read, Scan, Snapshot, Tx,
    rows::room::RoomHead,
    tables::{CURRENT_STATE, EVENTS, EXPIRED_UP_TO, ROOM_HEAD, TIMELINE},
};
use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use serde::Deserialize;

use super::{Rooms, events::LoadError};

/// The state event that says how long messages are kept, and what servers used before it was in use.
const POLICY_TYPES: [&str; 2] = ["m.room.retention", "org.matrix.msc1763.retention"];
/// Rooms are listed so many at a time.
const ROOMS_AT_ONCE: usize = 200;
/// Events that are purged in one transaction.
const EVENTS_AT_ONCE: usize = 200;

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
    snapshot: &Snapshot,
    (room, head): (&RoomId, &RoomHead),
) -> Result<Option<u64>, LoadError> {
    if !rooms.retention.enabled {
        return Ok(None);
    }
    let places = POLICY_TYPES.map(|kind| (kind, ""));
    let numbers = snapshot.get_many(&CURRENT_STATE, room, places).await?;
    let of_room = match numbers.into_iter().flatten().next() {
        Some(number) => {
            let event = rooms.events.load_one(snapshot, room, &head.version, number).await?;
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
        purged += step.purged;
        if !step.more {
            return Ok(purged);
        }
    }
}

struct Step {
    purged: u64,
    more: bool,
}

async fn purge_some(rooms: &Rooms, room: &RoomId) -> Result<Step, ExpireError> {
    let nothing = Step { purged: 0, more: false };
    let snapshot = rooms.env.store.snapshot();
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(nothing) };
    let Some(before) = expired_before(rooms, &snapshot, (room, &head)).await? else {
        return Ok(nothing);
    };
    let rules = room_version::rules(&head.version)
        .ok_or_else(|| ExpireError::Version(head.version.clone()))?;
    let up_to = snapshot.get(&EXPIRED_UP_TO, room, ()).await?.unwrap_or(i64::MIN);
    let scan = Scan::all().after((up_to, i32::MAX)).limit(EVENTS_AT_ONCE);
    let rows = snapshot.scan(&TIMELINE, room, scan).await?;
    let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
    let events = rooms.events.load(&snapshot, room, &head.version, &numbers).await?;
    let (mut left, mut end) = (Vec::new(), None);
    for (((n, _), _), event) in rows.iter().zip(&events) {
        let sent: u64 = event.pdu.origin_server_ts.get().into();
        // The newest event stays, so that a room is never without one.
        if *n >= head.last || (!event.pdu.is_state() && sent >= before) {
            break;
        }
        if !event.pdu.is_state() {
            let json = redaction::redacted(&event.pdu, rules)?.json().to_string();
            left.push((event.number, json));
        }
        end = Some(*n);
    }
    let Some(end) = end else { return Ok(nothing) };
    let (left, all) = (&left, rows.len() == EVENTS_AT_ONCE);
    let write = |tx: Tx| {
        async move {
            for (number, json) in left {
                tx.put(&EVENTS, room, *number, json);
            }
            tx.put(&EXPIRED_UP_TO, room, (), &end);
            Ok::<_, millrace_store::Error>(())
        }
        .boxed()
    };
    rooms.env.store.transact_in(room, write).await?;
    rooms.events.forget(left.iter().map(|(number, _)| *number));
    let reached_end = rows.last().is_some_and(|((n, _), _)| *n <= end);
    Ok(Step { purged: left.len() as u64, more: all && reached_end })
}

#[cfg(test)]
mod tests {
    use super::*;

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
