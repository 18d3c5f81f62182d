//! Reading a room as clients do: pages, context, relations, threads, members.

use std::time::Duration;

use millrace_test_support::{Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const V1: &str = "/_matrix/client/v1";

/// A room of alice's in which bob is joined.
struct Room {
    server: TestServer,
    alice: Client,
    bob: Client,
    id: String,
    sent: std::cell::Cell<u32>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn ids(list: &Value) -> Vec<String> {
    let events = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    events.iter().map(|event| text(&event["event_id"])).collect()
}

impl Room {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let body = json!({"preset": "public_chat"});
        let room = alice.post(&format!("{V3}/createRoom"), body).await.ok();
        let id = text(&room["room_id"]);
        bob.post(&format!("{V3}/rooms/{id}/join"), json!({})).await.ok();
        Self { server, alice, bob, id, sent: Default::default() }
    }

    async fn send(&self, sender: &Client, content: Value) -> String {
        self.sent.set(self.sent.get() + 1);
        let number = self.sent.get();
        let path = format!("{V3}/rooms/{}/send/m.room.message/{number}", self.id);
        text(&sender.put(&path, content).await.ok()["event_id"])
    }

    async fn say(&self, sender: &Client, body: &str) -> String {
        self.send(sender, json!({"msgtype": "m.text", "body": body})).await
    }

    async fn relate(&self, sender: &Client, to: &str, rel_type: &str) -> String {
        let relates_to = json!({"rel_type": rel_type, "event_id": to, "key": "k"});
        let new = json!({"msgtype": "m.text", "body": "new"});
        let content = json!({"msgtype": "m.text", "body": rel_type, "m.relates_to": relates_to,
            "m.new_content": new});
        self.send(sender, content).await
    }

    async fn get(&self, path: &str) -> Value {
        self.alice.get(&format!("{V3}/rooms/{}/{path}", self.id)).await.ok()
    }

    async fn get_v1(&self, path: &str) -> Value {
        self.alice.get(&format!("{V1}/rooms/{}/{path}", self.id)).await.ok()
    }
}

#[tokio::test]
async fn pages_follow_each_other_to_both_ends_without_gap_or_repetition() {
    let room = Room::new().await;
    for n in 0..23 {
        room.say(&room.alice, &format!("message {n}")).await;
    }
    let whole = room.get("messages?dir=f&limit=1000").await;
    assert_eq!(whole.get("end"), None, "the whole room is one page");
    let mut whole = ids(&whole["chunk"]);
    assert!(whole.len() > 23);
    for direction in ["f", "b"] {
        let (mut found, mut from) = (Vec::new(), String::new());
        for page in 0.. {
            assert!(page < 10, "the pages end");
            let page = room.get(&format!("messages?dir={direction}&limit=7&from={from}")).await;
            found.extend(ids(&page["chunk"]));
            match page.get("end") {
                Some(end) => from = text(end),
                None => break,
            }
        }
        assert_eq!(found, whole, "{direction}");
        whole.reverse();
    }
}

#[tokio::test]
async fn a_page_stops_at_the_point_given() {
    let room = Room::new().await;
    let first = room.say(&room.alice, "first").await;
    let start = text(&room.get("messages?dir=b&limit=1").await["start"]);
    let second = room.say(&room.alice, "second").await;
    let page = room.get(&format!("messages?dir=b&to={start}")).await;
    assert_eq!(ids(&page["chunk"]), std::slice::from_ref(&second));
    let page = room.get(&format!("messages?dir=f&from={start}")).await;
    assert_eq!(ids(&page["chunk"]), [second]);
    let page = room.get(&format!("messages?dir=b&limit=1&from={start}")).await;
    assert_eq!(ids(&page["chunk"]), [first]);
    let path = format!("{V3}/rooms/{}/messages?dir=b&from=nonsense", room.id);
    room.alice.get(&path).await.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_filter_is_searched_until_the_page_is_full() {
    let room = Room::new().await;
    let wanted = room.say(&room.bob, "of bob").await;
    for n in 0..30 {
        room.say(&room.alice, &format!("of alice {n}")).await;
    }
    let filter = "%7B%22senders%22%3A%5B%22%40bob%3Atest%22%5D%7D";
    let page = room.get(&format!("messages?dir=b&limit=1&filter={filter}")).await;
    assert_eq!(ids(&page["chunk"]), [wanted]);
    let end = text(&page["end"]);
    let page = room.get(&format!("messages?dir=b&from={end}&filter={filter}")).await;
    assert_eq!(page["chunk"][0]["type"], "m.room.member", "bob's joining");
    let end = text(&page["end"]);
    let page = room.get(&format!("messages?dir=b&from={end}&filter={filter}")).await;
    assert!(ids(&page["chunk"]).is_empty(), "only what others did comes before");
    assert_eq!(page.get("end"), None);
}

#[tokio::test]
async fn lazy_loading_gives_the_members_who_spoke() {
    let room = Room::new().await;
    room.say(&room.alice, "x").await;
    let event = room.say(&room.bob, "y").await;
    let filter = "%7B%22lazy_load_members%22%3Atrue%7D";
    let page = room.get(&format!("messages?dir=b&limit=1&filter={filter}")).await;
    let state = page["state"].as_array().unwrap();
    assert_eq!(state.len(), 1);
    assert_eq!(state[0]["state_key"], "@bob:test");
    assert_eq!(room.get("messages?dir=b&limit=1").await.get("state"), None);
    let context = room.get(&format!("context/{event}?limit=0&filter={filter}")).await;
    let state = context["state"].as_array().unwrap().iter();
    let members: Vec<_> = state.filter(|event| event["type"] == "m.room.member").collect();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0]["state_key"], "@bob:test");
}

#[tokio::test]
async fn a_context_lies_on_both_sides_of_its_event_and_leads_on() {
    let room = Room::new().await;
    let mut sent = Vec::new();
    for n in 0..9 {
        sent.push(room.say(&room.alice, &format!("message {n}")).await);
    }
    let context = room.get(&format!("context/{}?limit=4", sent[4])).await;
    assert_eq!(context["event"]["event_id"], sent[4].as_str());
    assert_eq!(ids(&context["events_before"]), [sent[3].clone(), sent[2].clone()]);
    assert_eq!(ids(&context["events_after"]), sent[5..7]);
    let (start, end) = (text(&context["start"]), text(&context["end"]));
    let page = room.get(&format!("messages?dir=b&limit=1&from={start}")).await;
    assert_eq!(ids(&page["chunk"]), sent[1..2]);
    let page = room.get(&format!("messages?dir=f&limit=1&from={end}")).await;
    assert_eq!(ids(&page["chunk"]), sent[7..8]);
    let members = context["state"].as_array().unwrap().iter();
    assert_eq!(members.filter(|event| event["type"] == "m.room.member").count(), 2);
    let last = room.get(&format!("context/{}?limit=1", sent[8])).await;
    assert_eq!(last["events_after"], json!([]), "clients expect the list");
}

#[tokio::test]
async fn relations_are_filtered_and_paged_in_both_directions() {
    let room = Room::new().await;
    let root = room.say(&room.alice, "root").await;
    let mut threaded = Vec::new();
    for _ in 0..5 {
        threaded.push(room.relate(&room.alice, &root, "m.thread").await);
    }
    let edit = room.relate(&room.alice, &root, "m.replace").await;
    let deep = room.relate(&room.bob, &threaded[0], "m.annotation").await;
    let all = room.get_v1(&format!("relations/{root}")).await;
    let mut newest_first = vec![edit.clone()];
    newest_first.extend(threaded.iter().rev().cloned());
    assert_eq!(ids(&all["chunk"]), newest_first);
    assert_eq!((all.get("next_batch"), all.get("prev_batch")), (None, None));
    let replaced = room.get_v1(&format!("relations/{root}/m.replace")).await;
    assert_eq!(ids(&replaced["chunk"]), [edit]);
    let typed = room.get_v1(&format!("relations/{root}/m.thread/m.sticker")).await;
    assert_eq!(typed["chunk"], json!([]));
    for direction in ["f", "b"] {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let path = format!("relations/{root}/m.thread?dir={direction}&limit=2&from={from}");
            let page = room.get_v1(&path).await;
            found.extend(ids(&page["chunk"]));
            match page.get("next_batch") {
                Some(next) => from = text(next),
                None => break,
            }
        }
        assert_eq!(found, threaded, "{direction}");
        threaded.reverse();
    }
    let recursive = room.get_v1(&format!("relations/{root}?recurse=true")).await;
    assert_eq!(ids(&recursive["chunk"])[0], deep);
    assert!(recursive["recursion_depth"].as_u64().unwrap() >= 2);
    let annotations = room.get_v1(&format!("relations/{root}/m.annotation?recurse=true")).await;
    assert_eq!(ids(&annotations["chunk"]), [deep]);
    let unknown = format!("{V1}/rooms/{}/relations/$unknown", room.id);
    room.alice.get(&unknown).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_redacted_event_relates_to_nothing() {
    let room = Room::new().await;
    let root = room.say(&room.alice, "root").await;
    let gone = room.relate(&room.alice, &root, "m.reference").await;
    let path = format!("{V3}/rooms/{}/redact/{gone}/1", room.id);
    room.alice.put(&path, json!({})).await.ok();
    assert_eq!(room.get_v1(&format!("relations/{root}")).await["chunk"], json!([]));
    let event = room.get(&format!("event/{root}")).await;
    assert_eq!(event["unsigned"].get("m.relations"), None);
}

#[tokio::test]
async fn pages_mix_kinds_of_relations_in_order_of_the_timeline() {
    let room = Room::new().await;
    let root = room.say(&room.alice, "root").await;
    let mut sent = Vec::new();
    for n in 0..13 {
        let kind = ["m.thread", "m.thread", "m.reference", "org.example"][n % 4];
        sent.push(room.relate(&room.alice, &root, kind).await);
    }
    for (direction, limit) in [("f", 1), ("b", 1), ("f", 5), ("b", 5), ("f", 13), ("b", 13)] {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let path = format!("relations/{root}?dir={direction}&limit={limit}&from={from}");
            let page = room.get_v1(&path).await;
            found.extend(ids(&page["chunk"]));
            match page.get("next_batch") {
                Some(next) => from = text(next),
                None => break,
            }
        }
        assert_eq!(found, sent, "{direction} {limit}");
        sent.reverse();
    }
}

#[tokio::test]
async fn a_thread_loses_what_is_redacted_and_ends_with_its_last_event() {
    let room = Room::new().await;
    let root = room.say(&room.alice, "root").await;
    let mut threaded = Vec::new();
    for sender in [&room.alice, &room.bob, &room.bob] {
        threaded.push(room.relate(sender, &root, "m.thread").await);
    }
    let thread = async || {
        let event = room.bob.get(&format!("{V3}/rooms/{}/event/{root}", room.id)).await.ok();
        event["unsigned"]["m.relations"]["m.thread"].clone()
    };
    let redact = async |sender: &Client, event: &str| {
        let path = format!("{V3}/rooms/{}/redact/{event}/{event}", room.id);
        sender.put(&path, json!({})).await.ok();
    };
    for (left, participated) in [(3, true), (2, true), (1, false)] {
        let found = thread().await;
        assert_eq!(found["count"], left);
        assert_eq!(found["current_user_participated"], participated);
        assert_eq!(found["latest_event"]["event_id"], threaded[left - 1].as_str());
        redact(&room.alice, &threaded[left - 1]).await;
    }
    assert_eq!(thread().await, Value::Null);
    assert_eq!(room.get_v1("threads").await["chunk"], json!([]));
    let late = room.relate(&room.bob, &root, "m.thread").await;
    assert_eq!(thread().await["latest_event"]["event_id"], late.as_str());
}

#[tokio::test]
async fn threads_come_by_their_newest_event_and_page_by_page() {
    let room = Room::new().await;
    let mut roots = Vec::new();
    for _ in 0..5 {
        roots.push(room.say(&room.bob, "root").await);
    }
    for root in &roots {
        room.relate(&room.bob, root, "m.thread").await;
    }
    let newest = room.relate(&room.alice, &roots[1], "m.thread").await;
    let order = [1, 4, 3, 2, 0].map(|n| roots[n].clone());
    let all = room.get_v1("threads").await;
    assert_eq!(ids(&all["chunk"]), order);
    let thread = &all["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(thread["latest_event"]["event_id"], newest.as_str());
    assert_eq!(thread["count"], 2);
    assert_eq!(thread["current_user_participated"], true);
    let own = room.get_v1("threads?include=participated").await;
    assert_eq!(ids(&own["chunk"]), [roots[1].clone()]);
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = room.get_v1(&format!("threads?limit=2&from={from}")).await;
        found.extend(ids(&page["chunk"]));
        match page.get("next_batch") {
            Some(next) => from = text(next),
            None => break,
        }
    }
    assert_eq!(found, order);
}

#[tokio::test]
async fn members_are_listed_by_membership_and_at_earlier_points() {
    let room = Room::new().await;
    let before = text(&room.get("messages?dir=b&limit=1").await["start"]);
    room.bob.post(&format!("{V3}/rooms/{}/leave", room.id), json!({})).await.ok();
    let members = async |query: &str| {
        let list = room.get(&format!("members?{query}")).await;
        let chunk = list["chunk"].as_array().unwrap().clone();
        let mut keys: Vec<_> = chunk.iter().map(|event| text(&event["state_key"])).collect();
        keys.sort_unstable();
        keys
    };
    let (alice, bob) = ("@alice:test", "@bob:test");
    assert_eq!(members("").await, [alice, bob]);
    assert_eq!(members("membership=join").await, [alice]);
    assert_eq!(members("membership=leave").await, [bob]);
    assert_eq!(members("not_membership=leave").await, [alice]);
    assert_eq!(members(&format!("at={before}&membership=join")).await, [alice, bob]);
    assert_eq!(members("at=t1&membership=join").await, [alice], "before the room began");
    let joined = room.get("joined_members").await;
    let profile = json!({"display_name": "alice", "avatar_url": null});
    assert_eq!(joined["joined"], json!({alice: profile}), "both fields, as clients expect");
    let rooms = room.bob.get(&format!("{V3}/joined_rooms")).await.ok();
    assert_eq!(rooms, json!({"joined_rooms": []}));
    let rooms = room.alice.get(&format!("{V3}/joined_rooms")).await.ok();
    assert_eq!(rooms, json!({"joined_rooms": [room.id]}));
}

#[tokio::test]
async fn the_closest_event_is_found_by_its_time() {
    let room = Room::new().await;
    let mut sent = Vec::new();
    for n in 0..5 {
        room.server.clock.advance(Duration::from_secs(10));
        sent.push(room.say(&room.alice, &format!("message {n}")).await);
    }
    let times = room.get("messages?dir=f&limit=100").await;
    let times = times["chunk"].as_array().unwrap().iter();
    let third = times.filter(|event| event["event_id"] == sent[2].as_str());
    let at = third.map(|event| event["origin_server_ts"].as_u64().unwrap()).next().unwrap();
    for (ts, direction, expected) in [
        (at, "f", &sent[2]),
        (at, "b", &sent[2]),
        (at + 1, "f", &sent[3]),
        (at + 1, "b", &sent[2]),
        (at - 1, "f", &sent[2]),
        (at - 1, "b", &sent[1]),
        (at + 1_000_000, "b", &sent[4]),
    ] {
        let found = room.get_v1(&format!("timestamp_to_event?ts={ts}&dir={direction}")).await;
        assert_eq!(found["event_id"], expected.as_str(), "{ts} {direction}");
    }
    for query in [format!("ts={}&dir=f", at + 1_000_000), "ts=0&dir=b".to_owned()] {
        let path = format!("{V1}/rooms/{}/timestamp_to_event?{query}", room.id);
        room.alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn only_the_sending_device_is_told_the_transaction_id() {
    let room = Room::new().await;
    let event = room.say(&room.alice, "mine").await;
    let unsigned = room.get(&format!("event/{event}")).await["unsigned"].clone();
    assert_eq!(unsigned["transaction_id"], "1");
    let path = format!("{V3}/rooms/{}/event/{event}", room.id);
    let seen = room.bob.get(&path).await.ok();
    assert_eq!(seen["unsigned"].get("transaction_id"), None);
    let body = json!({"type": "m.login.password", "password": "password",
        "identifier": {"type": "m.id.user", "user": "alice"}});
    let session = room.server.client().post(&format!("{V3}/login"), body).await.ok();
    let other = room.server.client().with_session(&session);
    let seen = other.get(&path).await.ok();
    assert_eq!(seen["unsigned"].get("transaction_id"), None, "another device of hers");
}
