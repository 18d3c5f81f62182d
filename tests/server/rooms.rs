//! Changing rooms as clients do it: creating, joining, sending, upgrading, finding.

use std::sync::Arc;

use axum::body::Body;
use http::Method;
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Client, TestClock, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const V1: &str = "/_matrix/client/v1";

async fn create(client: &Client, body: Value) -> String {
    let room = client.post(&format!("{V3}/createRoom"), body).await.ok();
    room["room_id"].as_str().expect("a room ID").to_owned()
}

async fn state(client: &Client, room: &str, place: &str) -> Value {
    client.get(&format!("{V3}/rooms/{room}/state/{place}")).await.ok()
}

#[tokio::test]
async fn a_room_that_cannot_be_is_refused_by_the_errcode_for_its_reason() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    create(&alice, json!({"room_alias_name": "taken"})).await;
    let levels = json!({"users": {alice.user(): 100}});
    for (body, status, errcode) in [
        (json!({"room_version": "13"}), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({"room_version": 11}), 400, "M_BAD_JSON"),
        (json!({"preset": "free_for_all"}), 400, "M_BAD_JSON"),
        (json!({"room_alias_name": "taken"}), 400, "M_ROOM_IN_USE"),
        (json!({"room_alias_name": "a b"}), 400, "M_INVALID_PARAM"),
        (json!({"power_level_content_override": levels}), 400, "M_INVALID_ROOM_STATE"),
        (json!({"creation_content": {"m.federate": "no"}}), 400, "M_BAD_JSON"),
        (json!({"initial_state": [{"type": "m.room.name"}]}), 400, "M_BAD_JSON"),
        (json!({"name": "x".repeat(70_000)}), 413, "M_TOO_LARGE"),
    ] {
        let answer = alice.post(&format!("{V3}/createRoom"), body.clone()).await;
        answer.refused(status, errcode);
    }
    let joined = alice.get(&format!("{V3}/joined_rooms")).await.ok();
    assert_eq!(joined["joined_rooms"].as_array().unwrap().len(), 1, "nothing was left behind");
}

#[tokio::test]
async fn a_room_is_joined_by_alias_without_a_body_and_not_by_guesses() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let public = json!({"preset": "public_chat", "room_alias_name": "lobby"});
    let room = create(&alice, public).await;
    let private = create(&alice, json!({})).await;
    let name = server.env.identity.name.clone();
    let by_alias = format!("{V3}/join/%23lobby:{name}");
    for _ in 0..2 {
        let joined = bob.send(Method::POST, &by_alias, Body::empty()).await.ok();
        assert_eq!(joined["room_id"], room.as_str());
    }
    let own = format!("m.room.member/{}", bob.user());
    assert_eq!(state(&bob, &room, &own).await["membership"], "join");
    for (path, status, errcode) in [
        (format!("{V3}/join/%23gone:{name}"), 404, "M_NOT_FOUND"),
        (format!("{V3}/join/!gone:{name}"), 404, "M_NOT_FOUND"),
        (format!("{V3}/rooms/{private}/join"), 403, "M_FORBIDDEN"),
        (format!("{V3}/knock/{private}"), 403, "M_FORBIDDEN"),
        (format!("{V3}/rooms/{room}/forget"), 400, "M_UNKNOWN"),
    ] {
        bob.post(&path, json!({})).await.refused(status, errcode);
    }
    let kick = json!({"user_id": alice.user()});
    bob.post(&format!("{V3}/rooms/{room}/kick"), kick).await.refused(403, "M_FORBIDDEN");
    let refused = bob.get(&format!("{V3}/rooms/{private}/state")).await;
    refused.refused(403, "M_FORBIDDEN");
    bob.get(&format!("{V3}/rooms/{room}/state/no.such")).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_repeated_request_sends_once_also_after_a_restart_and_its_id_is_told_to_its_device() {
    let (engine, clock) = (Arc::new(MemoryEngine::new()), TestClock::default());
    let config = TestServer::config();
    let server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = create(&alice, json!({"preset": "public_chat"})).await;
    bob.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
    let path = format!("{V3}/rooms/{room}/send/m.room.message/t1");
    let hello = json!({"msgtype": "m.text", "body": "hello"});
    let sent = alice.put(&path, hello.clone()).await.ok();
    assert_eq!(alice.put(&path, hello.clone()).await.ok(), sent);
    assert_ne!(bob.put(&path, hello.clone()).await.ok(), sent, "another device, another request");
    server.stop().await;
    let server = TestServer::start_on(engine, &config, clock).await;
    let (alice, bob) = (alice.on(&server), bob.on(&server));
    assert_eq!(alice.put(&path, hello).await.ok(), sent);
    let event = format!("{V3}/rooms/{room}/event/{}", sent["event_id"].as_str().unwrap());
    assert_eq!(alice.get(&event).await.ok()["unsigned"]["transaction_id"], "t1");
    assert_eq!(bob.get(&event).await.ok()["unsigned"].get("transaction_id"), None);
}

#[tokio::test]
async fn a_number_that_no_event_can_hold_is_refused_with_the_reason_in_old_rooms_too() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = create(&alice, json!({"room_version": "5"})).await;
    for path in ["send/m.room.message/t", "state/a.b/"] {
        let path = format!("{V3}/rooms/{room}/{path}");
        let answer = alice.put(&path, json!({"number": [1.5]})).await;
        assert!(answer.body["error"].to_string().contains("in every room version"));
        answer.refused(400, "M_BAD_JSON");
        alice.put(&path, json!({"number": [1]})).await.ok();
    }
}

#[tokio::test]
async fn what_must_not_be_sent_is_not() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = create(&alice, json!({"room_version": "11"})).await;
    let send = format!("{V3}/rooms/{room}/send/m.room.message/t");
    let set = format!("{V3}/rooms/{room}/state");
    let reaction = json!({"m.relates_to": {"rel_type": "m.annotation", "key": "x",
        "event_id": "$target"}});
    let react = format!("{V3}/rooms/{room}/send/m.reaction");
    alice.put(&format!("{react}/1"), reaction.clone()).await.ok();
    let user = alice.user();
    for (path, body, status, errcode) in [
        (format!("{send}1?org.matrix.msc4140.delay=1000"), json!({}), 400, "M_UNRECOGNIZED"),
        (format!("{set}/a.b/?org.matrix.msc4140.delay=1000"), json!({}), 400, "M_UNRECOGNIZED"),
        (format!("{send}2"), json!({"body": "x".repeat(65_536)}), 413, "M_TOO_LARGE"),
        (format!("{send}3"), json!({"number": 1.5}), 400, "M_BAD_JSON"),
        (format!("{send}4"), json!({"number": 9_007_199_254_740_992_u64}), 400, "M_BAD_JSON"),
        (format!("{react}/2"), reaction, 400, "M_DUPLICATE_ANNOTATION"),
        (format!("{set}/m.room.create/"), json!({"room_version": "1"}), 400, "M_BAD_JSON"),
        (
            format!("{set}/m.room.canonical_alias/"),
            json!({"alias": format!("#gone:{}", user.server_name())}),
            400,
            "M_BAD_ALIAS",
        ),
        (format!("{set}/m.room.canonical_alias/"), json!({"alias": "x"}), 400, "M_INVALID_PARAM"),
        (format!("{set}/m.room.member/{user}"), json!({"membership": "?"}), 400, "M_BAD_JSON"),
        (format!("{V3}/rooms/!gone:x/send/a.b/1"), json!({}), 403, "M_FORBIDDEN"),
        (format!("{V3}/rooms/{room}/redact/$gone/1"), json!({}), 404, "M_NOT_FOUND"),
    ] {
        alice.put(&path, body).await.refused(status, errcode);
    }
}

#[tokio::test]
async fn a_room_is_found_in_the_directory_and_by_its_summary() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let listed = json!({"visibility": "public", "name": "Café", "topic": "Wombles"});
    let room = create(&alice, listed).await;
    let rooms = format!("{V3}/publicRooms");
    server.client().get(&rooms).await.refused(401, "M_MISSING_TOKEN");
    let page = bob.get(&rooms).await.ok();
    let expected = json!({
        "room_id": room, "name": "Café", "topic": "Wombles", "num_joined_members": 1,
        "world_readable": false, "guest_can_join": false, "join_rule": "public",
    });
    assert_eq!(page, json!({"chunk": [expected], "total_room_count_estimate": 1}));
    for (term, found) in [("WOMBLES", 1), ("cafÉ", 1), ("nothing", 0)] {
        let filter = json!({"filter": {"generic_search_term": term}});
        let page = bob.post(&rooms, filter).await.ok();
        assert_eq!(page["chunk"].as_array().unwrap().len(), found, "{term}");
    }
    bob.get(&format!("{rooms}?since=x")).await.refused(400, "M_INVALID_PARAM");
    let listing = format!("{V3}/directory/list/room/{room}");
    bob.put(&listing, json!({"visibility": "private"})).await.refused(403, "M_FORBIDDEN");
    alice.put(&listing, json!({"visibility": "private"})).await.ok();
    assert_eq!(server.client().get(&listing).await.ok()["visibility"], "private");
    assert_eq!(bob.get(&rooms).await.ok()["chunk"], json!([]));
    let summary = server.client().get(&format!("{V1}/room_summary/{room}")).await.ok();
    assert_eq!((&summary["name"], summary.get("membership")), (&json!("Café"), None));
    let summary = alice.get(&format!("{V1}/room_summary/{room}")).await.ok();
    assert_eq!(summary["membership"], "join");
    let hidden = create(&alice, json!({})).await;
    let hidden = bob.get(&format!("{V1}/room_summary/{hidden}")).await;
    hidden.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn settings_for_a_room_follow_to_the_room_that_replaces_it() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = create(&alice, json!({"preset": "public_chat", "room_version": "11"})).await;
    bob.post(&format!("{V3}/rooms/{old}/join"), json!({})).await.ok();
    let user = format!("{V3}/user/{}", bob.user());
    let tag = format!("{user}/rooms/{old}/tags/m.favourite");
    bob.put(&tag, json!({"order": 0.5})).await.ok();
    let direct = json!({alice.user(): [old], "@other:x": ["!other:x"]});
    bob.put(&format!("{user}/account_data/m.direct"), direct).await.ok();
    let rule = format!("{V3}/pushrules/global/room/{old}");
    bob.put(&rule, json!({"actions": ["dont_notify"]})).await.ok();
    let upgrade = format!("{V3}/rooms/{old}/upgrade");
    bob.post(&upgrade, json!({"new_version": "12"})).await.refused(403, "M_FORBIDDEN");
    let unknown = alice.post(&upgrade, json!({"new_version": "13"})).await;
    unknown.refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    let replaced = alice.post(&upgrade, json!({"new_version": "12"})).await.ok();
    let new = replaced["replacement_room"].as_str().unwrap();
    assert_eq!(state(&alice, &old, "m.room.tombstone").await["replacement_room"], new);
    bob.post(&format!("{V3}/rooms/{new}/join"), json!({})).await.ok();
    let tags = bob.get(&format!("{user}/rooms/{new}/tags")).await.ok();
    assert_eq!(tags["tags"]["m.favourite"]["order"], 0.5);
    let direct = bob.get(&format!("{user}/account_data/m.direct")).await.ok();
    assert_eq!(direct, json!({alice.user(): [old, new], "@other:x": ["!other:x"]}));
    bob.get(&format!("{V3}/pushrules/global/room/{new}")).await.ok();
    alice.get(&format!("{V3}/pushrules/global/room/{new}")).await.refused(404, "M_NOT_FOUND");
    // Who left and comes again has settings of their own.
    bob.delete(&format!("{user}/rooms/{new}/tags/m.favourite"), json!({})).await.ok();
    bob.post(&format!("{V3}/rooms/{new}/leave"), json!({})).await.ok();
    bob.post(&format!("{V3}/rooms/{new}/join"), json!({})).await.ok();
    assert_eq!(bob.get(&format!("{user}/rooms/{new}/tags")).await.ok()["tags"], json!({}));
}

#[tokio::test]
async fn a_space_is_walked_and_content_is_reported() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let space = json!({"preset": "public_chat", "creation_content": {"type": "m.space"}});
    let space = create(&alice, space).await;
    let room = create(&alice, json!({"preset": "public_chat"})).await;
    let child = format!("{V3}/rooms/{space}/state/m.space.child/{room}");
    let child = alice.put(&child, json!({"via": ["x"]})).await.ok();
    let hierarchy = format!("{V1}/rooms/{space}/hierarchy");
    let page = bob.get(&format!("{hierarchy}?limit=1")).await.ok();
    assert_eq!(page["rooms"][0]["room_id"], space.as_str());
    assert_eq!(page["rooms"][0]["children_state"][0]["state_key"], room.as_str());
    let from = page["next_batch"].as_str().unwrap();
    let page = bob.get(&format!("{hierarchy}?limit=1&from={from}")).await.ok();
    assert_eq!(page["rooms"][0]["room_id"], room.as_str());
    assert_eq!(page.get("next_batch"), None);
    bob.get(&format!("{hierarchy}?from=x")).await.refused(400, "M_INVALID_PARAM");
    let event = child["event_id"].as_str().unwrap();
    let report = format!("{V3}/rooms/{space}/report");
    bob.post(&format!("{report}/{event}"), json!({})).await.refused(404, "M_NOT_FOUND");
    alice.post(&format!("{report}/{event}"), json!({"reason": "spam"})).await.ok();
    bob.post(&report, json!({"reason": "spam"})).await.ok();
    let users = format!("{V3}/users");
    bob.post(&format!("{users}/{}/report", alice.user()), json!({"reason": "x"})).await.ok();
    let nobody = format!("{users}/@nobody:{}/report", alice.user().server_name());
    bob.post(&nobody, json!({"reason": "x"})).await.refused(404, "M_NOT_FOUND");
}
