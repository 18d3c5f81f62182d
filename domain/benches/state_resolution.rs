//! What it costs to resolve two forks that differ in ten entries, in rooms of 1,000, 10,000 and
//! 100,000 members: with what is needed in memory, and with all of it to be read and parsed.

#[expect(dead_code, reason = "these rooms get their events without a sender's checks")]
mod world;

use std::{collections::HashMap, hint::black_box};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use futures::FutureExt;
use millrace_domain::rooms::{CacheSizes, Event, Resolutions, Rooms, resolve};
use millrace_model::{
    Pdu,
    rules::{auth, room_version},
};
use millrace_store::{
    Error, Read, Scan,
    rows::room::EventHeader,
    state_tree::{Change, StateRoot},
    tables::{CURRENT_STATE, EVENT_HEADERS, EVENT_NUMBERS, EVENTS, ROOM_HEAD},
};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, UserId, events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use world::{alice, new_room, world};

const MEMBERS: [usize; 3] = [1_000, 10_000, 100_000];
/// How often the power levels change while the members join.
const LEVELS: usize = 20;
/// Events written in one transaction.
const BATCH: usize = 250;

/// A room's state, as whoever sends into it must know it.
#[derive(Clone)]
struct Fork {
    held: HashMap<(StateEventType, String), OwnedEventId>,
    root: StateRoot,
}

struct Room {
    rooms: Rooms,
    id: OwnedRoomId,
    version: RoomVersionId,
    rules: &'static RoomVersionRules,
    made: usize,
}

impl Room {
    async fn new() -> (Self, Fork) {
        let rooms = world().await;
        let id = new_room(&rooms).await;
        let snapshot = rooms.env.store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, &id, ()).await.expect("a head").expect("a head");
        let state = snapshot.scan(&CURRENT_STATE, &id, Scan::all()).await.expect("a state");
        let mut held = HashMap::new();
        for ((kind, key), number) in state {
            let header = snapshot.get(&EVENT_HEADERS, &id, number).await.expect("a header");
            held.insert((kind.into(), key), header.expect("a header").event_id);
        }
        let rules = room_version::rules(&head.version).expect("a version");
        let fork = Fork { held, root: head.root };
        (Self { rooms, id, version: head.version, rules, made: 0 }, fork)
    }

    /// An event on top of a fork, which then holds it; it is yet to be written.
    fn event(&mut self, fork: &mut Fork, place: (&str, &str), by: &UserId, content: Value) -> Pdu {
        self.made += 1;
        let (kind, key) = place;
        let raw = serde_json::value::to_raw_value(&content).expect("JSON");
        let places = auth::auth_types_for_event(&kind.into(), by, Some(key), &raw, self.rules);
        let places = places.expect("a fine event");
        let auth: Vec<_> = places.iter().filter_map(|place| fork.held.get(place)).collect();
        let json = json!({
            "type": kind, "state_key": key, "sender": by, "content": content, "depth": self.made,
            "auth_events": auth, "prev_events": [], "origin_server_ts": self.made,
            "room_id": self.id,
        });
        let pdu = Pdu::parse(&json.to_string(), self.rules).expect("an event");
        fork.held.insert((kind.into(), key.to_owned()), pdu.event_id.clone());
        pdu
    }

    /// Stores events, in their order, and puts them into a fork's tree.
    async fn write(&self, fork: &mut Fork, pdus: Vec<Pdu>) {
        for pdus in pdus.chunks(BATCH) {
            let mut events = Vec::with_capacity(pdus.len());
            for pdu in pdus {
                let number = self.rooms.env.store.next_event_number().await.expect("a number");
                events.push(Event::new(number, pdu.clone(), self.rules));
            }
            let (rooms, room, root, events) = (&self.rooms, &self.id, fork.root, &events);
            let written = rooms.env.store.transact(|tx| {
                async move {
                    for event in events {
                        let (number, id) = (event.number, &event.pdu.event_id);
                        tx.put(&EVENTS, room, number, &event.pdu.json().to_string());
                        tx.put(&EVENT_HEADERS, room, number, &header(id));
                        tx.put(&EVENT_NUMBERS, room, id, &number);
                        rooms.links.write(&tx, room, event).await?;
                    }
                    let kinds: Vec<_> = events.iter().map(|e| e.pdu.kind.to_string()).collect();
                    let both = events.iter().zip(&kinds);
                    let changes: Vec<_> = both.map(|(event, kind)| change(event, kind)).collect();
                    let changed = rooms.states.change(&tx, room, root, &changes).await;
                    Ok::<_, Error>(changed.expect("a state"))
                }
                .boxed()
            });
            fork.root = written.await.expect("written");
        }
    }

    async fn resolve(&self, rooms: &Rooms, roots: &[StateRoot]) -> usize {
        let snapshot = rooms.env.store.snapshot();
        let resolved = resolve::resolve(rooms, &snapshot, &self.id, &self.version, roots).await;
        resolved.expect("a state").changes.len()
    }
}

fn change<'a>(event: &'a Event, kind: &'a str) -> Change<'a> {
    let state_key = event.pdu.state_key.as_deref().unwrap_or_default();
    Change { event_type: kind, state_key, event: Some(event.number) }
}

fn header(event_id: &OwnedEventId) -> EventHeader {
    EventHeader {
        event_id: event_id.clone(),
        place: None,
        before: None,
        outlier: true,
        rejected: false,
        soft_failed: false,
        redacted_by: None,
        related: false,
        aggregated: false,
        replaces: None,
    }
}

fn user(n: usize) -> ruma::OwnedUserId {
    UserId::parse(format!("@user{n}:bench")).expect("a user ID")
}

/// A room of so many members, and two forks of it: one has other power levels and four other
/// profiles, the other a topic and four who have left.
async fn forked(members: usize) -> (Room, [StateRoot; 2]) {
    let (mut room, mut base) = Room::new().await;
    let mut events = Vec::new();
    for n in 0..members {
        if n % (members / LEVELS) == 0 {
            let levels = json!({"users": {user(0): 50 + n / (members / LEVELS)}});
            let place = ("m.room.power_levels", "");
            events.push(room.event(&mut base, place, alice(), levels));
        }
        let (user, join) = (user(n), json!({"membership": "join"}));
        events.push(room.event(&mut base, ("m.room.member", user.as_str()), &user, join));
    }
    room.write(&mut base, events).await;
    let (mut left, mut right) = (base.clone(), base);
    let levels = json!({"users": {user(0): 10}});
    let mut on_left = vec![room.event(&mut left, ("m.room.power_levels", ""), alice(), levels)];
    let topic = json!({"topic": "benches"});
    let mut on_right = vec![room.event(&mut right, ("m.room.topic", ""), alice(), topic)];
    for n in 1..5 {
        let (here, there) = (user(members * n / 9), user(members * n / 9 + 1));
        let renamed = json!({"membership": "join", "displayname": "x"});
        on_left.push(room.event(&mut left, ("m.room.member", here.as_str()), &here, renamed));
        let gone = json!({"membership": "leave"});
        on_right.push(room.event(&mut right, ("m.room.member", there.as_str()), &there, gone));
    }
    room.write(&mut left, on_left).await;
    room.write(&mut right, on_right).await;
    (room, [left.root, right.root])
}

fn resolution(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for members in MEMBERS {
        let (room, roots) = runtime.block_on(forked(members));
        let warm = || {
            let mut rooms = room.rooms.clone();
            rooms.resolutions = Resolutions::default();
            rooms
        };
        let cold = || {
            let opened = Rooms::open(room.rooms.env.clone(), CacheSizes::default());
            runtime.block_on(opened).expect("rooms")
        };
        assert_eq!(runtime.block_on(room.resolve(&warm(), &roots)), 5, "the other fork's entries");
        let mut group = criterion.benchmark_group("two forks, ten differences");
        let resolve = |rooms: Rooms| runtime.block_on(room.resolve(&rooms, black_box(&roots)));
        group.bench_function(BenchmarkId::new("in memory", members), |bench| {
            bench.iter_batched(warm, resolve, BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("nothing cached", members), |bench| {
            bench.iter_batched(cold, resolve, BatchSize::PerIteration);
        });
    }
}

criterion_group!(benches, resolution);
criterion_main!(benches);
