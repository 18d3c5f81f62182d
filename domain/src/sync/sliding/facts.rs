//! What lists want to know of a room, whoever looks: remembered until the room has news.

use std::sync::Arc;

use millrace_store::{
    PartitionId, Read, Scan, Snapshot,
    tables::{CURRENT_STATE, ROOM_HEAD, TIMELINE},
};
use ruma::{OwnedRoomId, RoomId, events::TimelineEventType};
use serde::Deserialize;

use crate::{
    rooms::recent::UntilNews,
    sync::{SyncError, Syncs},
};

/// Types of events that count as activity (MSC4186: `bump_stamp`).
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];
/// So many events are looked at together, and at most, for the last activity.
const LOOKED_AT: [usize; 3] = [4, 32, 256];

/// The first live event of a timeline: what was filled in before it is no activity.
const OLDEST: (i64, i32) = (1, 0);

/// Remembers facts.
pub(super) type Remembered = UntilNews<Arc<Facts>>;

/// What lists want to know of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// When something last happened; the greater the later.
    pub last_event: u64,
    /// When something last happened that people care about.
    pub last_activity: u64,
    /// The room's type, as its creation says.
    pub room_type: Option<String>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

#[derive(Deserialize)]
struct CreateContent {
    #[serde(rename = "type")]
    room_type: Option<String>,
}

/// The facts of a room that this server has.
pub(super) async fn of(
    syncs: &Syncs,
    snapshot: &Snapshot,
    room: &RoomId,
) -> Result<Arc<Facts>, SyncError> {
    let (store, partition) = (&syncs.rooms.env.store, PartitionId::of::<OwnedRoomId>(&room));
    let remembered = &syncs.sliding.facts;
    if let Some(facts) = remembered.get(store, snapshot, partition) {
        return Ok(facts);
    }
    let facts = Arc::new(read(syncs, snapshot, room).await?);
    remembered.put(snapshot, partition, Arc::clone(&facts));
    Ok(facts)
}

async fn read(syncs: &Syncs, snapshot: &Snapshot, room: &RoomId) -> Result<Facts, SyncError> {
    let places = [("m.room.create", ""), ("m.room.encryption", "")];
    let state = snapshot.get_many(&CURRENT_STATE, room, places).await?;
    let (create, encryption) = (state.first().copied().flatten(), state.get(1).copied().flatten());
    let mut facts =
        Facts { last_event: 0, last_activity: 0, room_type: None, encrypted: encryption.is_some() };
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(facts) };
    let events = &syncs.rooms.events;
    if let Some(create) = create {
        let create = events.load_one(snapshot, room, &head.version, create).await?;
        let content = create.pdu.content_as::<CreateContent>();
        facts.room_type = content.ok().and_then(|content| content.room_type);
    }
    for limit in LOOKED_AT {
        let scan = Scan::all().from(OLDEST).reverse().limit(limit);
        let rows = snapshot.scan_stamped(&TIMELINE, room, scan).await?;
        let numbers: Vec<u64> = rows.iter().map(|(_, _, row)| row.event).collect();
        let loaded = events.load(snapshot, room, &head.version, &numbers).await?;
        facts.last_event = rows.first().map_or(0, |(_, position, _)| position.seq);
        let mut activity = rows.iter().zip(&loaded);
        let activity = activity.find(|(_, event)| bumps(&event.pdu.kind));
        let oldest = rows.last().map(|(_, position, _)| position.seq);
        facts.last_activity = match activity {
            Some(((_, position, _), _)) => {
                return Ok(Facts { last_activity: position.seq, ..facts });
            }
            None => oldest.unwrap_or(0),
        };
        if rows.len() < limit {
            break;
        }
    }
    Ok(facts)
}

fn bumps(kind: &TimelineEventType) -> bool {
    BUMPS.contains(&kind.to_string().as_str())
}
