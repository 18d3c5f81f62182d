use millrace_model::rules::room_version;
use millrace_store::Scan;
use millrace_store::tables::{ALIASES, CURRENT_STATE, TIMELINE, USER_ROOMS};
use ruma::{events::room::member::MembershipState, room_alias_id, user_id};
use serde_json::{Value, json};

use super::*;
use crate::testing;

fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).unwrap()
}

fn plain(version: &str) -> NewRoom {
    NewRoom::plain(user_id!("@alice:test.example").to_owned(), version.try_into().unwrap())
}

/// Types and state keys in the order of the timeline.
async fn history(rooms: &Rooms, room: &RoomId) -> Vec<(String, Value)> {
    let snapshot = rooms.env.store.snapshot();
    let head = snapshot.get(&ROOM_HEAD, room, ()).await.unwrap().unwrap();
    let rows = snapshot.scan(&TIMELINE, room, Scan::all()).await.unwrap();
    let mut events = Vec::new();
    for (_, row) in rows {
        let event = rooms.events.load_one(&snapshot, room, &head.version, row.event).await.unwrap();
        let content = serde_json::from_str(event.pdu.content.get()).unwrap();
        events.push((event.pdu.kind.to_string(), content));
    }
    events
}

async fn content(rooms: &Rooms, room: &RoomId, kind: &str, key: &str) -> Value {
    let snapshot = rooms.env.store.snapshot();
    let head = snapshot.get(&ROOM_HEAD, room, ()).await.unwrap().unwrap();
    let number = snapshot.get(&CURRENT_STATE, room, (kind, key)).await.unwrap().unwrap();
    let event = rooms.events.load_one(&snapshot, room, &head.version, number).await.unwrap();
    serde_json::from_str(event.pdu.content.get()).unwrap()
}

#[tokio::test]
async fn a_room_of_every_version_can_be_made_and_spoken_in() {
    let rooms = testing::rooms().await;
    for version in &room_version::SUPPORTED {
        let new = plain(version.as_str());
        let room = create(&rooms, &new).await.unwrap();
        let hello = object(json!({"body": "hello"}));
        let hello = Draft::message(&new.creator, TimelineEventType::RoomMessage, hello);
        crate::rooms::send::send(&rooms, &room, &hello, None).await.unwrap();
        assert_eq!(
            content(&rooms, &room, "m.room.create", "").await["room_version"],
            version.as_str()
        );
    }
}

#[tokio::test]
async fn the_events_come_in_the_order_of_the_specification() {
    let rooms = testing::rooms().await;
    let avatar =
        InitialState::of(TimelineEventType::RoomAvatar, object(json!({"url": "mxc://a/b"})));
    let new = NewRoom {
        initial_state: vec![avatar],
        name: Some("name".into()),
        topic: Some("topic".into()),
        alias_name: Some("alias".into()),
        invite: vec![user_id!("@bob:test.example").to_owned()],
        direct: Direct::Yes,
        ..plain("11")
    };
    let room = create(&rooms, &new).await.unwrap();
    let history = history(&rooms, &room).await;
    let kinds: Vec<_> = history.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "m.room.avatar",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
        ]
    );
    let rich = json!([{"body": "topic", "mimetype": "text/plain"}]);
    assert_eq!(history[9].1, json!({"topic": "topic", "m.topic": {"m.text": rich}}));
    assert_eq!(history[10].1, json!({"membership": "invite", "is_direct": true}));
    let bob = user_id!("@bob:test.example");
    let snapshot = rooms.env.store.snapshot();
    let invite = snapshot.get(&USER_ROOMS, bob, &room).await.unwrap().unwrap();
    assert_eq!(invite.membership, MembershipState::Invite);
    assert!(invite.stripped.iter().any(|event| event.contains("m.room.name")));
}

#[tokio::test]
async fn who_is_invited_to_a_trusted_chat_may_do_what_the_creator_may() {
    let rooms = testing::rooms().await;
    let bob = user_id!("@bob:test.example");
    for version in ["11", "12"] {
        let invite = vec![bob.to_owned()];
        let new = NewRoom { preset: Preset::TrustedPrivate, invite, ..plain(version) };
        let room = create(&rooms, &new).await.unwrap();
        let levels = content(&rooms, &room, "m.room.power_levels", "").await;
        let created = content(&rooms, &room, "m.room.create", "").await;
        if version == "12" {
            assert_eq!(levels["users"], json!({}));
            assert_eq!(created["additional_creators"], json!([bob]));
        } else {
            assert_eq!(levels["users"][bob.as_str()], 100);
            assert_eq!(created.get("additional_creators"), None);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let rooms = testing::rooms().await;
    let first = NewRoom { alias_name: Some("taken".into()), ..plain("12") };
    create(&rooms, &first).await.unwrap();
    let creator_with_level =
        NewRoom { power_levels: object(json!({"users": {&first.creator: 100}})), ..plain("12") };
    let creators = |creators: Value| {
        let creation_content = object(json!({"additional_creators": creators}));
        NewRoom { creation_content, ..plain("12") }
    };
    for (new, reason) in [
        (first.clone(), "the alias"),
        (NewRoom { version: "13".try_into().unwrap(), ..plain("12") }, "room version 13"),
        (creator_with_level, "the room cannot be made like this"),
        (creators(json!("nobody")), "the room cannot be made like this"),
        (creators(json!(["nobody"])), "the room cannot be made like this"),
        (creators(json!(["@a:dom$ain$.com"])), "the room cannot be made like this"),
        (NewRoom { alias_name: Some("a b".into()), ..plain("12") }, "the alias cannot be"),
    ] {
        let error = create(&rooms, &new).await.unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
    let snapshot = rooms.env.store.snapshot();
    let mine = snapshot.scan(&USER_ROOMS, &first.creator, Scan::all()).await.unwrap();
    assert_eq!(mine.len(), 1);
    let alias = snapshot.get(&ALIASES, room_alias_id!("#taken:test.example"), ()).await.unwrap();
    assert_eq!(alias.unwrap().room, mine[0].0);
}

#[tokio::test]
async fn two_rooms_made_in_the_same_millisecond_are_two() {
    let rooms = testing::rooms().await;
    let one = create(&rooms, &plain("12")).await.unwrap();
    let other = create(&rooms, &plain("12")).await.unwrap();
    assert_ne!(one, other);
}
