//! Who may read what of a room: every history visibility, every membership, every way to read.

use std::{collections::BTreeSet, time::Duration};

use millrace_test_support::{Answer, Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const V1: &str = "/_matrix/client/v1";

/// What bob has been to the room. Each phase ends with messages by alice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bob {
    Never,
    Guest,
    Knocked,
    Invited,
    Joined,
    Left,
    Banned,
    Rejoined,
}

const BOBS: [Bob; 8] = [
    Bob::Never,
    Bob::Guest,
    Bob::Knocked,
    Bob::Invited,
    Bob::Joined,
    Bob::Left,
    Bob::Banned,
    Bob::Rejoined,
];

/// The phases: before bob had to do with the room, invited, joined, gone, joined again.
const PHASES: [&str; 5] = ["early", "invited", "joined", "gone", "again"];

/// The phases whose messages bob may read, as the specification has it.
fn readable(visibility: &str, bob: Bob) -> &'static [&'static str] {
    match (visibility, bob) {
        ("world_readable", _) | ("shared", Bob::Joined | Bob::Rejoined) => &PHASES,
        (_, Bob::Never | Bob::Guest | Bob::Knocked | Bob::Invited) => &[],
        ("shared", Bob::Left | Bob::Banned) => &["early", "invited", "joined"],
        ("invited", Bob::Joined | Bob::Left | Bob::Banned) => &["invited", "joined"],
        ("invited", Bob::Rejoined) => &["invited", "joined", "again"],
        ("joined", Bob::Joined | Bob::Left | Bob::Banned) => &["joined"],
        ("joined", Bob::Rejoined) => &["joined", "again"],
        other => panic!("not in the table: {other:?}"),
    }
}

/// What alice sent in one phase: a message, and what refers to it and what is in its thread.
struct Sent {
    phase: &'static str,
    parent: String,
    reference: String,
    threaded: String,
}

struct Scene {
    room: String,
    sent: Vec<Sent>,
}

async fn put(client: &Client, path: String, body: Value) -> Value {
    client.put(&path, body).await.ok()
}

async fn post(client: &Client, path: String, body: Value) {
    let _ = client.post(&path, body).await.ok();
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl Scene {
    /// Plays what happened in the room up to bob's being what he is.
    async fn play(alice: &Client, bob: &Client, carol: &Client, visibility: &str, is: Bob) -> Self {
        let join_rule = if is == Bob::Knocked { "knock" } else { "public" };
        let state = |kind: &str, content: Value| json!({"type": kind, "content": content});
        let body = json!({"preset": "public_chat", "initial_state": [
            state("m.room.history_visibility", json!({"history_visibility": visibility})),
            state("m.room.join_rules", json!({"join_rule": join_rule})),
        ]});
        let room = alice.post(&format!("{V3}/createRoom"), body).await.ok();
        let mut scene = Self { room: text(&room["room_id"]), sent: Vec::new() };
        let path = |action: &str| format!("{V3}/rooms/{}/{action}", scene.room);
        let (join, leave) = (path("join"), path("leave"));
        let (invite, ban) = (path("invite"), path("ban"));
        let knock = format!("{V3}/knock/{}", scene.room);
        let who = json!({"user_id": bob.user()});
        scene.speak(alice, "early").await;
        match is {
            Bob::Never | Bob::Guest => {}
            Bob::Knocked => post(bob, knock, json!({})).await,
            _ => post(alice, invite, who.clone()).await,
        }
        scene.speak(alice, "invited").await;
        if matches!(is, Bob::Joined | Bob::Left | Bob::Banned | Bob::Rejoined) {
            post(bob, join.clone(), json!({})).await;
        }
        scene.speak(alice, "joined").await;
        match is {
            Bob::Left | Bob::Rejoined => post(bob, leave, json!({})).await,
            Bob::Banned => post(alice, ban, who).await,
            _ => {}
        }
        if is != Bob::Joined {
            scene.speak(alice, "gone").await;
        }
        if is != Bob::Knocked {
            post(carol, join.clone(), json!({})).await;
        }
        if is == Bob::Rejoined {
            post(bob, join, json!({})).await;
        }
        if is != Bob::Joined {
            scene.speak(alice, "again").await;
        }
        scene
    }

    async fn speak(&mut self, alice: &Client, phase: &'static str) {
        let topic = format!("{V3}/rooms/{}/state/m.room.topic", self.room);
        put(alice, topic, json!({"topic": phase})).await;
        let mut ids = Vec::new();
        for rel_type in ["", "m.reference", "m.thread"] {
            let mut content = json!({"msgtype": "m.text", "body": phase});
            if let Some(parent) = ids.first() {
                content["m.relates_to"] = json!({"rel_type": rel_type, "event_id": parent});
            }
            let send = format!("{V3}/rooms/{}/send/m.room.message", self.room);
            let path = format!("{send}/{phase}{rel_type}");
            ids.push(text(&put(alice, path, content).await["event_id"]));
        }
        let [parent, reference, threaded] = ids.try_into().expect("three were sent");
        self.sent.push(Sent { phase, parent, reference, threaded });
    }

    /// Messages of the phases given that were sent.
    fn ids<'s>(&'s self, phases: &'s [&str]) -> BTreeSet<&'s str> {
        let sent = self.sent.iter().filter(|sent| phases.contains(&sent.phase));
        sent.flat_map(|sent| [&*sent.parent, &*sent.reference, &*sent.threaded]).collect()
    }
}

/// IDs of the messages in an answer's list.
fn messages(list: &Value) -> BTreeSet<&str> {
    let events = list.as_array().expect("a list of events").iter();
    let messages = events.filter(|event| event["type"] == "m.room.message");
    messages.map(|event| event["event_id"].as_str().expect("an ID")).collect()
}

/// What is checked, and what was found wrong.
struct Checks {
    case: String,
    wrong: Vec<String>,
}

impl Checks {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.wrong.push(format!("{}: {what}: found {found:?}, not {expected:?}", self.case));
        }
    }

    fn status(&mut self, what: &str, answer: &Answer, expected: u16) {
        self.equal(what, answer.status.as_u16(), expected);
    }

    /// Each event by itself, with its context and its relations.
    async fn events(&mut self, bob: &Client, scene: &Scene, phases: &[&str]) {
        for sent in &scene.sent {
            let visible = phases.contains(&sent.phase);
            let (room, parent, phase) = (&scene.room, &sent.parent, sent.phase);
            let (found, hidden) = (200, 404);
            let status = if visible { found } else { hidden };
            let answer = bob.get(&format!("{V3}/rooms/{room}/event/{parent}")).await;
            self.status(&format!("event, {phase}"), &answer, status);
            if visible {
                let relations = &answer.body["unsigned"]["m.relations"];
                let latest = &relations["m.thread"]["latest_event"]["event_id"];
                self.equal("thread of an event", latest, &json!(sent.threaded));
            }
            let context = format!("{V3}/rooms/{room}/context/{parent}?limit=100");
            let answer = bob.get(&context).await;
            self.status(&format!("context, {phase}"), &answer, status);
            if visible {
                let mut ids = messages(&answer.body["events_before"]);
                ids.extend(messages(&answer.body["events_after"]));
                ids.insert(answer.body["event"]["event_id"].as_str().expect("an ID"));
                self.equal("events in a context", ids, scene.ids(phases));
            }
        }
    }

    async fn relations(&mut self, bob: &Client, scene: &Scene, phases: &[&str]) {
        let hidden = if phases.is_empty() { 403 } else { 404 };
        let room = &scene.room;
        for sent in &scene.sent {
            let visible = phases.contains(&sent.phase);
            let answer = bob.get(&format!("{V1}/rooms/{room}/relations/{}", sent.parent)).await;
            self.status("relations", &answer, if visible { 200 } else { hidden });
            if visible {
                let ids = messages(&answer.body["chunk"]);
                self.equal("relations", ids, [&*sent.reference, &*sent.threaded].into());
            }
        }
        let answer = bob.get(&format!("{V1}/rooms/{room}/threads")).await;
        self.status("threads", &answer, if phases.is_empty() { 403 } else { 200 });
        if !phases.is_empty() {
            let roots = scene.sent.iter().filter(|sent| phases.contains(&sent.phase));
            let roots: BTreeSet<_> = roots.map(|sent| &*sent.parent).collect();
            self.equal("threads", messages(&answer.body["chunk"]), roots);
        }
    }

    async fn pages(&mut self, bob: &Client, scene: &Scene, phases: &[&str], is: Bob) {
        let (room, status) = (&scene.room, if phases.is_empty() { 403 } else { 200 });
        for direction in ["b", "f"] {
            let page = format!("{V3}/rooms/{room}/messages?dir={direction}&limit=100");
            let answer = bob.get(&page).await;
            self.status("messages", &answer, status);
            if status == 200 {
                self.equal("messages", messages(&answer.body["chunk"]), scene.ids(phases));
                self.equal("end of messages", answer.body.get("end"), None);
            }
        }
        if is == Bob::Guest {
            return; // Guests may not search by time.
        }
        let search = format!("{V1}/rooms/{room}/timestamp_to_event?ts=0&dir=f");
        let answer = bob.get(&search).await;
        self.status("timestamp_to_event", &answer, status);
        if status == 200 {
            let first = bob.get(&format!("{V3}/rooms/{room}/messages?dir=f&limit=1")).await.ok();
            let found = &answer.body["event_id"];
            self.equal("timestamp_to_event", found, &first["chunk"][0]["event_id"]);
        }
    }

    async fn members(&mut self, bob: &Client, scene: &Scene, phases: &[&str], is: Bob) {
        let (room, status) = (&scene.room, if phases.is_empty() { 403 } else { 200 });
        let answer = bob.get(&format!("{V3}/rooms/{room}/state/m.room.create")).await;
        self.status("state event", &answer, status);
        let answer = bob.get(&format!("{V3}/rooms/{room}/state")).await;
        self.status("state", &answer, status);
        if status == 200 {
            let state = answer.body.as_array().expect("state").iter();
            let topics = state.filter(|event| event["type"] == "m.room.topic");
            let topics: Vec<_> = topics.map(|event| &event["content"]["topic"]).collect();
            let newest = match is {
                // The state is that of the leaving, except where the world may read.
                Bob::Left | Bob::Banned if !phases.contains(&"gone") => "joined",
                Bob::Joined => "joined",
                _ => "again",
            };
            self.equal("topic in the state", topics, vec![&json!(newest)]);
        }
        let answer = bob.get(&format!("{V3}/rooms/{room}/members")).await;
        self.status("members", &answer, status);
        if status == 200 {
            let members = answer.body["chunk"].as_array().expect("members").iter();
            let carol = members.filter(|event| event["state_key"] == "@carol:test").count() == 1;
            // Carol joined when bob was gone.
            let knows = phases.contains(&"gone") || is == Bob::Rejoined || is == Bob::Joined;
            self.equal("carol among the members", carol, knows && is != Bob::Knocked);
        }
        if is != Bob::Guest {
            let joined = matches!(is, Bob::Joined | Bob::Rejoined);
            let answer = bob.get(&format!("{V3}/rooms/{room}/joined_members")).await;
            self.status("joined_members", &answer, if joined { 200 } else { 403 });
        }
    }
}

impl Checks {
    /// The first sync of a device: rooms that bob is in, and rooms that he has left.
    async fn sync(&mut self, bob: &Client, scene: &Scene, phases: &[&str], is: Bob) {
        // {"room":{"include_leave":true,"timeline":{"limit":100}}}
        let filter = "%7B%22room%22%3A%7B%22include_leave%22%3Atrue%2C%22timeline%22%3A%7B%22\
                      limit%22%3A100%7D%7D%7D";
        let answer = bob.get(&format!("{V3}/sync?filter={filter}")).await.ok();
        let section = |name: &str| answer["rooms"][name].get(&scene.room).cloned();
        let (joined, left) = (section("join"), section("leave"));
        let listed = (joined.is_some(), left.is_some());
        let (shown, phases) = match is {
            Bob::Joined | Bob::Rejoined => ((true, false), phases.to_vec()),
            // A sync of a room that was left ends with the leaving, also where the world may read.
            Bob::Left | Bob::Banned => ((false, true), {
                let before = |phase: &&str| matches!(*phase, "early" | "invited" | "joined");
                phases.iter().copied().filter(before).collect()
            }),
            Bob::Never | Bob::Guest | Bob::Knocked | Bob::Invited => ((false, false), Vec::new()),
        };
        self.equal("in a sync as joined, as left", listed, shown);
        if let Some(room) = joined.or(left) {
            let events = &room["timeline"]["events"];
            self.equal("events of a sync", messages(events), scene.ids(&phases));
        }
        if is != Bob::Guest {
            self.sliding_sync(bob, scene, &phases, is).await; // Not for guests at all.
        }
    }

    /// As in a sync, but for rooms that the user left themselves, of which a new connection tells nothing.
    async fn sliding_sync(&mut self, bob: &Client, scene: &Scene, phases: &[&str], is: Bob) {
        let config = json!({"timeline_limit": 100, "required_state": []});
        let body = json!({"lists": {"all": config}, "room_subscriptions": {&scene.room: config}});
        let path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
        let answer = bob.post(path, body).await.ok();
        let room = &answer["rooms"][&scene.room];
        let told = matches!(is, Bob::Joined | Bob::Rejoined | Bob::Banned);
        self.equal("in a sliding sync", room["timeline"].is_array(), told);
        if told {
            self.equal("events of a sliding sync", messages(&room["timeline"]), scene.ids(phases));
        }
    }
}

#[tokio::test]
async fn each_way_to_read_shows_what_visibility_and_membership_allow() {
    let mut config = TestServer::config();
    config.registration.allow_guest_registration = true;
    let server = TestServer::start_with(&config).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let guest = server.client().post(&format!("{V3}/register?kind=guest"), json!({})).await.ok();
    let guest = server.client().with_session(&guest);
    let mut wrong = Vec::new();
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        for is in BOBS {
            let reader = if is == Bob::Guest { &guest } else { &bob };
            server.clock.advance(Duration::from_secs(1)); // So that no two rooms are of one time.
            let scene = Scene::play(&alice, reader, &carol, visibility, is).await;
            let phases = readable(visibility, is);
            let case = format!("{visibility}, {is:?}");
            let mut checks = Checks { case, wrong: Vec::new() };
            checks.events(reader, &scene, phases).await;
            if is != Bob::Guest {
                checks.relations(reader, &scene, phases).await; // Not for guests at all.
            }
            if is != Bob::Guest || !phases.is_empty() {
                checks.pages(reader, &scene, phases, is).await;
            }
            checks.members(reader, &scene, phases, is).await;
            checks.sync(reader, &scene, phases, is).await;
            wrong.extend(checks.wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_unknown_room_is_refused_like_one_that_may_not_be_read() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let get = async |path: &str| alice.get(path).await;
    get(&format!("{V3}/rooms/!none:test/messages?dir=b")).await.refused(403, "M_FORBIDDEN");
    get(&format!("{V3}/rooms/!none:test/members")).await.refused(403, "M_FORBIDDEN");
    get(&format!("{V3}/rooms/!none:test/joined_members")).await.refused(403, "M_FORBIDDEN");
    get(&format!("{V3}/rooms/!none:test/event/$x")).await.refused(404, "M_NOT_FOUND");
    get(&format!("{V3}/rooms/!none:test/context/$x")).await.refused(404, "M_NOT_FOUND");
    get(&format!("{V1}/rooms/!none:test/threads")).await.refused(403, "M_FORBIDDEN");
}
