use serde_json::{Value, json};

use super::*;
use crate::{
    rooms::{
        change_tests::{make, object, plain, set, user},
        create::{NewRoom, Preset},
        test_room::Nowhere,
    },
    testing,
};

async fn space(rooms: &Rooms, preset: Preset) -> OwnedRoomId {
    let creation_content = object(json!({"type": "m.space"}));
    make(rooms, &NewRoom { preset, creation_content, ..plain("12") }).await
}

async fn child(rooms: &Rooms, space: &RoomId, child: &RoomId, mut content: Value) {
    if content.get("via").is_none() {
        content["via"] = json!(["test.example"]);
    }
    set(rooms, space, ("m.space.child", child.as_str()), content).await;
}

fn query(room: &RoomId, by: &str) -> Query {
    let (room, user) = (room.to_owned(), user(by));
    let (via, from) = (Vec::new(), None);
    Query { room, via, user, limit: None, max_depth: None, suggested_only: false, from }
}

fn ids(page: &Page) -> Vec<OwnedRoomId> {
    page.rooms.iter().map(|room| room.summary.room_id.clone()).collect()
}

/// A space with a room, a space with a room, and a private room; in the order of their `order`.
async fn world(rooms: &Rooms) -> [OwnedRoomId; 5] {
    let root = space(rooms, Preset::Public).await;
    let first = make(rooms, &NewRoom { preset: Preset::Public, ..plain("12") }).await;
    let inner = space(rooms, Preset::Public).await;
    let leaf = make(rooms, &NewRoom { preset: Preset::Public, ..plain("12") }).await;
    let private = make(rooms, &plain("12")).await;
    child(rooms, &root, &private, json!({})).await;
    child(rooms, &root, &inner, json!({"order": "b", "suggested": true})).await;
    child(rooms, &root, &first, json!({"order": "a"})).await;
    child(rooms, &inner, &leaf, json!({})).await;
    // A circle, a room that is no child any more, and one that nobody here has.
    child(rooms, &inner, &root, json!({})).await;
    child(rooms, &inner, &first, json!({"via": []})).await;
    child(rooms, &inner, ruma::room_id!("!elsewhere"), json!({})).await;
    [root, first, inner, leaf, private]
}

#[tokio::test]
async fn a_space_is_walked_in_order_and_only_where_one_may_look() {
    let rooms = testing::rooms().await;
    let [root, first, inner, leaf, private] = world(&rooms).await;
    let page = hierarchy(&rooms, &Nowhere, &query(&root, "bob")).await.unwrap();
    assert_eq!(ids(&page), [root.clone(), first.clone(), inner.clone(), leaf.clone()]);
    assert_eq!(page.next, None);
    assert_eq!(page.rooms[0].children.len(), 3, "links are told, whatever they lead to");
    let event: Value = serde_json::from_str(page.rooms[0].children[0].get()).unwrap();
    assert_eq!(event["state_key"], first.as_str());
    assert!(event["origin_server_ts"].is_u64());
    let page = hierarchy(&rooms, &Nowhere, &query(&root, "alice")).await.unwrap();
    assert_eq!(ids(&page), [root.clone(), first, inner.clone(), leaf, private.clone()]);
    let suggested = Query { suggested_only: true, ..query(&root, "alice") };
    assert_eq!(ids(&hierarchy(&rooms, &Nowhere, &suggested).await.unwrap()), [root.clone(), inner]);
    let flat = Query { max_depth: Some(0), ..query(&root, "alice") };
    assert_eq!(ids(&hierarchy(&rooms, &Nowhere, &flat).await.unwrap()), [root]);
    let hidden = hierarchy(&rooms, &Nowhere, &query(&private, "bob")).await.unwrap_err();
    assert!(matches!(hidden, HierarchyError::NotVisible(_)), "{hidden}");
}

#[tokio::test]
async fn pages_together_are_the_whole_and_their_tokens_fit_their_question_only() {
    let rooms = testing::rooms().await;
    let [root, ..] = world(&rooms).await;
    let whole = ids(&hierarchy(&rooms, &Nowhere, &query(&root, "alice")).await.unwrap());
    let mut walked = Vec::new();
    let mut from = None;
    loop {
        let query = Query { limit: Some(2), from, ..query(&root, "alice") };
        let page = hierarchy(&rooms, &Nowhere, &query).await.unwrap();
        walked.extend(ids(&page));
        from = page.next;
        if from.is_none() {
            break;
        }
        let other = Query { suggested_only: true, from: from.clone(), ..query };
        assert!(matches!(hierarchy(&rooms, &Nowhere, &other).await, Err(HierarchyError::Token)));
    }
    assert_eq!(walked, whole);
}
