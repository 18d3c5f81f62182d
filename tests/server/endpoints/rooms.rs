//! Rooms, their state, names and lists.

use serde_json::json;

use super::{cases, world::text};

cases! {
    createRoom(w) {
        let room = w.alice.post("createRoom", json!({"name": "New"})).await.ok();
        let path = format!("rooms/{}/state/m.room.name/", text(&room["room_id"]));
        assert_eq!(w.alice.get(&path).await.ok(), json!({"name": "New"}));
        let body = json!({"room_version": "none"});
        w.alice.post("createRoom", body).await.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    }
    upgradeRoom(w) {
        let path = w.in_room("upgrade");
        w.bob.post(&path, json!({"new_version": "11"})).await.refused(403, "M_FORBIDDEN");
        let new = w.alice.post(&path, json!({"new_version": "11"})).await.ok();
        let tombstone = w.alice.get(&w.in_room("state/m.room.tombstone/")).await.ok();
        assert_eq!(tombstone["replacement_room"], new["replacement_room"]);
    }
    setRoomAlias(w) {
        let (path, body) = ("directory/room/%23a:test", json!({"room_id": w.room}));
        w.alice.put(path, body.clone()).await.ok();
        assert_eq!(w.nobody.get(path).await.ok()["room_id"], w.room.as_str());
        w.bob.put(path, body).await.refused(409, "M_UNKNOWN");
    }
    getRoomIdByAlias(w) {
        let path = "directory/room/%23a:test";
        w.nobody.get(path).await.refused(404, "M_NOT_FOUND");
        w.alice.put(path, json!({"room_id": w.room})).await.ok();
        assert_eq!(w.nobody.get(path).await.ok()["room_id"], w.room.as_str());
    }
    deleteRoomAlias(w) {
        let path = "directory/room/%23a:test";
        w.alice.put(path, json!({"room_id": w.room})).await.ok();
        w.bob.delete(path, json!({})).await.refused(403, "M_FORBIDDEN");
        w.alice.delete(path, json!({})).await.ok();
        w.nobody.get(path).await.refused(404, "M_NOT_FOUND");
    }
    getLocalAliases(w) {
        w.alice.put("directory/room/%23a:test", json!({"room_id": w.room})).await.ok();
        let found = w.alice.get(&w.in_room("aliases")).await.ok();
        assert_eq!(found, json!({"aliases": ["#a:test"]}));
        w.root.get(&w.in_room("aliases")).await.refused(403, "M_FORBIDDEN");
    }
    setRoomVisibilityOnDirectory(w) {
        let path = format!("directory/list/room/{}", w.room);
        w.alice.put(&path, json!({"visibility": "public"})).await.ok();
        assert_eq!(w.nobody.get(&path).await.ok(), json!({"visibility": "public"}));
        w.bob.put(&path, json!({"visibility": "private"})).await.refused(403, "M_FORBIDDEN");
    }
    getRoomVisibilityOnDirectory(w) {
        let path = format!("directory/list/room/{}", w.room);
        assert_eq!(w.nobody.get(&path).await.ok(), json!({"visibility": "private"}));
        w.nobody.get("directory/list/room/!none:test").await.refused(404, "M_NOT_FOUND");
    }
    getPublicRooms(w) {
        let path = format!("directory/list/room/{}", w.room);
        w.alice.put(&path, json!({"visibility": "public"})).await.ok();
        let found = w.nobody.get("publicRooms").await.ok();
        assert_eq!(found["chunk"][0]["room_id"], w.room.as_str());
        w.nobody.get("publicRooms?since=nonsense").await.refused(400, "M_INVALID_PARAM");
    }
    queryPublicRooms(w) {
        let path = format!("directory/list/room/{}", w.room);
        w.alice.put(&path, json!({"visibility": "public"})).await.ok();
        let search = |term: &str| json!({"filter": {"generic_search_term": term}});
        let found = w.alice.post("publicRooms", search("room")).await.ok();
        assert_eq!(found["chunk"][0]["name"], "Room");
        let found = w.alice.post("publicRooms", search("else")).await.ok();
        assert_eq!(found["chunk"], json!([]));
        w.alice.post("publicRooms", json!({"filter": 5})).await.refused(400, "M_BAD_JSON");
    }
    getRoomSummary(w) {
        let path = format!("/_matrix/client/v1/room_summary/{}", w.room);
        assert_eq!(w.nobody.get(&path).await.ok()["name"], "Room");
        let path = "/_matrix/client/v1/room_summary/!none:test";
        w.alice.get(path).await.refused(404, "M_NOT_FOUND");
    }
    getSpaceHierarchy(w) {
        let body = json!({"creation_content": {"type": "m.space"}});
        let space = w.alice.post("createRoom", body).await.ok()["room_id"].clone();
        let space = text(&space);
        let path = format!("rooms/{space}/state/m.space.child/{}", w.room);
        w.alice.put(&path, json!({"via": ["test"]})).await.ok();
        let path = format!("/_matrix/client/v1/rooms/{space}/hierarchy");
        let found = w.alice.get(&path).await.ok();
        assert_eq!(found["rooms"][1]["room_id"], w.room.as_str(), "{found}");
        w.bob.get(&path).await.refused(403, "M_FORBIDDEN");
    }
    getRoomStateWithKey(w) {
        let found = w.alice.get(&w.in_room("state/m.room.name/")).await.ok();
        assert_eq!(found, json!({"name": "Room"}));
        w.alice.get(&w.in_room("state/m.room.none/")).await.refused(404, "M_NOT_FOUND");
    }
    getRoomState(w) {
        let state = w.alice.get(&w.in_room("state")).await.ok();
        let state = state.as_array().expect("a list").clone();
        assert!(state.iter().any(|event| event["content"]["name"] == "Room"));
        w.root.get("rooms/!none:test/state").await.refused(403, "M_FORBIDDEN");
    }
    setRoomStateWithKey(w) {
        let path = w.in_room("state/m.room.topic/");
        w.bob.put(&path, json!({"topic": "b"})).await.refused(403, "M_FORBIDDEN");
        w.alice.put(&path, json!({"topic": "a"})).await.ok();
        assert_eq!(w.alice.get(&path).await.ok(), json!({"topic": "a"}));
    }
    roomInitialSync(w) {
        let event = w.say("x").await;
        let found = w.bob.get(&w.in_room("initialSync")).await.ok();
        assert_eq!(found["membership"], "join");
        assert_eq!(found["visibility"], "private");
        let messages = found["messages"]["chunk"].as_array().expect("a list");
        assert_eq!(messages.last().map(|last| &last["event_id"]), Some(&json!(event)));
        w.root.get("rooms/!none:test/initialSync").await.refused(403, "M_FORBIDDEN");
    }
    reportRoom(w) {
        w.bob.post(&w.in_room("report"), json!({"reason": "x"})).await.ok();
        // Administrators read reports where the server keeps them.
        assert_eq!(w.reports().await, 1);
        w.bob.post("rooms/!none:test/report", json!({"reason": "x"})).await
            .refused(404, "M_NOT_FOUND");
    }
    reportEvent(w) {
        let event = w.say("x").await;
        w.bob.post(&w.in_room(&format!("report/{event}")), json!({"reason": "x"})).await.ok();
        assert_eq!(w.reports().await, 1);
        w.bob.post(&w.in_room("report/$none"), json!({"reason": "x"})).await
            .refused(404, "M_NOT_FOUND");
    }
    reportUser(w) {
        let path = format!("users/{}/report", w.alice.id());
        w.bob.post(&path, json!({"reason": "x"})).await.ok();
        assert_eq!(w.reports().await, 1);
        w.nobody.post(&path, json!({"reason": "x"})).await.refused(401, "M_MISSING_TOKEN");
    }
}
