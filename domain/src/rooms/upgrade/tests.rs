use ruma::room_alias_id;
use serde_json::{Value, json};

use super::*;
use crate::{
    rooms::{
        aliases, ban,
        change_tests::{content, initial, make, object, plain, set, user},
        create::{Listing, Preset},
        directory, join,
        membership::Guest,
    },
    testing,
};

fn to(version: &str, sender: &str) -> Upgrade {
    let (sender, version) = (user(sender), version.try_into().unwrap());
    Upgrade { sender, version, additional_creators: Vec::new() }
}

/// A public, listed room of version 11 with an alias, in which bob is.
async fn room(rooms: &Rooms, version: &str) -> OwnedRoomId {
    let new = NewRoom {
        preset: Preset::Public,
        creation_content: object(json!({"type": "m.space", "m.federate": false, "x": 1})),
        initial_state: vec![
            initial("m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})),
            initial("m.room.server_acl", json!({"allow": ["*"]})),
            initial("org.example.other", json!({"x": 1})),
        ],
        name: Some("name".into()),
        topic: Some("topic".into()),
        alias_name: Some("alias".into()),
        listing: Listing::Published,
        ..plain(version)
    };
    let room = make(rooms, &new).await;
    join::join(rooms, &room, &user("bob"), Guest::No, None).await.unwrap();
    room
}

#[tokio::test]
async fn what_carries_over_does_and_the_old_room_falls_silent() {
    let rooms = testing::rooms().await;
    for version in ["1", "11", "12"] {
        let rooms = if version == "1" { rooms.clone() } else { testing::rooms().await };
        let old = room(&rooms, "10").await;
        set(&rooms, &old, ("m.space.child", "!child"), json!({"via": ["test.example"]})).await;
        set(&rooms, &old, ("m.room.guest_access", ""), json!({"guest_access": "can_join"})).await;
        ban::ban(&rooms, &old, &user("alice"), &user("mallory"), None).await.unwrap();
        let new = upgrade(&rooms, &old, &to(version, "alice")).await.unwrap();
        let state = async |room: &RoomId, kind: &str| content(&rooms, room, kind, "").await;
        let create = state(&new, "m.room.create").await;
        assert_eq!(create["room_version"], version);
        assert_eq!(create["predecessor"]["room_id"], old.as_str());
        assert_eq!(create["predecessor"].get("event_id").is_some(), version != "12");
        assert_eq!(create["type"], "m.space");
        assert_eq!(create["m.federate"], false);
        assert_eq!(create.get("x"), None);
        for kind in [
            "m.room.name",
            "m.room.topic",
            "m.room.encryption",
            "m.room.server_acl",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
        ] {
            assert_eq!(state(&new, kind).await, state(&old, kind).await, "{kind}");
            assert_ne!(state(&new, kind).await, Value::Null, "{kind}");
        }
        assert_eq!(state(&new, "org.example.other").await, Value::Null);
        assert_ne!(content(&rooms, &new, "m.space.child", "!child").await, Value::Null);
        let banned = content(&rooms, &new, "m.room.member", "@mallory:test.example").await;
        assert_eq!(banned["membership"], "ban");
        assert_eq!(state(&old, "m.room.tombstone").await["replacement_room"], new.as_str());
        assert_eq!(state(&old, "m.room.canonical_alias").await, json!({}));
        let alias = room_alias_id!("#alias:test.example");
        assert_eq!(state(&new, "m.room.canonical_alias").await["alias"], alias.as_str());
        assert_eq!(aliases::resolve(&rooms, alias).await.unwrap().unwrap().room, new);
        let listing = directory::listing(&rooms, &new).await.unwrap();
        assert_eq!(listing, Some(Listing::Published));
        let listing = directory::listing(&rooms, &old).await.unwrap();
        assert_eq!(listing, Some(Listing::Unlisted));
        let quiet = state(&old, "m.room.power_levels").await;
        assert_eq!((&quiet["events_default"], &quiet["invite"]), (&json!(50), &json!(50)));
        let levels = state(&new, "m.room.power_levels").await;
        assert_eq!(levels["events_default"], 0);
        let tombstone = if version == "12" { 150 } else { 100 };
        assert_eq!(levels["events"]["m.room.tombstone"], tombstone);
        let creator = levels["users"].get("@alice:test.example");
        assert_eq!(creator.is_some(), version != "12");
    }
}

#[tokio::test]
async fn creators_of_the_new_room_have_no_level_in_it() {
    let rooms = testing::rooms().await;
    for old_version in ["11", "12"] {
        let rooms = if old_version == "11" { rooms.clone() } else { testing::rooms().await };
        let old = room(&rooms, old_version).await;
        let mut users = json!({user("bob"): 150, user("carl"): 50, user("dora"): 60});
        if old_version == "11" {
            users =
                json!({user("alice"): 100, user("bob"): 100, user("carl"): 50, user("dora"): 60});
        }
        set(&rooms, &old, ("m.room.power_levels", ""), json!({"users": users})).await;
        let additional_creators = vec![user("carl")];
        let upgrade_by_bob = Upgrade { additional_creators, ..to("12", "bob") };
        let new = upgrade(&rooms, &old, &upgrade_by_bob).await.unwrap();
        let create = content(&rooms, &new, "m.room.create", "").await;
        assert_eq!(create["additional_creators"], json!([user("carl")]));
        let levels = content(&rooms, &new, "m.room.power_levels", "").await;
        let mut expected = json!({user("dora"): 60});
        if old_version == "11" {
            expected[user("alice").as_str()] = json!(100);
        }
        assert_eq!(levels["users"], expected);
    }
}

#[tokio::test]
async fn who_upgrades_with_less_than_the_highest_level_ends_with_the_level_they_had() {
    let rooms = testing::rooms().await;
    let old = room(&rooms, "11").await;
    let users = json!({user("alice"): 100, user("bob"): 60});
    let events = json!({"m.room.tombstone": 60, "m.room.history_visibility": 100});
    set(&rooms, &old, ("m.room.power_levels", ""), json!({"users": users, "events": events})).await;
    let new = upgrade(&rooms, &old, &to("11", "bob")).await.unwrap();
    let levels = content(&rooms, &new, "m.room.power_levels", "").await;
    assert_eq!(levels["users"], users);
    assert_eq!(levels["events"], events);
}

#[tokio::test]
async fn who_may_set_no_tombstone_upgrades_nothing() {
    let rooms = testing::rooms().await;
    let old = room(&rooms, "11").await;
    for sender in ["bob", "stranger"] {
        let refused = upgrade(&rooms, &old, &to("12", sender)).await.unwrap_err();
        assert!(matches!(refused, UpgradeError::NotAllowed), "{refused}");
    }
    let refused = upgrade(&rooms, &old, &to("13", "alice")).await.unwrap_err();
    assert!(matches!(refused, UpgradeError::Create(CreateError::Version(_))), "{refused}");
    let tombstone = content(&rooms, &old, "m.room.tombstone", "").await;
    assert_eq!(tombstone, Value::Null);
}
