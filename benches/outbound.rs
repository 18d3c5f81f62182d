//! What it costs to tell other servers: the delay from a user's request until another server has the
//! event, processor time for each message, and memory for servers that are down. Prints figures; run
//! with `cargo bench --bench outbound`, and `-- N` for another number of dead servers than 5,000.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::time::{Duration, Instant};

use futures::FutureExt;
use millrace_domain::rooms::{AppendError, Draft, Numbers, RoomTx};
use millrace_test_support::{
    Client, Manner, Recorder, TestClock, TestServer,
    bench::{BenchServer, Memory, memory_kib, processor_time},
};
use ruma::{OwnedRoomId, RoomId, UserId, events::TimelineEventType};
use serde_json::json;

/// Messages whose delay is measured.
const MESSAGES: usize = 200;
/// Joins in one commit.
const JOINS: usize = 50;

#[tokio::main]
async fn main() {
    let dead = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(5000);
    let others = Recorder::default();
    others.set("live", Manner::Up);
    let started = BenchServer::start(TestClock::default(), others.transport()).await;
    let one = &started.server;
    let alice = one.register("alice").await;
    let body = json!({ "preset": "public_chat" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    let room: OwnedRoomId = room["room_id"].as_str().expect("an ID").try_into().expect("valid");
    join(one, &room, &["@user:live".to_owned()]).await;
    measure("one live server", &alice, &room, &others).await;

    let users: Vec<String> = (0..dead).map(|n| format!("@user:server{n}.example")).collect();
    for some in users.chunks(JOINS) {
        join(one, &room, some).await;
    }
    let before = memory_kib(Memory::Resident);
    let (began, spent) = (Instant::now(), processor_time());
    say(&alice, &room, "to all").await;
    while one.outbound.counts().waiting < dead || one.outbound.counts().active > 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "{dead} servers found to be down in {:?}, {:?} of processor time",
        began.elapsed(),
        processor_time().saturating_sub(spent)
    );
    print_memory("now", before);
    measure(&format!("one live server and {dead} dead ones"), &alice, &room, &others).await;
    println!("{:?}", one.outbound.counts());
    print_memory("in the end", before);
    started.server.stop().await;
}

fn print_memory(when: &str, before: u64) {
    let after = memory_kib(Memory::Resident);
    println!("memory: {before} KiB before they were told anything, {after} KiB {when}");
}

async fn say(alice: &Client, room: &RoomId, text: &str) {
    let id = text.replace(' ', "-");
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{id}");
    alice.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
}

/// Sends messages one after another, each once the live server has the one before.
async fn measure(name: &str, alice: &Client, room: &RoomId, others: &Recorder) {
    let mut delays = Vec::with_capacity(MESSAGES);
    let processor_before = processor_time();
    for n in 0..MESSAGES {
        let (text, started) = (format!("{name} {n}"), Instant::now());
        say(alice, room, &text).await;
        let acknowledged = started.elapsed();
        others
            .reached("live", |sent| {
                let newest = sent.last().and_then(|sent| sent.pdus().last());
                newest.is_some_and(|pdu| pdu["content"]["body"] == text.as_str())
            })
            .await;
        delays.push((started.elapsed(), acknowledged));
    }
    let spent = (processor_time() - processor_before) / u32::try_from(MESSAGES).unwrap_or(1);
    delays.sort_unstable();
    let (p50, p99) = (delays[MESSAGES / 2], delays[MESSAGES * 99 / 100]);
    println!("{name}: p50 {:?} (of it the sender's own request {:?})", p50.0, p50.1);
    println!("{name}: p99 {:?}, {spent:?} of processor time for each message", p99.0);
}

/// Users of other servers join, as if they had sent the events.
async fn join(one: &TestServer, room: &RoomId, users: &[String]) {
    let rooms = &one.federation.rooms;
    let numbers = &Numbers::draw(rooms, users.len()).await.expect("numbers");
    let joined = rooms.env.store.transact(|tx| {
        async move {
            let opened = RoomTx::open(&tx, rooms, room, numbers).await?;
            let mut opened = opened.expect("the room is there");
            for user in users {
                let user = UserId::parse(user.as_str()).expect("a user ID");
                let content = json!({ "membership": "join" });
                let content = serde_json::from_value(content).expect("an object");
                let kind = TimelineEventType::RoomMember;
                opened.append(Draft::state(&user, kind, user.as_str(), content)).await?;
            }
            opened.finish();
            Ok::<_, AppendError>(())
        }
        .boxed()
    });
    joined.await.expect("they may join");
}
