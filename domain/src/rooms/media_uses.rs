//! Which media rooms and people use: for administrators who withdraw and remove media.

use std::collections::BTreeSet;

use millrace_store::{
    Read, Result, Scan, Snapshot,
    tables::{ACCOUNTS, CURRENT_STATE, EVENTS, PROFILES, ROOM_HEAD, USER_ROOMS},
};
use ruma::{OwnedMxcUri, OwnedRoomId, OwnedUserId, RoomId, events::room::member::MembershipState};
use serde_json::Value;

use super::Rooms;
use crate::profiles::AVATAR_URL;

/// Events that are read in one step.
const EVENTS_AT_ONCE: usize = 500;
/// Rooms and accounts are listed so many at a time.
const LISTED_AT_ONCE: usize = 200;

/// The media that the events of a room name, redacted ones too, but for what shows its members. What
/// encrypted events name, nobody here can know.
///
/// # Errors
/// Where the store cannot be read.
pub async fn media_named_in(rooms: &Rooms, room: &RoomId) -> Result<BTreeSet<OwnedMxcUri>> {
    let snapshot = rooms.env.store.snapshot();
    let (mut named, mut scan) = (BTreeSet::new(), Scan::all());
    loop {
        let rows = snapshot.scan(&EVENTS, room, scan.limit(EVENTS_AT_ONCE)).await?;
        let Some((last, _)) = rows.last() else { return Ok(named) };
        scan = Scan::all().after(*last);
        let events = rows.iter().map(|(_, json)| parsed(json));
        for event in events.filter(|event| event["type"] != "m.room.member") {
            add_named(&event["content"], &mut named);
        }
    }
}

/// The media by which rooms and the users of this server are shown.
///
/// # Errors
/// Where the store cannot be read.
pub async fn avatars(rooms: &Rooms) -> Result<BTreeSet<OwnedMxcUri>> {
    let snapshot = &rooms.env.store.snapshot();
    let mut shown = BTreeSet::new();
    let mut last: Option<OwnedUserId> = None;
    loop {
        let users = snapshot.partitions(&ACCOUNTS, last.as_ref(), LISTED_AT_ONCE).await?;
        let Some(end) = users.last().cloned() else { break };
        for user in users {
            add_avatars_of(snapshot, &user, &mut shown).await?;
        }
        last = Some(end);
    }
    let mut last: Option<OwnedRoomId> = None;
    loop {
        let listed = snapshot.partitions(&ROOM_HEAD, last.as_ref(), LISTED_AT_ONCE).await?;
        let Some(end) = listed.last().cloned() else { return Ok(shown) };
        for room in listed {
            if let Some(event) = snapshot.get(&CURRENT_STATE, &room, ("m.room.avatar", "")).await? {
                add_named_by(snapshot, (&room, event), &mut shown).await?;
            }
        }
        last = Some(end);
    }
}

/// Adds what a user has as avatar in their profile, and in rooms, where it may be another.
async fn add_avatars_of(
    snapshot: &Snapshot,
    user: &OwnedUserId,
    shown: &mut BTreeSet<OwnedMxcUri>,
) -> Result<()> {
    if let Some(avatar) = snapshot.get(&PROFILES, user, AVATAR_URL).await? {
        add_named(&parsed(&avatar), shown);
    }
    for (room, row) in snapshot.scan(&USER_ROOMS, user, Scan::all()).await? {
        if row.membership == MembershipState::Join {
            add_named_by(snapshot, (&room, row.event), shown).await?;
        }
    }
    Ok(())
}

/// Adds what one event names.
async fn add_named_by(
    snapshot: &Snapshot,
    (room, event): (&RoomId, u64),
    named: &mut BTreeSet<OwnedMxcUri>,
) -> Result<()> {
    if let Some(json) = snapshot.get(&EVENTS, room, event).await? {
        add_named(&parsed(&json)["content"], named);
    }
    Ok(())
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

/// Adds all media that a value names, wherever in it: events have them in many places.
fn add_named(value: &Value, named: &mut BTreeSet<OwnedMxcUri>) {
    match value {
        Value::String(text) if text.starts_with("mxc://") => {
            named.insert(text.as_str().into());
        }
        Value::Array(values) => values.iter().for_each(|value| add_named(value, named)),
        Value::Object(fields) => fields.values().for_each(|value| add_named(value, named)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rooms::test_room::TestRoom;

    #[tokio::test]
    async fn media_are_found_wherever_events_name_them_and_avatars_apart() {
        let room = TestRoom::with_visibility("shared").await;
        let image = json!({ "url": "mxc://a/image", "info": { "thumbnail_url": "mxc://a/small" } });
        room.message("alice", image).await;
        let file = json!({ "file": { "url": "mxc://b/secret" }, "body": "mxc is a word" });
        let file = room.message("alice", file).await;
        room.redact("alice", &file).await;
        room.set("alice", "m.room.avatar", "", json!({ "url": "mxc://a/room" })).await;
        let alice = json!({ "membership": "join", "avatar_url": "mxc://a/alice" });
        room.set("alice", "m.room.member", "@alice:test.example", alice).await;
        let named = media_named_in(&room.rooms, &room.id).await.unwrap();
        let named: Vec<&str> = named.iter().map(|uri| uri.as_str()).collect();
        assert_eq!(named, ["mxc://a/image", "mxc://a/room", "mxc://a/small", "mxc://b/secret"]);
        // Alice has no account here, so that only the room is shown.
        let shown = avatars(&room.rooms).await.unwrap();
        assert_eq!(shown.iter().map(|uri| uri.as_str()).collect::<Vec<_>>(), ["mxc://a/room"]);
    }
}
