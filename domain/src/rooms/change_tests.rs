//! What tests of changes of rooms have in common.

use millrace_store::{
    Read,
    tables::{CURRENT_STATE, ROOM_HEAD},
};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, events::TimelineEventType,
};
use serde_json::Value;

use super::{
    Rooms,
    create::{self, InitialState, NewRoom},
    membership::Guest,
    set_state::{self, NewState},
};

pub(super) fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).unwrap()
}

pub(super) fn user(name: &str) -> OwnedUserId {
    format!("@{name}:test.example").try_into().unwrap()
}

/// A private room of alice's.
pub(super) fn plain(version: &str) -> NewRoom {
    NewRoom::plain(user("alice"), version.try_into().unwrap())
}

pub(super) fn initial(kind: &str, content: Value) -> InitialState {
    let kind = TimelineEventType::from(kind);
    InitialState { kind, state_key: String::new(), content: object(content) }
}

pub(super) async fn make(rooms: &Rooms, new: &NewRoom) -> OwnedRoomId {
    create::create(rooms, new).await.unwrap()
}

/// What the current state says at a place; `Null` where it has nothing there.
pub(super) async fn content(rooms: &Rooms, room: &RoomId, kind: &str, key: &str) -> Value {
    let snapshot = rooms.env.store.snapshot();
    let head = snapshot.get(&ROOM_HEAD, room, ()).await.unwrap().unwrap();
    let number = snapshot.get(&CURRENT_STATE, room, (kind, key)).await.unwrap();
    let Some(number) = number else { return Value::Null };
    let event = rooms.events.load_one(&snapshot, room, &head.version, number).await.unwrap();
    serde_json::from_str(event.pdu.content.get()).unwrap()
}

pub(super) fn state(sender: &str, kind: &str, state_key: &str, content: Value) -> NewState {
    NewState {
        sender: user(sender),
        guest: Guest::No,
        kind: kind.into(),
        state_key: state_key.to_owned(),
        content: object(content),
    }
}

/// Sets state as alice.
pub(super) async fn set(
    rooms: &Rooms,
    room: &RoomId,
    (kind, key): (&str, &str),
    content: Value,
) -> OwnedEventId {
    set_state::set_state(rooms, room, &state("alice", kind, key, content)).await.unwrap()
}
