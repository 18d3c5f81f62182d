//! Sending and reading events, the old endpoints too.

use serde_json::{Value, json};

use super::{
    cases,
    world::{World, text},
};

cases! {
    sendMessage(w) {
        let event = w.say("x").await;
        let found = w.bob.get(&w.in_room(&format!("event/{event}"))).await.ok();
        assert_eq!(found["content"]["body"], "x");
        w.root.put(&w.in_room("send/m.room.message/1"), json!({})).await
            .refused(403, "M_FORBIDDEN");
    }
    redactEvent(w) {
        let event = w.say("x").await;
        let path = w.in_room(&format!("redact/{event}/1"));
        w.bob.put(&path, json!({})).await.refused(403, "M_FORBIDDEN");
        w.alice.put(&path, json!({"reason": "typo"})).await.ok();
        let found = w.bob.get(&w.in_room(&format!("event/{event}"))).await.ok();
        assert_eq!(found["content"], json!({}));
    }
    getOneRoomEvent(w) {
        let event = w.say("x").await;
        let found = w.bob.get(&w.in_room(&format!("event/{event}"))).await.ok();
        assert_eq!(found["event_id"], event.as_str());
        w.bob.get(&w.in_room("event/$none")).await.refused(404, "M_NOT_FOUND");
    }
    getEventContext(w) {
        let (before, event) = (w.say("a").await, w.say("b").await);
        let found = w.bob.get(&w.in_room(&format!("context/{event}"))).await.ok();
        assert_eq!(found["events_before"][0]["event_id"], before.as_str());
        w.bob.get(&w.in_room("context/$none")).await.refused(404, "M_NOT_FOUND");
    }
    getRoomEvents(w) {
        let event = w.say("x").await;
        let found = w.bob.get(&w.in_room("messages?dir=b")).await.ok();
        assert_eq!(found["chunk"][0]["event_id"], event.as_str());
        w.bob.get("rooms/!none:test/messages?dir=b").await.refused(403, "M_FORBIDDEN");
    }
    getEventByTimestamp(w) {
        let event = w.say("x").await;
        let path = format!("/_matrix/client/v1/{}", w.in_room("timestamp_to_event"));
        let found = w.bob.get(&format!("{path}?ts=9999999999999&dir=b")).await.ok();
        assert_eq!(found["event_id"], event.as_str());
        w.bob.get(&format!("{path}?ts=9999999999999&dir=f")).await.refused(404, "M_NOT_FOUND");
    }
    getRelatingEvents(w) { relations(w, "").await; }
    getRelatingEventsWithRelType(w) { relations(w, "/m.reference").await; }
    getRelatingEventsWithRelTypeAndEventType(w) {
        relations(w, "/m.reference/m.room.message").await;
    }
    getThreadRoots(w) {
        let root = w.say("root").await;
        let relates = json!({"rel_type": "m.thread", "event_id": root});
        w.send("m.room.message", json!({"body": "x", "m.relates_to": relates})).await;
        let path = format!("/_matrix/client/v1/{}", w.in_room("threads"));
        assert_eq!(w.bob.get(&path).await.ok()["chunk"][0]["event_id"], root.as_str());
        let none = "/_matrix/client/v1/rooms/!none:test/threads";
        w.bob.get(none).await.refused(403, "M_FORBIDDEN");
    }
    search(w) {
        let event = w.say("herring").await;
        let body = |term: &str| {
            json!({"search_categories": {"room_events": {"search_term": term}}})
        };
        let mut found = Value::Null;
        // What was said is found once the index has followed.
        for _ in 0..200 {
            let answer = w.bob.post("search", body("herring")).await.ok();
            found = answer["search_categories"]["room_events"].clone();
            if found["count"] == 1 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(found["results"][0]["result"]["event_id"], event.as_str(), "{found}");
        w.bob.post("search", json!({})).await.refused(400, "M_BAD_JSON");
    }
    initialSync(w) {
        let event = w.say("x").await;
        let found = w.bob.get("initialSync?limit=3").await.ok();
        let room = &found["rooms"][0];
        assert_eq!(room["room_id"], w.room.as_str());
        let messages = room["messages"]["chunk"].as_array().expect("a list");
        assert_eq!((messages.len(), &messages[2]["event_id"]), (3, &json!(event)));
        assert!(room["state"].as_array().is_some_and(|state| state.len() > 4), "{room}");
        w.nobody.get("initialSync").await.refused(401, "M_MISSING_TOKEN");
    }
    getEvents(w) {
        let begin = w.bob.get("initialSync").await.ok()["end"].clone();
        let event = w.say("x").await;
        let found = w.bob.get(&format!("events?from={}&timeout=0", text(&begin))).await.ok();
        assert_eq!(found["start"], begin);
        assert_eq!(found["chunk"][0]["event_id"], event.as_str(), "{found}");
        assert_eq!(found["chunk"][0]["room_id"], w.room.as_str());
        let path = format!("events?from={}", text(&found["end"]));
        assert_eq!(w.bob.get(&path).await.ok()["chunk"], json!([]));
        w.bob.get("events?from=nonsense").await.refused(400, "M_INVALID_PARAM");
    }
    peekEvents(w) {
        let path = format!("events?room_id={}", w.room);
        w.root.get(&path).await.refused(403, "M_FORBIDDEN");
        let visible = json!({"history_visibility": "world_readable"});
        w.alice.put(&w.in_room("state/m.room.history_visibility/"), visible).await.ok();
        let begin = w.root.get(&w.in_room("initialSync")).await.ok();
        assert_eq!(begin.get("membership"), None);
        let event = w.say("x").await;
        let end = text(&begin["messages"]["end"]);
        let found = w.root.get(&format!("{path}&from={end}")).await.ok();
        assert_eq!(found["chunk"][0]["event_id"], event.as_str(), "{found}");
        let found = w.root.get(&format!("{path}&from={}", text(&found["end"]))).await.ok();
        assert_eq!(found["chunk"], json!([]));
    }
    getOneEvent(w) {
        let event = w.say("x").await;
        assert_eq!(w.bob.get(&format!("events/{event}")).await.ok()["content"]["body"], "x");
        w.root.get(&format!("events/{event}")).await.refused(404, "M_NOT_FOUND");
    }
}

async fn relations(w: &World, kinds: &str) {
    let event = w.say("x").await;
    let relates = json!({"rel_type": "m.reference", "event_id": event});
    let child = w.send("m.room.message", json!({"body": "y", "m.relates_to": relates})).await;
    let path = |event: &str| {
        format!("/_matrix/client/v1/{}{kinds}", w.in_room(&format!("relations/{event}")))
    };
    let found = w.bob.get(&path(&event)).await.ok();
    assert_eq!(found["chunk"][0]["event_id"], child.as_str(), "{found}");
    w.bob.get(&path("$none")).await.refused(404, "M_NOT_FOUND");
}
