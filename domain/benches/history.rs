//! What it costs to show events: a page of twenty, one event, and one that has a long thread.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use criterion::{Criterion, criterion_group, criterion_main};
use millrace_domain::{
    Clock, Env, Identity, Random,
    rooms::{
        CacheSizes, Draft, RoomView, Rooms, Viewer,
        create::{self, Listing, NewRoom, Preset},
        history::{self, PageRequest},
        membership::Direct,
        send,
    },
};
use millrace_model::{
    client_event::RoomIdField, filter::EventFilter, rules::signing_key::ServerSigningKey,
};
use millrace_store::{Limits, Store, engine::MemoryEngine};
use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId,
    RoomVersionId, UInt, UserId, api::Direction, events::TimelineEventType, owned_server_name,
    user_id,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const PAGE: usize = 20;
const THREAD: usize = 1000;

#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Random for Ticks {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = (n >> 56) as u8;
        }
    }
}

fn alice() -> &'static UserId {
    user_id!("@alice:bench")
}

fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).expect("an object")
}

async fn world() -> Rooms {
    let name = owned_server_name!("bench");
    let store = Store::open(Arc::new(MemoryEngine::new()), &name, Limits::default()).await;
    let key = ServerSigningKey::new("bench", &[7; 32]).expect("a key");
    let env = Env {
        store: store.expect("a store"),
        clock: Arc::new(Ticks::default()),
        random: Arc::new(Ticks::default()),
        identity: Arc::new(Identity { name, key }),
    };
    Rooms::open(env, CacheSizes::default()).await.expect("rooms")
}

async fn new_room(rooms: &Rooms) -> OwnedRoomId {
    let new = NewRoom {
        creator: alice().to_owned(),
        version: RoomVersionId::V12,
        preset: Preset::Public,
        creation_content: CanonicalJsonObject::new(),
        power_levels: CanonicalJsonObject::new(),
        initial_state: Vec::new(),
        name: None,
        topic: None,
        invite: Vec::new(),
        direct: Direct::No,
        alias_name: None,
        listing: Listing::Unlisted,
    };
    create::create(rooms, &new).await.expect("a room")
}

async fn say(rooms: &Rooms, room: &RoomId, content: Value) -> OwnedEventId {
    let draft = Draft::message(alice(), TimelineEventType::RoomMessage, object(content));
    send::send(rooms, room, &draft, None).await.expect("an event")
}

/// A room whose newest events are [`PAGE`] messages, before them the root of a long thread.
async fn room_with_history(rooms: &Rooms) -> (OwnedRoomId, OwnedEventId) {
    let room = new_room(rooms).await;
    let root = say(rooms, &room, json!({"msgtype": "m.text", "body": "root"})).await;
    for _ in 0..THREAD {
        let relates_to = json!({"rel_type": "m.thread", "event_id": root});
        let content = json!({"msgtype": "m.text", "body": "x", "m.relates_to": relates_to});
        say(rooms, &room, content).await;
    }
    for n in 0..PAGE {
        say(rooms, &room, json!({"msgtype": "m.text", "body": format!("message {n}")})).await;
    }
    (room, root)
}

async fn show_page(rooms: &Rooms, room: &RoomId, limit: usize) -> usize {
    let snapshot = rooms.env.store.snapshot();
    let viewer = Viewer::load(&snapshot, alice(), None).await.expect("a viewer");
    let view = history::open(rooms, &snapshot, room, &viewer).await.expect("a view");
    let filter = &EventFilter::default();
    let direction = Direction::Backward;
    let request = PageRequest { from: None, to: None, direction, limit, filter };
    let page = history::page(&view, &request).await.expect("a page");
    view.render(&page.events, RoomIdField::Present).await.expect("events").len()
}

async fn show_one(rooms: &Rooms, room: &RoomId, event: &EventId) -> usize {
    let snapshot = rooms.env.store.snapshot();
    let viewer = Viewer::load(&snapshot, alice(), None).await.expect("a viewer");
    let view = RoomView::open(rooms, &snapshot, room, &viewer).await.expect("a view");
    let view = view.expect("a room");
    let seen = view.find(event).await.expect("an event").expect("an event");
    view.render_one(&seen, RoomIdField::Present).await.expect("an event").get().len()
}

fn show(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let rooms = runtime.block_on(world());
    let (room, root) = runtime.block_on(room_with_history(&rooms));
    for limit in [1, PAGE] {
        criterion.bench_function(&format!("page of {limit}"), |bench| {
            bench.iter(|| black_box(runtime.block_on(show_page(&rooms, &room, limit))));
        });
    }
    criterion.bench_function(&format!("root of a thread of {THREAD}"), |bench| {
        bench.iter(|| black_box(runtime.block_on(show_one(&rooms, &room, &root))));
    });
}

criterion_group!(benches, show);
criterion_main!(benches);
