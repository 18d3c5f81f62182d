//! What it costs to take in events of another server: events per second and processor time for each,
//! from the signed request until they are in the room, signatures checked, on RocksDB. Prints figures;
//! run with `cargo bench --bench inbound`, and `-- N` for another number of transactions of 50 events
//! than 40.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_model::Pdu;
use millrace_store::engine::{RocksEngine, RocksOptions};
use millrace_test_support::{FakeRoom, FakeServer, Network, TestServer};
use serde_json::json;

/// Events of one transaction.
const EVENTS: usize = 50;

#[tokio::main]
async fn main() {
    let transactions = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(40);
    let folder = std::env::temp_dir().join(format!("millrace-inbound-{}", std::process::id()));
    let engine = RocksEngine::open(&folder, &RocksOptions::default()).expect("a database");
    let network = Network::default();
    let mut config = TestServer::config();
    config.server.server_name = "one".to_owned();
    let (clock, transport) = (network.clock.clone(), network.transport("one"));
    let one = TestServer::start_between(Arc::new(engine), &config, clock, transport).await;
    network.enter("one", one.router.clone());
    let alice = one.register("alice").await;
    let body = json!({ "preset": "public_chat" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let room = FakeRoom::of(&one, room["room_id"].as_str().expect("an ID")).await;
    let far = FakeServer::start(&network, "far");
    let bob = room.join(&far, &far.user("bob"), &[&room.newest]);
    far.send(&one, &[&bob], &[]).await.ok();
    one.inbound.idle().await;

    let mut chain = vec![bob.clone()];
    for n in 0..transactions * EVENTS {
        let newest = chain.last().expect("it began with bob's joining");
        chain.push(room.say(&far, &bob, &[newest], &n.to_string()));
    }
    let (began, spent) = (Instant::now(), processor());
    for events in chain[1..].chunks(EVENTS) {
        let events: Vec<&Pdu> = events.iter().collect();
        far.send(&one, &events, &[]).await.ok();
    }
    let acknowledged = began.elapsed();
    one.inbound.idle().await;
    let (took, spent) = (began.elapsed(), processor().saturating_sub(spent));
    let events = u32::try_from(transactions * EVENTS).expect("a small number");
    println!(
        "{events} events: acknowledged in {acknowledged:?}, in the room in {took:?}: {:.0} per second, \
         {:?} of processor time for each",
        f64::from(events) / took.as_secs_f64(),
        spent / events,
    );
    one.stop().await;
    std::fs::remove_dir_all(&folder).ok();
}

/// Processor time that this process has used. The events are made and signed before it is looked at;
/// the signing of the requests that carry them counts.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: fields 14 and 15 are user and system time, in ticks of 10 ms.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
