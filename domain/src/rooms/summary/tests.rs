use serde_json::json;

use super::*;
use crate::rooms::test_room::Nowhere;
use crate::{
    rooms::{
        change_tests::{initial, make, object, plain, set, user},
        create::{NewRoom, Preset},
        invite, join,
        membership::Guest,
        redact,
    },
    testing,
};

async fn sees(rooms: &Rooms, user: Option<&UserId>, room: &RoomId) -> bool {
    match room_summary(rooms, (&Nowhere, &[]), user, room).await {
        Ok(_) => true,
        Err(SummaryError::Unknown(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_summary_tells_what_the_state_says_and_nothing_that_was_redacted() {
    let rooms = testing::rooms().await;
    let new = NewRoom {
        preset: Preset::Public,
        name: Some("name".into()),
        alias_name: Some("alias".into()),
        creation_content: object(json!({"type": "m.space"})),
        initial_state: vec![
            initial("m.room.history_visibility", json!({"history_visibility": "world_readable"})),
            initial("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})),
        ],
        ..plain("11")
    };
    let room = make(&rooms, &new).await;
    let topic = set(&rooms, &room, ("m.room.topic", ""), json!({"topic": "secret"})).await;
    let redaction = redact::Redaction {
        sender: user("alice"),
        target: topic,
        content: object(json!({})),
        of: redact::RedactsOf::All,
    };
    redact::redact(&rooms, &room, &redaction, None).await.unwrap();
    let (summary, membership) = room_summary(&rooms, (&Nowhere, &[]), None, &room).await.unwrap();
    assert_eq!(membership, None);
    assert_eq!(
        serde_json::to_value(&summary).unwrap(),
        json!({
            "room_id": room, "name": "name", "canonical_alias": "#alias:test.example",
            "room_type": "m.space", "num_joined_members": 1, "world_readable": true,
            "guest_can_join": false, "encryption": "m.megolm.v1.aes-sha2", "room_version": "11",
        })
    );
}

#[tokio::test]
async fn only_who_could_join_or_is_invited_knows_of_a_room() {
    let rooms = testing::rooms().await;
    let (alice, bob) = (&user("alice"), &user("bob"));
    let club = make(&rooms, &NewRoom { preset: Preset::Public, ..plain("12") }).await;
    let private = make(&rooms, &plain("12")).await;
    let allow = json!([{"type": "m.room_membership", "room_id": club}]);
    let rules = json!({"join_rule": "restricted", "allow": allow});
    let initial_state = vec![initial("m.room.join_rules", rules)];
    let restricted = make(&rooms, &NewRoom { initial_state, ..plain("12") }).await;
    let knock = vec![initial("m.room.join_rules", json!({"join_rule": "knock"}))];
    let knock = make(&rooms, &NewRoom { initial_state: knock, ..plain("12") }).await;
    for (room, anybody) in [(&club, true), (&private, false), (&restricted, false), (&knock, true)]
    {
        assert_eq!(sees(&rooms, None, room).await, anybody, "{room}");
        assert_eq!(sees(&rooms, Some(bob), room).await, anybody, "{room}");
        assert!(sees(&rooms, Some(alice), room).await);
    }
    join::join(&rooms, &club, bob, Guest::No, None).await.unwrap();
    assert!(sees(&rooms, Some(bob), &restricted).await);
    invite::invite(&rooms, &private, alice, bob, None).await.unwrap();
    let (summary, membership) =
        room_summary(&rooms, (&Nowhere, &[]), Some(bob), &private).await.unwrap();
    assert_eq!(membership, Some(MembershipState::Invite));
    assert_eq!(summary.join_rule.as_str(), "invite");
    assert!(!sees(&rooms, None, ruma::room_id!("!unknown")).await);
}
