//! Many clients at once, through restarts and lost responses: what each one puts together from its
//! incremental syncs equals the room. On each engine.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use millrace_store::engine::{Engine, MemoryEngine, RocksEngine, RocksOptions};
use millrace_test_support::{Client, TestClock, TestServer};
use serde_json::{Value, json};

const USERS: usize = 6;
const ROUNDS: usize = 3;
const ACTIONS: u64 = 40;
const MEMBER: &str = "m.room.member";

/// What one client has put together of one room.
#[derive(Debug, Default, Clone, PartialEq)]
struct RoomCopy {
    events: Vec<String>,
    state: BTreeMap<(String, String), String>,
    receipts: BTreeMap<String, String>,
}

/// A client that follows its rooms.
struct Receiver {
    client: Client,
    filter: String,
    /// Whether it loads members lazily.
    lazy: bool,
    /// Which responses it loses.
    choices: Choices,
    since: Option<String>,
    rooms: BTreeMap<String, RoomCopy>,
    marks: BTreeMap<String, u64>,
}

fn texts(events: &Value) -> Vec<Value> {
    events["events"].as_array().cloned().unwrap_or_default()
}

fn text(event: &Value, name: &str) -> String {
    event[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}")).to_owned()
}

fn id_of(event: &Value) -> String {
    text(event, "event_id")
}

fn place_of(event: &Value) -> (String, String) {
    (text(event, "type"), text(event, "state_key"))
}

impl Receiver {
    async fn sync(&mut self, timeout_ms: u64) {
        let mut path =
            format!("/_matrix/client/v3/sync?timeout={timeout_ms}&filter={}", self.filter);
        if let Some(since) = &self.since {
            path.push_str(&format!("&since={since}"));
        }
        if self.choices.below(4) == 0 {
            // Lost on its way: the client asks again with the token it has.
            self.client.get(&path).await.ok();
        }
        let answer = self.client.get(&path).await.ok();
        self.since = Some(answer["next_batch"].as_str().expect("a token").to_owned());
        for event in texts(&answer["account_data"]) {
            if event["type"] == "org.example.mark" {
                self.marks.insert("own".to_owned(), event["content"]["n"].as_u64().unwrap());
            }
        }
        let joined = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
        for (room, news) in joined {
            self.take(&room, &news).await;
        }
        for (room, _) in answer["rooms"]["leave"].as_object().cloned().unwrap_or_default() {
            self.rooms.remove(&room);
        }
    }

    async fn take(&mut self, room: &str, news: &Value) {
        let timeline = texts(&news["timeline"]);
        let mut copy = self.rooms.remove(room).unwrap_or_default();
        if news["timeline"]["limited"] == json!(true) {
            let known: BTreeSet<String> = copy.events.iter().cloned().collect();
            let prev = news["timeline"]["prev_batch"].as_str().expect("where to page back from");
            let gap = self.page_back(room, prev, &known).await;
            copy.events.extend(gap.iter().map(id_of));
        }
        let state = texts(&news["state"]);
        for event in state.iter().chain(&timeline).filter(|event| !event["state_key"].is_null()) {
            copy.state.insert(place_of(event), id_of(event));
        }
        for event in &timeline {
            let sender = text(event, "sender");
            let member = copy.state.get(&(MEMBER.to_owned(), sender));
            assert!(member.is_some(), "{} lacks the sender of {event}", self.client.user());
        }
        copy.events.extend(timeline.iter().map(id_of));
        for event in texts(&news["ephemeral"]).iter().filter(|one| one["type"] == "m.receipt") {
            for (event_id, kinds) in event["content"].as_object().expect("an object") {
                for user in kinds["m.read"].as_object().expect("an object").keys() {
                    copy.receipts.insert(user.clone(), event_id.clone());
                }
            }
        }
        self.rooms.insert(room.to_owned(), copy);
    }

    /// The events before `from` that are not known yet, oldest first.
    async fn page_back(&self, room: &str, from: &str, known: &BTreeSet<String>) -> Vec<Value> {
        let (mut gap, mut from) = (Vec::new(), from.to_owned());
        loop {
            let filter =
                if self.lazy { encoded(r#"{"lazy_load_members":true}"#) } else { encoded("{}") };
            let path = format!(
                "/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=50&from={from}&filter={filter}"
            );
            let page = self.client.get(&path).await.ok();
            let events = page["chunk"].as_array().expect("a page");
            let senders: BTreeSet<String> =
                events.iter().map(|event| text(event, "sender")).collect();
            if self.lazy {
                let told = page["state"].as_array().into_iter().flatten();
                let told: BTreeSet<String> = told.map(|event| text(event, "state_key")).collect();
                assert_eq!(told, senders, "a page tells of its senders");
            }
            for event in events {
                if known.contains(&id_of(event)) {
                    gap.reverse();
                    return gap;
                }
                gap.push(event.clone());
            }
            match page["end"].as_str() {
                Some(end) => from = end.to_owned(),
                None => {
                    gap.reverse();
                    return gap;
                }
            }
        }
    }
}

/// A generator of the test's choices: the same in each run of a seed.
#[derive(Debug, Clone)]
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a user does in one round; errors that a race makes possible (acting in a room just left)
/// are part of the game.
async fn act(client: Client, rooms: Arc<Vec<String>>, seed: u64, acted: Arc<AtomicU64>) {
    let mut choices = Choices(seed);
    for n in 0..ACTIONS {
        let room = &rooms[usize::try_from(choices.below(rooms.len() as u64)).unwrap()];
        let answer = match choices.below(10) {
            0 => client.post(&format!("/_matrix/client/v3/rooms/{room}/join"), json!({})).await,
            1 if n % 3 == 0 => {
                client.post(&format!("/_matrix/client/v3/rooms/{room}/leave"), json!({})).await
            }
            2 => {
                let topic = json!({ "topic": format!("{seed} {n}") });
                client
                    .put(&format!("/_matrix/client/v3/rooms/{room}/state/m.room.topic/"), topic)
                    .await
            }
            3 => {
                let path = format!("/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=1");
                let page = client.get(&path).await;
                let Some(event) = page.body["chunk"][0]["event_id"].as_str() else { continue };
                client
                    .post(
                        &format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{event}"),
                        json!({}),
                    )
                    .await
            }
            4 => {
                let user = client.user().to_owned();
                let path = format!("/_matrix/client/v3/user/{user}/account_data/org.example.mark");
                client.put(&path, json!({ "n": n })).await
            }
            _ => {
                let body = json!({ "msgtype": "m.text", "body": format!("{seed} {n}") });
                let txn = format!("{seed}-{n}");
                client
                    .put(
                        &format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}"),
                        body,
                    )
                    .await
            }
        };
        assert!(!answer.status.is_server_error(), "{:?}", answer.body);
        acted.fetch_add(u64::from(answer.status.is_success()), Ordering::Relaxed);
    }
}

/// The filters under which clients follow.
const FILTERS: [&str; USERS] = [
    "%7B%7D",
    r#"{"room":{"timeline":{"limit":3}}}"#,
    r#"{"room":{"timeline":{"limit":1}}}"#,
    r#"{"presence":{"types":[]},"room":{"timeline":{"limit":20}}}"#,
    r#"{"room":{"timeline":{"limit":5},"state":{"types":["*"]}}}"#,
    r#"{"room":{"timeline":{"limit":4},"state":{"lazy_load_members":true}}}"#,
];

fn encoded(filter: &str) -> String {
    let filter = filter.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    filter.replace('[', "%5B").replace(']', "%5D")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clients_copy_equals_the_room_through_restarts() {
    every_copy_equals_the_room(Arc::new(MemoryEngine::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_clients_copy_equals_the_room_through_restarts_on_rocksdb() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap();
    every_copy_equals_the_room(Arc::new(engine)).await;
}

async fn every_copy_equals_the_room(engine: Arc<dyn Engine>) {
    let (config, clock) = (TestServer::config(), TestClock::default());
    let mut server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
    let mut sessions = Vec::new();
    for user in 0..USERS {
        sessions.push(server.register(&format!("user{user}")).await);
    }
    let mut rooms = Vec::new();
    for client in sessions.iter().take(2) {
        let new = json!({ "preset": "public_chat" });
        let made = client.post("/_matrix/client/v3/createRoom", new).await.ok();
        rooms.push(made["room_id"].as_str().expect("a room").to_owned());
    }
    let rooms = Arc::new(rooms);
    let mut receivers: Vec<Receiver> = sessions
        .iter()
        .zip(FILTERS)
        .zip(7..)
        .map(|((client, filter), seed)| Receiver {
            client: client.clone(),
            filter: encoded(filter),
            lazy: filter.contains("lazy"),
            choices: Choices(seed),
            since: None,
            rooms: BTreeMap::new(),
            marks: BTreeMap::new(),
        })
        .collect();
    let acted = Arc::new(AtomicU64::new(0));
    for round in 0..ROUNDS {
        receivers = storm(receivers, &rooms, round as u64, &acted).await;
        server.stop().await;
        server = TestServer::start_on(engine.clone(), &config, clock.clone()).await;
        for receiver in &mut receivers {
            receiver.client = receiver.client.on(&server);
        }
    }
    assert!(acted.load(Ordering::Relaxed) > ACTIONS, "too little happened to prove anything");
    for receiver in &mut receivers {
        receiver.sync(0).await;
    }
    for client in &sessions {
        everybody_hears(&client.on(&server), &mut receivers, &rooms).await;
    }
    for receiver in &receivers {
        check(receiver, &rooms).await;
    }
}

/// Somebody says something in each of their rooms, so that each client knows their member event.
async fn everybody_hears(client: &Client, receivers: &mut [Receiver], rooms: &[String]) {
    for room in rooms {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/last");
        client.put(&path, json!({ "msgtype": "m.text", "body": "last" })).await;
    }
    for receiver in receivers {
        receiver.sync(0).await;
    }
}

/// One round: everybody acts, and follows while the others act.
async fn storm(
    receivers: Vec<Receiver>,
    rooms: &Arc<Vec<String>>,
    round: u64,
    acted: &Arc<AtomicU64>,
) -> Vec<Receiver> {
    let ended = Arc::new(AtomicBool::new(false));
    let actors: Vec<_> = receivers
        .iter()
        .zip(1..)
        .map(|(receiver, n)| {
            let (client, seed) = (receiver.client.clone(), round * 1_000 + n);
            tokio::spawn(act(client, Arc::clone(rooms), seed, Arc::clone(acted)))
        })
        .collect();
    let followers: Vec<_> = receivers
        .into_iter()
        .map(|mut receiver| {
            let ended = Arc::clone(&ended);
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    receiver.sync(50).await;
                }
                receiver
            })
        })
        .collect();
    for actor in actors {
        actor.await.expect("an actor does not panic");
    }
    ended.store(true, Ordering::Relaxed);
    let mut receivers = Vec::new();
    for follower in followers {
        receivers.push(follower.await.expect("a follower does not panic"));
    }
    receivers
}

/// Compares a client's copy with what the server says of the rooms the client is in.
async fn check(receiver: &Receiver, rooms: &[String]) {
    let client = &receiver.client;
    let user = client.user().to_string();
    let joined = client.get("/_matrix/client/v3/joined_rooms").await.ok();
    let joined: BTreeSet<String> = serde_json::from_value(joined["joined_rooms"].clone()).unwrap();
    let copied: BTreeSet<String> = receiver.rooms.keys().cloned().collect();
    assert_eq!(copied, joined, "{user} follows the rooms it is in");
    for room in rooms.iter().filter(|room| joined.contains(*room)) {
        let copy = &receiver.rooms[room];
        let distinct: BTreeSet<&String> = copy.events.iter().collect();
        assert_eq!(distinct.len(), copy.events.len(), "{user} was told an event twice");
        let all =
            receiver.page_back(room, &receiver.since.clone().unwrap(), &BTreeSet::new()).await;
        let all: Vec<String> = all.iter().map(id_of).collect();
        assert!(all.ends_with(&copy.events), "{user} has other events of {room} than there are");
        let state = client.get(&format!("/_matrix/client/v3/rooms/{room}/state")).await.ok();
        let mut state: BTreeMap<_, _> = state
            .as_array()
            .expect("a state")
            .iter()
            .map(|event| (place_of(event), (id_of(event), event["content"]["membership"].clone())))
            .collect();
        let mut copied = copy.state.clone();
        if receiver.lazy {
            // Only who is in the room has spoken since.
            let needed = |membership: &Value| membership.is_null() || membership == "join";
            state.retain(|_, (_, membership)| needed(membership));
            copied.retain(|place, _| state.contains_key(place));
        }
        let state: BTreeMap<_, _> = state.into_iter().map(|(place, (id, _))| (place, id)).collect();
        assert_eq!(copied, state, "{user} has another state of {room}");
    }
    let path = format!("/_matrix/client/v3/user/{user}/account_data/org.example.mark");
    let mark = client.get(&path).await;
    let mark = mark.status.is_success().then(|| mark.body["n"].as_u64().unwrap());
    assert_eq!(receiver.marks.get("own").copied(), mark, "{user} has other account data");
}
