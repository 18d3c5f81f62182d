//! What it costs to take in events of another server: events per second and processor time for each,
//! from the signed request until they are in the room, signatures checked, on RocksDB. Prints figures;
//! run with `cargo bench --bench inbound`, and `-- N` for another number of transactions of 50 events
//! than 40.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::time::Instant;

use millrace_model::Pdu;
use millrace_test_support::{
    FakeRoom, FakeServer, Network,
    bench::{BenchServer, processor_time},
};
use serde_json::json;

/// Events of one transaction.
const EVENTS: usize = 50;

#[tokio::main]
async fn main() {
    let transactions = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(40);
    let network = Network::default();
    let started = BenchServer::start_in(&network).await;
    let one = &started.server;
    let alice = one.register("alice").await;
    let body = json!({ "preset": "public_chat" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let room = FakeRoom::of(one, room["room_id"].as_str().expect("an ID")).await;
    let far = FakeServer::start(&network, "far");
    let bob = room.join(&far, &far.user("bob"), &[&room.newest]);
    far.send(one, &[&bob], &[]).await.ok();
    one.inbound.idle().await;

    let mut chain = vec![bob.clone()];
    for n in 0..transactions * EVENTS {
        let newest = chain.last().expect("it began with bob's joining");
        chain.push(room.say(&far, &bob, &[newest], &n.to_string()));
    }
    let (began, spent) = (Instant::now(), processor_time());
    for events in chain[1..].chunks(EVENTS) {
        let events: Vec<&Pdu> = events.iter().collect();
        far.send(one, &events, &[]).await.ok();
    }
    let acknowledged = began.elapsed();
    one.inbound.idle().await;
    let (took, spent) = (began.elapsed(), processor_time().saturating_sub(spent));
    let events = u32::try_from(transactions * EVENTS).expect("a small number");
    // The events are made and signed before it is looked at; the signing of the requests counts.
    println!(
        "{events} events: acknowledged in {acknowledged:?}, in the room in {took:?}: {:.0} per second, \
         {:?} of processor time for each",
        f64::from(events) / took.as_secs_f64(),
        spent / events,
    );
    started.server.stop().await;
}
