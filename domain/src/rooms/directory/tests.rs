use serde_json::json;

use super::*;
use crate::{
    rooms::{
        change_tests::{make, object, plain, set, user},
        create::{NewRoom, Preset},
        join,
        membership::Guest,
    },
    testing,
};

/// Public rooms with so many members each.
async fn listed(rooms: &Rooms, members: &[usize]) -> Vec<OwnedRoomId> {
    let mut ids = Vec::new();
    for (n, members) in members.iter().enumerate() {
        let name = Some(format!("Room {n}"));
        let (preset, listing) = (Preset::Public, Listing::Published);
        let room = make(rooms, &NewRoom { name, preset, listing, ..plain("12") }).await;
        for member in 1..*members {
            let user = user(&format!("user{member}"));
            join::join(rooms, &room, &user, Guest::No, None).await.unwrap();
        }
        ids.push(room);
    }
    ids
}

fn ids(page: &Page) -> Vec<OwnedRoomId> {
    page.rooms.iter().map(|summary| summary.room_id.clone()).collect()
}

#[tokio::test]
async fn pages_lead_forth_and_back_through_rooms_of_falling_size() {
    let rooms = testing::rooms().await;
    let made = listed(&rooms, &[2, 4, 1, 3]).await;
    let order = [1, 3, 0, 2].map(|n: usize| made[n].clone());
    let ask = async |since: Option<String>| {
        let query = Query { limit: Some(2), since, ..Query::default() };
        list(&rooms, &query).await.unwrap()
    };
    let first = ask(None).await;
    assert_eq!((ids(&first).as_slice(), first.total), (&order[..2], 4));
    assert_eq!(first.prev, None);
    let second = ask(first.next).await;
    assert_eq!(ids(&second), &order[2..]);
    assert_eq!(second.next, None);
    let back = ask(second.prev).await;
    assert_eq!(ids(&back), &order[..2]);
    let bad = Query { since: Some("x".into()), ..Query::default() };
    assert!(matches!(list(&rooms, &bad).await, Err(DirectoryError::Token)));
}

#[tokio::test]
async fn rooms_are_found_by_text_and_by_type() {
    let rooms = testing::rooms().await;
    let made = listed(&rooms, &[1, 1]).await;
    let space = NewRoom {
        creation_content: object(json!({"type": "m.space"})),
        topic: Some("About Wombles".into()),
        listing: Listing::Published,
        ..plain("12")
    };
    let space = make(&rooms, &space).await;
    let find = async |term: Option<&str>, room_types: Vec<RoomTypeFilter>| {
        let term = term.map(str::to_owned);
        ids(&list(&rooms, &Query { term, room_types, ..Query::default() }).await.unwrap())
    };
    assert_eq!(find(Some("wombles"), Vec::new()).await, std::slice::from_ref(&space));
    assert_eq!(find(Some("ROOM 1"), Vec::new()).await, [made[1].clone()]);
    assert_eq!(find(None, vec![RoomTypeFilter::Space]).await, [space]);
    assert_eq!(find(None, vec![RoomTypeFilter::Default]).await.len(), 2);
    assert_eq!(find(Some("nothing"), Vec::new()).await.len(), 0);
}

#[tokio::test]
async fn only_who_has_the_level_lists_a_room() {
    let rooms = testing::rooms().await;
    let room = make(&rooms, &NewRoom { preset: Preset::Public, ..plain("12") }).await;
    let (alice, bob) = (&user("alice"), &user("bob"));
    join::join(&rooms, &room, bob, Guest::No, None).await.unwrap();
    let listed = Listing::Published;
    let refused = set_listing(&rooms, &room, Publisher::User(bob), listed).await.unwrap_err();
    assert!(matches!(refused, PublishError::NotAllowed), "{refused}");
    for publisher in [Publisher::User(alice), Publisher::Administrator] {
        for wanted in [Listing::Published, Listing::Unlisted] {
            set_listing(&rooms, &room, publisher, wanted).await.unwrap();
            assert_eq!(listing(&rooms, &room).await.unwrap(), Some(wanted));
        }
    }
    assert_eq!(listing(&rooms, ruma::room_id!("!unknown")).await.unwrap(), None);
}

#[tokio::test]
async fn a_search_knows_rooms_by_their_newest_names() {
    let rooms = testing::rooms().await;
    let room = listed(&rooms, &[2]).await.remove(0);
    let find = async |term: &str| {
        let query = Query { term: Some(term.to_owned()), ..Query::default() };
        list(&rooms, &query).await.unwrap().total
    };
    assert_eq!((find("Room 0").await, find("Garden").await), (1, 0));
    set(&rooms, &room, ("m.room.name", ""), json!({"name": "Garden"})).await;
    assert_eq!((find("Room 0").await, find("Garden").await), (0, 1));
}
