//! Searching messages and people, as clients do.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use millrace_domain::rooms::{CacheSizes, Rooms};
use millrace_search::{Search, index::Place};
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Client, TestClock, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

struct World {
    server: TestServer,
    alice: Client,
    bob: Client,
}

impl World {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        Self { server, alice, bob }
    }

    /// A room of alice's that anybody may join.
    async fn room(&self, options: Value) -> String {
        let mut body = json!({"preset": "public_chat"});
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        text(&self.alice.post(&format!("{V3}/createRoom"), body).await.ok()["room_id"])
    }
}

async fn join(client: &Client, room: &str) {
    client.post(&format!("{V3}/rooms/{room}/join"), json!({})).await.ok();
}

async fn send(client: &Client, room: &str, content: Value) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SENT: AtomicU64 = AtomicU64::new(0);
    let n = SENT.fetch_add(1, Ordering::Relaxed);
    let path = format!("{V3}/rooms/{room}/send/m.room.message/t{n}");
    text(&client.put(&path, content).await.ok()["event_id"])
}

async fn say(client: &Client, room: &str, body: &str) -> String {
    send(client, room, json!({"msgtype": "m.text", "body": body})).await
}

async fn set(client: &Client, room: &str, kind: &str, content: Value) {
    client.put(&format!("{V3}/rooms/{room}/state/{kind}/"), content).await.ok();
}

async fn redact(client: &Client, room: &str, event: &str) {
    client.put(&format!("{V3}/rooms/{room}/redact/{event}/r{event}"), json!({})).await.ok();
}

async fn edit(client: &Client, room: &str, event: &str, body: &str) -> String {
    let content = json!({
        "msgtype": "m.text",
        "body": format!("* {body}"),
        "m.new_content": {"msgtype": "m.text", "body": body},
        "m.relates_to": {"rel_type": "m.replace", "event_id": event},
    });
    send(client, room, content).await
}

/// The whole category of a search's answer.
async fn search(client: &Client, term: &str, criteria: Value) -> Value {
    let mut body = json!({"search_term": term});
    body.as_object_mut().unwrap().extend(criteria.as_object().unwrap().clone());
    let token = body.as_object_mut().unwrap().remove("next_batch");
    let query = token.map_or(String::new(), |token| format!("?next_batch={}", text(&token)));
    let body = json!({"search_categories": {"room_events": body}});
    let answer = client.post(&format!("{V3}/search{query}"), body).await.ok();
    answer["search_categories"]["room_events"].clone()
}

/// IDs of the results of a page.
fn ids(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().expect("results are always there");
    results.iter().map(|result| text(&result["result"]["event_id"])).collect()
}

async fn found(client: &Client, term: &str) -> Vec<String> {
    ids(&search(client, term, json!({"order_by": "recent"})).await)
}

#[tokio::test]
async fn what_was_just_said_is_found_with_its_rank_and_what_to_highlight() {
    let world = World::new().await;
    let room = world.room(json!({})).await;
    let event = say(&world.alice, &room, "Two Messages about Crème brûlée").await;
    let answer = search(&world.alice, "message creme", json!({})).await;
    assert_eq!(ids(&answer), [event]);
    assert_eq!(answer["count"], 1);
    assert_eq!(answer["highlights"], json!(["Crème", "Messages"]));
    let result = &answer["results"][0];
    assert!(result["rank"].as_f64().unwrap() > 0.0);
    assert_eq!(result["result"]["room_id"], room.as_str());
    assert_eq!(result["result"]["content"]["body"], "Two Messages about Crème brûlée");
    assert!(result.get("context").is_none(), "it was not asked for");
    assert!(answer.get("next_batch").is_none());
    assert!(found(&world.bob, "message").await.is_empty(), "bob was never there");
    for (text, term) in [
        ("我们明天去北京开会", "北京"),
        ("明日は東京で会いましょう", "会いましょう"),
        ("내일 서버를 업데이트합니다", "서버"),
        ("พรุ่งนี้เราจะไปกรุงเทพ", "กรุงเทพ"),
    ] {
        let event = say(&world.alice, &room, text).await;
        assert_eq!(found(&world.alice, term).await, [event], "{term}");
    }
}

#[tokio::test]
async fn only_what_the_searcher_may_see_is_found_and_counted() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let shared = world.room(json!({})).await;
    let state = json!([{"type": "m.room.history_visibility", "state_key": "",
        "content": {"history_visibility": "joined"}}]);
    let joined = world.room(json!({"initial_state": state})).await;
    let early = say(alice, &shared, "secret early").await;
    say(alice, &joined, "secret early").await;
    join(bob, &shared).await;
    join(bob, &joined).await;
    let mut seen = vec![early];
    for room in [&shared, &joined] {
        seen.push(say(alice, room, "secret later").await);
    }
    let answer = search(bob, "secret", json!({})).await;
    let mut shown = ids(&answer);
    shown.sort();
    seen.sort();
    assert_eq!(shown, seen);
    assert_eq!(answer["count"], 3, "what bob may not see is not counted");
    bob.post(&format!("{V3}/rooms/{shared}/leave"), json!({})).await.ok();
    say(alice, &shared, "secret after").await;
    assert_eq!(found(bob, "secret").await.len(), 3);
    assert!(found(bob, "after").await.is_empty(), "it was said after bob left");
    bob.post(&format!("{V3}/rooms/{shared}/forget"), json!({})).await.ok();
    assert_eq!(found(bob, "secret").await.len(), 1, "the forgotten room is not searched");
    let ignore = json!({"ignored_users": {alice.user().as_str(): {}}});
    let path = format!("{V3}/user/{}/account_data/m.ignored_user_list", bob.user());
    bob.put(&path, ignore).await.ok();
    assert!(found(bob, "secret").await.is_empty(), "bob ignores alice");
}

#[tokio::test]
async fn redacted_events_are_forgotten_and_encrypted_rooms_are_not_searched() {
    let world = World::new().await;
    let alice = &world.alice;
    let room = world.room(json!({})).await;
    let gone = say(alice, &room, "word that goes").await;
    let kept = say(alice, &room, "word that stays").await;
    assert_eq!(found(alice, "word").await.len(), 2);
    redact(alice, &room, &gone).await;
    for order in ["rank", "recent"] {
        let answer = search(alice, "word", json!({"order_by": order})).await;
        assert_eq!((ids(&answer), &answer["count"]), (vec![kept.clone()], &json!(1)), "{order}");
    }
    assert!(found(alice, "goes").await.is_empty());
    set(alice, &room, "m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})).await;
    assert!(found(alice, "word").await.is_empty());
    say(alice, &room, "word in the open").await;
    assert!(found(alice, "word").await.is_empty());
}

#[tokio::test]
async fn an_edited_event_is_found_by_what_it_says_now_to_whoever_searches() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let room = world.room(json!({})).await;
    join(bob, &room).await;
    let event = say(alice, &room, "first wording").await;
    bob.post(&format!("{V3}/rooms/{room}/leave"), json!({})).await.ok();
    let second = edit(alice, &room, &event, "second wording").await;
    let answer = search(alice, "second", json!({})).await;
    assert_eq!(ids(&answer), std::slice::from_ref(&event), "the event itself, with the edit");
    let bundled = &answer["results"][0]["result"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(bundled["event_id"], second.as_str());
    assert_eq!(answer["highlights"], json!(["second"]));
    assert!(found(alice, "first").await.is_empty());
    assert_eq!(found(alice, "wording").await, std::slice::from_ref(&event), "once");
    assert_eq!(found(bob, "first").await, std::slice::from_ref(&event), "bob saw no edit");
    assert!(found(bob, "second").await.is_empty());
    redact(alice, &room, &second).await;
    assert_eq!(found(alice, "first").await, std::slice::from_ref(&event), "the edit was undone");
    assert!(found(alice, "second").await.is_empty());
    join(bob, &room).await;
    edit(bob, &room, &event, "forged wording").await;
    assert!(found(alice, "forged").await.is_empty(), "only its sender may edit it");
}

#[tokio::test]
async fn keys_and_filters_choose_what_is_searched() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let one = world.room(json!({"name": "Kitchen word", "topic": "word of cooking"})).await;
    let two = world.room(json!({})).await;
    join(bob, &two).await;
    let by_alice = say(alice, &one, "word by alice").await;
    let by_bob = say(bob, &two, "word by bob").await;
    let count = async |criteria: Value| ids(&search(alice, "word", criteria).await).len();
    assert_eq!(count(json!({})).await, 4);
    assert_eq!(count(json!({"keys": ["content.name"]})).await, 1);
    assert_eq!(count(json!({"keys": ["content.name", "content.topic"]})).await, 2);
    let only = async |filter: Value| {
        ids(&search(alice, "word", json!({"keys": ["content.body"], "filter": filter})).await)
    };
    let (a, b) = (vec![by_alice], vec![by_bob]);
    assert_eq!(only(json!({"rooms": [one]})).await, a);
    assert_eq!(only(json!({"not_rooms": [one]})).await, b);
    assert_eq!(only(json!({"senders": [bob.user()]})).await, b);
    assert_eq!(only(json!({"not_senders": [bob.user()]})).await, a);
    assert!(only(json!({"types": ["m.room.name"]})).await.is_empty());
    assert!(only(json!({"rooms": ["!unknown:test"]})).await.is_empty());
    assert!(only(json!({"contains_url": true})).await.is_empty());
    assert_eq!(only(json!({"types": ["m.room.*"], "limit": 1})).await.len(), 1);
}

#[tokio::test]
async fn results_come_with_their_context_profiles_and_state() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let name = json!({"displayname": "Bob the Builder"});
    bob.put(&format!("{V3}/profile/{}/displayname", bob.user()), name).await.ok();
    let room = world.room(json!({"name": "Workshop"})).await;
    join(bob, &room).await;
    let mut said = Vec::new();
    for n in 0..9 {
        let who = if n == 5 { bob } else { alice };
        said.push(say(who, &room, &format!("number n{n}")).await);
    }
    let context = json!({"before_limit": 2, "after_limit": 1, "include_profile": true});
    let criteria = json!({"event_context": context, "include_state": true});
    let answer = search(alice, "n4", criteria).await;
    assert_eq!(ids(&answer), [said[4].clone()]);
    let context = &answer["results"][0]["context"];
    let around = |key: &str| -> Vec<String> {
        let events = context[key].as_array().unwrap();
        events.iter().map(|event| text(&event["event_id"])).collect()
    };
    assert_eq!(around("events_before"), [said[3].clone(), said[2].clone()]);
    assert_eq!(around("events_after"), [said[5].clone()]);
    let profiles = &context["profile_info"];
    assert_eq!(profiles[bob.user().as_str()]["displayname"], "Bob the Builder");
    assert_eq!(profiles.as_object().unwrap().len(), 2);
    let start = text(&context["start"]);
    let path = format!("{V3}/rooms/{room}/messages?dir=b&limit=1&from={start}");
    let older = alice.get(&path).await.ok();
    assert_eq!(older["chunk"][0]["event_id"], said[1].as_str(), "paging goes on from there");
    let state = answer["state"][&room].as_array().unwrap();
    let has = |kind: &str| state.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((has("m.room.name"), has("m.room.member")), (1, 2));
    let defaults = search(alice, "n4", json!({"event_context": {}})).await;
    let context = &defaults["results"][0]["context"];
    assert_eq!(context["events_before"].as_array().unwrap().len(), 5);
    assert_eq!(context["events_after"].as_array().unwrap().len(), 4);
    assert!(context.get("profile_info").is_none());
}

/// All pages of a search, following `next_batch` of what `part` takes out of an answer.
async fn pages(
    client: &Client,
    criteria: &Value,
    begin: Option<Value>,
) -> (Vec<String>, Vec<Value>) {
    let (mut all, mut counts, mut token) = (Vec::new(), Vec::new(), begin);
    for _ in 0..20 {
        let mut criteria = criteria.clone();
        if let Some(token) = &token {
            criteria["next_batch"] = token.clone();
        }
        let answer = search(client, "word", criteria).await;
        all.extend(ids(&answer));
        counts.push(answer["count"].clone());
        match answer.get("next_batch") {
            Some(next) => token = Some(next.clone()),
            None => return (all, counts),
        }
    }
    panic!("it never ends");
}

#[tokio::test]
async fn pages_follow_each_other_and_so_do_those_of_groups() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let rooms = [world.room(json!({})).await, world.room(json!({})).await];
    for room in &rooms {
        join(bob, room).await;
    }
    let mut said = Vec::new();
    for n in 0..14 {
        world.server.clock.advance(std::time::Duration::from_secs(1));
        let who = if n % 3 == 0 { bob } else { alice };
        said.push(say(who, &rooms[n % 2], &format!("word {n}")).await);
    }
    said.reverse();
    for order in ["recent", "rank"] {
        let criteria = json!({"order_by": order, "filter": {"limit": 4}});
        let (mut all, counts) = pages(alice, &criteria, None).await;
        assert!(counts.iter().all(|count| *count == 14), "{counts:?}");
        if order == "rank" {
            all.sort();
            said.sort();
        }
        assert_eq!(all, said, "{order}");
        let group_by = json!([{"key": "room_id"}, {"key": "sender"}]);
        let criteria = json!({
            "order_by": order, "filter": {"limit": 4}, "groupings": {"group_by": group_by},
        });
        let first = search(alice, "word", criteria.clone()).await;
        let groups = &first["groups"];
        for (key, value) in [("room_id", rooms[0].as_str()), ("sender", bob.user().as_str())] {
            let group = &groups[key][value];
            assert!(group["order"].as_u64().unwrap() >= 1);
            let shown = group["results"].as_array().unwrap();
            let mut all: Vec<String> = shown.iter().map(text).collect();
            all.extend(pages(alice, &criteria, Some(group["next_batch"].clone())).await.0);
            let count = all.len();
            all.sort();
            all.dedup();
            let wanted = if key == "room_id" { 7 } else { 5 };
            assert_eq!((all.len(), count), (wanted, wanted), "{order} {key}");
        }
    }
}

#[tokio::test]
async fn a_search_in_a_room_goes_on_in_the_room_that_it_took_the_place_of() {
    let world = World::new().await;
    let old = world.room(json!({"room_version": "10"})).await;
    let before = say(&world.alice, &old, "word before").await;
    let upgrade = format!("{V3}/rooms/{old}/upgrade");
    let answer = world.alice.post(&upgrade, json!({"new_version": "11"})).await.ok();
    let new = text(&answer["replacement_room"]);
    let after = say(&world.alice, &new, "word after").await;
    let criteria = json!({"order_by": "recent", "filter": {"rooms": [new]}});
    let mut all = ids(&search(&world.alice, "word", criteria).await);
    all.sort();
    let mut both = vec![before, after];
    both.sort();
    assert_eq!(all, both);
}

#[tokio::test]
async fn searches_that_cannot_be_answered_are_refused() {
    let world = World::new().await;
    let alice = &world.alice;
    let refused = async |query: &str, criteria: Value, errcode: &str| {
        let body = json!({"search_categories": {"room_events": criteria}});
        alice.post(&format!("{V3}/search{query}"), body).await.refused(400, errcode);
    };
    let invalid = "M_INVALID_PARAM";
    refused("", json!({"search_term": "a".repeat(2000)}), invalid).await;
    refused("", json!({"search_term": "a ".repeat(100)}), invalid).await;
    refused("?next_batch=nonsense", json!({"search_term": "a"}), invalid).await;
    refused("?next_batch=s1_k99999999999_1", json!({"search_term": "a"}), invalid).await;
    refused("?next_batch=s1_b1_1", json!({"search_term": "a"}), invalid).await;
    refused("", json!({"search_term": "a", "order_by": "luck"}), invalid).await;
    refused("", json!({"search_term": "a", "keys": ["content.x"]}), invalid).await;
    let group = json!({"group_by": [{"key": "type"}]});
    refused("", json!({"search_term": "a", "groupings": group}), invalid).await;
    refused("", json!({}), "M_BAD_JSON").await;
    let nobody = world.server.client();
    let body = json!({"search_categories": {"room_events": {"search_term": "a"}}});
    nobody.post(&format!("{V3}/search"), body).await.refused(401, "M_MISSING_TOKEN");
    let nothing = search(alice, "…", json!({})).await;
    assert_eq!((&nothing["results"], &nothing["count"]), (&json!([]), &json!(0)));
    let empty = alice.post(&format!("{V3}/search"), json!({"search_categories": {}})).await.ok();
    assert_eq!(empty, json!({"search_categories": {}}));
    let long = json!({"search_term": "a".repeat(2000)});
    alice.post(&format!("{V3}/user_directory/search"), long).await.refused(400, invalid);
}

#[tokio::test]
async fn an_index_that_is_missing_is_made_from_the_store_and_one_that_is_there_goes_on() {
    let (engine, clock) = (Arc::new(MemoryEngine::new()), TestClock::default());
    let config = TestServer::config();
    let server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
    let alice = server.register("alice").await;
    let room = alice.post(&format!("{V3}/createRoom"), json!({"name": "word"})).await.ok();
    let room = text(&room["room_id"]);
    let gone = say(&alice, &room, "word gone").await;
    let kept = say(&alice, &room, "word kept").await;
    redact(&alice, &room, &gone).await;
    server.stop().await;
    let server = TestServer::start_on(engine, &config, clock).await;
    let alice = alice.on(&server);
    let criteria = json!({"keys": ["content.body"]});
    assert_eq!(ids(&search(&alice, "word", criteria).await), [kept]);

    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let rooms = Rooms::open(server.env.clone(), CacheSizes::default()).await.unwrap();
        Search::open(rooms, Place::Folder(folder.path().to_owned())).await.unwrap()
    };
    let index = open().await;
    index.follow().await.unwrap();
    let (before, entries) = (index.index().progress(), index.index().len());
    assert_eq!(before.followed, server.env.store.snapshot().view().seq(0));
    drop(index);
    say(&alice, &room, "word new").await;
    let index = open().await;
    assert_eq!(index.index().progress(), before, "it goes on from there");
    index.follow().await.unwrap();
    assert_eq!(index.index().len(), entries + 1);
}

async fn people(client: &Client, term: &str) -> Vec<String> {
    let body = json!({"search_term": term});
    let answer = client.post(&format!("{V3}/user_directory/search"), body).await.ok();
    let found = answer["results"].as_array().unwrap();
    found.iter().map(|found| text(&found["user_id"])).collect()
}

#[tokio::test]
async fn people_are_found_where_the_searcher_may_know_them_by_the_names_they_have_now() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice, &world.bob);
    let carol = world.server.register("carol").await;
    let profile = format!("{V3}/profile/{}/displayname", bob.user());
    let call = async |name: &str| bob.put(&profile, json!({"displayname": name})).await.ok();
    call("Robert Größer").await;
    let private = world.room(json!({"preset": "private_chat", "invite": [bob.user()]})).await;
    assert!(people(alice, "robert").await.is_empty(), "bob is only invited");
    join(bob, &private).await;
    let is_bob = vec![bob.user().to_string()];
    assert_eq!(people(alice, "robert").await, is_bob);
    assert_eq!(people(alice, "grosser").await, is_bob);
    assert_eq!(people(alice, "@bob:te").await, is_bob);
    assert!(people(bob, "robert").await.is_empty(), "nobody shares a room with themselves");
    assert!(people(&carol, "robert").await.is_empty(), "carol shares no room");
    let nick = format!("{V3}/rooms/{private}/state/m.room.member/{}", bob.user());
    bob.put(&nick, json!({"membership": "join", "displayname": "Freddy"})).await.ok();
    assert!(people(alice, "freddy").await.is_empty(), "that is a name in one room");
    call("王小明").await;
    assert!(people(alice, "robert").await.is_empty());
    assert_eq!(people(alice, "小明").await, is_bob);
    set(
        alice,
        &private,
        "m.room.history_visibility",
        json!({"history_visibility": "world_readable"}),
    )
    .await;
    assert_eq!(people(&carol, "小明").await, is_bob, "everybody may look into the room");
    set(alice, &private, "m.room.history_visibility", json!({"history_visibility": "shared"}))
        .await;
    assert!(people(&carol, "小明").await.is_empty());
    set(alice, &private, "m.room.join_rules", json!({"join_rule": "public"})).await;
    assert_eq!(people(&carol, "小明").await, is_bob);
    assert_eq!(people(bob, "小明").await, is_bob, "who is in a public room finds themselves too");
    bob.post(&format!("{V3}/rooms/{private}/leave"), json!({})).await.ok();
    assert!(people(alice, "小明").await.is_empty());
}
