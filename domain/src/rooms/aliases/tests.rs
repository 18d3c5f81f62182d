use ruma::room_alias_id;
use serde_json::json;

use super::*;
use crate::{
    rooms::{
        change_tests::{content, make, plain, set, user},
        create::{NewRoom, Preset},
        join,
        membership::Guest,
        test_room::viewer,
    },
    testing,
};

#[tokio::test]
async fn an_alias_is_made_by_a_member_and_once() {
    let rooms = testing::rooms().await;
    let room = make(&rooms, &plain("12")).await;
    let alias = room_alias_id!("#räum:test.example");
    let stranger = create_alias(&rooms, alias, &room, &user("bob")).await.unwrap_err();
    assert!(matches!(stranger, AliasError::NotJoined(_)), "{stranger}");
    create_alias(&rooms, alias, &room, &user("alice")).await.unwrap();
    assert_eq!(resolve(&rooms, alias).await.unwrap().unwrap().room, room);
    let again = create_alias(&rooms, alias, &room, &user("alice")).await.unwrap_err();
    assert!(matches!(again, AliasError::Exists(_)), "{again}");
    let elsewhere = room_alias_id!("#a:other.example");
    let elsewhere = create_alias(&rooms, elsewhere, &room, &user("alice")).await.unwrap_err();
    assert!(matches!(elsewhere, AliasError::Name(_)), "{elsewhere}");
    assert_eq!(list_aliases(&rooms, &viewer("alice"), &room).await.unwrap(), [alias]);
    let hidden = list_aliases(&rooms, &viewer("bob"), &room).await.unwrap_err();
    assert!(matches!(hidden, ListAliasesError::NotReadable(_)), "{hidden}");
}

#[tokio::test]
async fn a_removed_alias_is_taken_out_of_the_canonical_alias_by_who_may_set_it() {
    let rooms = testing::rooms().await;
    let new = NewRoom { preset: Preset::Public, ..plain("11") };
    let room = make(&rooms, &new).await;
    join::join(&rooms, &room, &user("bob"), Guest::No, None).await.unwrap();
    let one = room_alias_id!("#one:test.example");
    let other = room_alias_id!("#other:test.example");
    create_alias(&rooms, one, &room, &user("alice")).await.unwrap();
    create_alias(&rooms, other, &room, &user("bob")).await.unwrap();
    let canonical = json!({"alias": one, "alt_aliases": [one, other]});
    set(&rooms, &room, ("m.room.canonical_alias", ""), canonical.clone()).await;
    let refused = delete_alias(&rooms, one, &user("bob"), Remover::User).await.unwrap_err();
    assert!(matches!(refused, AliasError::NotAllowed), "{refused}");
    // Bob may remove what he made, but not set state.
    delete_alias(&rooms, other, &user("bob"), Remover::User).await.unwrap();
    assert_eq!(content(&rooms, &room, "m.room.canonical_alias", "").await, canonical);
    delete_alias(&rooms, one, &user("alice"), Remover::User).await.unwrap();
    let left = content(&rooms, &room, "m.room.canonical_alias", "").await;
    assert_eq!(left, json!({"alt_aliases": [other]}));
    let gone = delete_alias(&rooms, one, &user("alice"), Remover::User).await.unwrap_err();
    assert!(matches!(gone, AliasError::Unknown(_)), "{gone}");
    assert_eq!(list_aliases(&rooms, &viewer("alice"), &room).await.unwrap(), [] as [&str; 0]);
}
