use ruma::user_id;
use serde_json::{Value, json};

use super::*;
use crate::{
    rooms::{create, join, redact, send},
    testing,
};

fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).unwrap()
}

fn state(sender: &str, kind: &str, state_key: &str, content: Value) -> NewState {
    NewState {
        sender: format!("@{sender}:test.example").try_into().unwrap(),
        guest: Guest::No,
        kind: kind.into(),
        state_key: state_key.to_owned(),
        content: object(content),
    }
}

async fn public_room(rooms: &Rooms) -> OwnedRoomId {
    let new = create::NewRoom {
        preset: create::Preset::Public,
        alias_name: Some("room".into()),
        ..create::NewRoom::plain(
            user_id!("@alice:test.example").to_owned(),
            "11".try_into().unwrap(),
        )
    };
    create::create(rooms, &new).await.unwrap()
}

#[tokio::test]
async fn equal_state_is_set_once() {
    let rooms = testing::rooms().await;
    let room = public_room(&rooms).await;
    let name = state("alice", "m.room.name", "", json!({"name": "a"}));
    let first = set_state(&rooms, &room, &name).await.unwrap();
    assert_eq!(set_state(&rooms, &room, &name).await.unwrap(), first);
    let other = NewState { content: object(json!({"name": "b"})), ..name };
    assert_ne!(set_state(&rooms, &room, &other).await.unwrap(), first);
}

#[tokio::test]
async fn a_canonical_alias_must_lead_here() {
    let rooms = testing::rooms().await;
    let room = public_room(&rooms).await;
    let alias = |content: Value| state("alice", "m.room.canonical_alias", "", content);
    let here = json!({"alias": "#room:test.example", "alt_aliases": ["#room:test.example"]});
    set_state(&rooms, &room, &alias(here)).await.unwrap();
    for (content, bad) in [
        (json!({"alias": "#gone:test.example"}), "the alias"),
        (
            json!({"alias": "#room:test.example", "alt_aliases": ["#gone:test.example"]}),
            "the alias",
        ),
        (json!({"alias": "%room:test.example"}), "\"%room:test.example\" is not"),
        (json!({"alias": 3}), "\"alias or alt_aliases\" is not"),
    ] {
        let error = set_state(&rooms, &room, &alias(content)).await.unwrap_err().to_string();
        assert!(error.starts_with(bad), "{error}");
    }
    set_state(&rooms, &room, &alias(json!({}))).await.unwrap();
}

#[tokio::test]
async fn a_membership_can_be_set_by_hand() {
    let rooms = testing::rooms().await;
    let room = public_room(&rooms).await;
    let bob = "@bob:test.example";
    let join = json!({"membership": "join", "displayname": "Bob here"});
    let own = state("bob", "m.room.member", bob, join.clone());
    let joined = set_state(&rooms, &room, &own).await.unwrap();
    assert_eq!(set_state(&rooms, &room, &own).await.unwrap(), joined);
    let renamed = json!({"membership": "join", "displayname": "Bob there"});
    set_state(&rooms, &room, &state("bob", "m.room.member", bob, renamed)).await.unwrap();
    let others = state("alice", "m.room.member", "@carl:test.example", join);
    set_state(&rooms, &room, &others).await.unwrap_err();
    let ban = state("alice", "m.room.member", bob, json!({"membership": "ban"}));
    set_state(&rooms, &room, &ban).await.unwrap();
    set_state(&rooms, &room, &own).await.unwrap_err();
    let unban = state("alice", "m.room.member", bob, json!({"membership": "leave"}));
    set_state(&rooms, &room, &unban).await.unwrap();
    set_state(&rooms, &room, &own).await.unwrap();
}

#[tokio::test]
async fn somebody_reacts_once_until_the_reaction_is_redacted() {
    let rooms = testing::rooms().await;
    let room = public_room(&rooms).await;
    let alice = user_id!("@alice:test.example");
    let hello = Draft::message(alice, TimelineEventType::RoomMessage, object(json!({"body": "x"})));
    let hello = send::send(&rooms, &room, &hello, None).await.unwrap();
    let relation = json!({"rel_type": "m.annotation", "event_id": hello, "key": "👍"});
    let content = object(json!({"m.relates_to": relation}));
    let reaction = Draft::message(alice, TimelineEventType::Reaction, content);
    let first = send::send(&rooms, &room, &reaction, None).await.unwrap();
    let again = send::send(&rooms, &room, &reaction, None).await;
    let duplicate = send::SendError::Append(AppendError::DuplicateAnnotation);
    assert_eq!(again.unwrap_err().to_string(), duplicate.to_string());
    join::join(&rooms, &room, user_id!("@bob:test.example"), Guest::No, None).await.unwrap();
    let bobs = Draft { sender: user_id!("@bob:test.example").to_owned(), ..reaction.clone() };
    send::send(&rooms, &room, &bobs, None).await.unwrap();
    let sender = alice.to_owned();
    let redaction = redact::Redaction {
        sender,
        target: first,
        content: object(json!({})),
        of: redact::RedactsOf::All,
    };
    redact::redact(&rooms, &room, &redaction, None).await.unwrap();
    send::send(&rooms, &room, &reaction, None).await.unwrap();
}

#[tokio::test]
async fn a_room_is_created_once() {
    let rooms = testing::rooms().await;
    for version in ["1", "11", "12"] {
        let alice = user_id!("@alice:test.example").to_owned();
        let new = create::NewRoom::plain(alice, version.try_into().unwrap());
        let room = create::create(&rooms, &new).await.unwrap();
        let again = json!({"room_version": version, "creator": "@alice:test.example", "x": 1});
        let set = state("alice", "m.room.create", "", again.clone());
        let error = set_state(&rooms, &room, &set).await.unwrap_err();
        assert!(matches!(error, SetStateError::Create), "{error}");
        let message = Draft::message(&new.creator, TimelineEventType::RoomCreate, object(again));
        let error = send::send(&rooms, &room, &message, None).await.unwrap_err();
        assert!(matches!(error, send::SendError::Append(AppendError::Refused(_))), "{error}");
    }
}
