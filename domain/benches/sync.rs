//! What a quiet room costs an incremental sync: a user in 10, 100 and 1,000 rooms, with news in one.

mod world;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use millrace_domain::{
    deliveries::{Deliveries, DeliverySettings},
    ephemeral::EphemeralClock,
    presence::{Presence, PresenceSettings},
    sync::{self, SyncFilter, SyncParts, SyncRequest, Syncs},
    typing::Typing,
};
use millrace_model::SyncToken;
use ruma::api::client::filter::FilterDefinition;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use world::{alice, new_room, say, world};

const ROOMS: [usize; 3] = [10, 100, 1_000];

/// Alice's server, and her token from before the newest message in the last of her rooms.
async fn server(rooms: usize) -> (Syncs, SyncToken) {
    let world = world().await;
    let moments = Arc::new(EphemeralClock::new(&world.env));
    let presence = PresenceSettings::default();
    let syncs = Syncs::new(SyncParts {
        typing: Arc::new(Typing::new(world.env.clone(), Arc::clone(&moments), Duration::MAX)),
        presence: Arc::new(Presence::new(world.env.clone(), Arc::clone(&moments), presence)),
        ephemeral: moments,
        unreads: Arc::default(),
        deliveries: Deliveries::new(world.clone(), DeliverySettings::default()),
        rooms: world,
    });
    let mut room = new_room(&syncs.rooms).await;
    for _ in 1..rooms {
        room = new_room(&syncs.rooms).await;
    }
    let first: Value = serde_json::from_str(&sync(&syncs, None).await).expect("JSON");
    let since = first["next_batch"].as_str().expect("a token").parse().expect("a token");
    say(&syncs.rooms, &room, json!({"msgtype": "m.text", "body": "news"})).await;
    (syncs, since)
}

async fn sync(syncs: &Syncs, since: Option<SyncToken>) -> String {
    let request = SyncRequest {
        user: alice().to_owned(),
        device: Some("DEVICE".into()),
        since,
        filter: SyncFilter::new(&FilterDefinition::default()),
        full_state: false,
        state_after: false,
        timeout: Duration::ZERO,
    };
    sync::sync(syncs, &request, std::future::pending()).await.expect("a response").json
}

fn incremental(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("incremental sync, news in one room");
    for rooms in ROOMS {
        let (syncs, since) = runtime.block_on(server(rooms));
        let response = runtime.block_on(sync(&syncs, Some(since.clone())));
        assert_eq!(response.matches("\"timeline\":").count(), 1, "news in one room: {response}");
        group.bench_function(BenchmarkId::new("rooms", rooms), |bench| {
            bench.iter(|| black_box(runtime.block_on(sync(&syncs, Some(since.clone())))));
        });
    }
    group.finish();
}

criterion_group!(benches, incremental);
criterion_main!(benches);
