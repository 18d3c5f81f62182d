//! A user's settings for a room, taken over to the room that replaces it (spec: Client-Server API,
//! Room Upgrades: "When a user joins the new room …").

use millrace_store::{
    Read, Tx,
    tables::{ACCOUNT_DATA, USER_ROOMS},
};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, RoomId, UserId};
use serde::Deserialize;

use super::{AppendError, RoomTx};
use crate::push_rules;

#[derive(Deserialize)]
struct CreateContent {
    predecessor: Option<Predecessor>,
}

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

/// Copies the tags, the notification rule and the place among direct chats that `user` gave to the
/// room's predecessor, if they were in it and come into this room for the first time. To be called
/// before their joining is written.
pub(super) async fn take_over_settings(
    room: &RoomTx<'_>,
    user: &UserId,
) -> Result<(), AppendError> {
    let create = room.create_event().await?;
    let Ok(CreateContent { predecessor: Some(old) }) = create.pdu.content_as() else {
        return Ok(());
    };
    let (tx, old, new) = (room.tx, &*old.room_id, &*room.room_id);
    let came_before = tx.get(&USER_ROOMS, user, new).await?.is_some_and(|row| row.was_joined);
    let had_old = tx.get(&USER_ROOMS, user, old).await?.is_some_and(|row| row.was_joined);
    if came_before || !had_old {
        return Ok(());
    }
    let (old_tags, new_tags) = ((old.as_str(), "m.tag"), (new.as_str(), "m.tag"));
    if let Some(tags) = tx.get(&ACCOUNT_DATA, user, old_tags).await?
        && tx.get(&ACCOUNT_DATA, user, new_tags).await?.is_none()
    {
        tx.put(&ACCOUNT_DATA, user, new_tags, &tags);
    }
    take_over_direct(tx, user, old, new).await?;
    Ok(push_rules::copy_room_rule(tx, user, old, new).await?)
}

async fn take_over_direct(
    tx: &Tx,
    user: &UserId,
    old: &RoomId,
    new: &RoomId,
) -> Result<(), AppendError> {
    let key = ("", "m.direct");
    let Some(direct) = tx.get(&ACCOUNT_DATA, user, key).await? else { return Ok(()) };
    // What a client wrote there in another form is its own affair.
    let Ok(mut direct) = serde_json::from_str::<CanonicalJsonObject>(&direct) else {
        return Ok(());
    };
    let (old, new) =
        (CanonicalJsonValue::from(old.as_str()), CanonicalJsonValue::from(new.as_str()));
    let mut changed = false;
    for rooms in direct.values_mut() {
        let CanonicalJsonValue::Array(rooms) = rooms else { continue };
        if rooms.contains(&old) && !rooms.contains(&new) {
            rooms.push(new.clone());
            changed = true;
        }
    }
    if changed {
        let text = serde_json::to_string(&direct).expect("JSON can be written");
        tx.put(&ACCOUNT_DATA, user, key, &text);
    }
    Ok(())
}
