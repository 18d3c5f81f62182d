//! What it costs to show events: a page of twenty, one event, and one that has a long thread.

mod world;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use millrace_domain::rooms::{
    RoomView, Rooms, Viewer,
    history::{self, Gaps, PageRequest},
};
use millrace_model::{client_event::RoomIdField, filter::EventFilter};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, api::Direction};
use serde_json::json;
use tokio::runtime::Runtime;
use world::{alice, new_room, say, world};

const PAGE: usize = 20;
const THREAD: usize = 1000;

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
    let request = PageRequest { from: None, to: None, direction, limit, filter, gaps: Gaps::Pass };
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
