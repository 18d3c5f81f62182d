//! What it costs to tell application services: transactions to a fast one, and memory with dead ones
//! while much waits for them. Prints figures; run with `cargo bench --bench appservices`, and `-- N`
//! for another number of waiting events than 100,000.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::to_bytes, extract::Request};
use futures::{FutureExt, future::join_all};
use millrace_domain::rooms::{AppendError, Draft, Numbers, RoomTx};
use millrace_store::engine::{RocksEngine, RocksOptions};
use millrace_test_support::{Client, TestClock, TestServer};
use ruma::{OwnedRoomId, RoomId, UserId, events::TimelineEventType};
use serde_json::json;
use tokio::net::TcpListener;

/// Services of which nobody is there.
const DEAD: usize = 10;
/// Messages whose delay is measured, one after another.
const MESSAGES: usize = 200;
/// Messages that several clients send at once, and how many clients.
const AT_ONCE: (usize, usize) = (4000, 16);
/// Events of one commit.
const COMMIT: usize = 250;

/// What a fast service has been sent.
#[derive(Default)]
struct Told {
    transactions: AtomicUsize,
    /// Bodies, so that an event is told by its text.
    events: AtomicUsize,
}

#[tokio::main]
async fn main() {
    let waiting = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(100_000);
    let folder = std::env::temp_dir().join(format!("millrace-appservices-{}", std::process::id()));
    let engine = RocksEngine::open(&folder, &RocksOptions::default()).expect("a database");
    let files = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut config = TestServer::config();
    config.appservices.appservice_dir = Some(files.path().to_owned());
    register(files.path(), "fast", port);
    for n in 0..DEAD {
        // Nobody listens on a port that was just given back.
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        register(files.path(), &format!("dead{n}"), closed.local_addr().expect("one").port());
    }
    let clock = TestClock::default();
    let server = TestServer::start_on(Arc::new(engine), &config, clock).await;
    let alice = server.register("alice").await;
    let room = room(&alice).await;
    let told = Arc::new(Told::default());
    let serving = tokio::spawn(serve(listener, Arc::clone(&told)));
    one_by_one(&alice, &room, &told).await;
    at_once(&server, &room, &told).await;

    serving.abort();
    let _ = serving.await;
    let before = resident();
    println!("memory {} MiB before", before >> 20);
    let mut left = waiting;
    while left > 0 {
        let some = left.min(COMMIT);
        say_at_once(&server, &room, alice.user(), some).await;
        left -= some;
    }
    while fewest_waiting(&server).await < waiting {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{} services are not there, and {waiting} events wait for each: memory {} KiB more",
        DEAD + 1,
        resident().saturating_sub(before) >> 10
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    let (events, transactions) = (load(&told.events), load(&told.transactions));
    let (started, spent) = (Instant::now(), processor());
    tokio::spawn(serve(listener, Arc::clone(&told)));
    server.clock.advance(Duration::from_mins(10));
    server.services.wake();
    while load(&told.events) < events + waiting {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    report("what waited", &told, (events, transactions), (started.elapsed(), processor() - spent));
    println!("memory {} KiB more than before", resident().saturating_sub(before) >> 10);
    server.stop().await;
    std::fs::remove_dir_all(&folder).ok();
}

fn register(folder: &std::path::Path, id: &str, port: u16) {
    let text = format!(
        "id: {id}\nurl: http://127.0.0.1:{port}\nas_token: as-token-of-{id}\n\
         hs_token: hs-token-of-{id}\nsender_localpart: {id}-bot\n\
         namespaces: {{rooms: [{{exclusive: false, regex: '.*'}}]}}\n"
    );
    std::fs::write(folder.join(format!("{id}.yaml")), text).expect("it can be written");
}

/// A service that counts and forgets.
async fn serve(listener: TcpListener, told: Arc<Told>) {
    let router = Router::new().fallback(move |request: Request| {
        let told = Arc::clone(&told);
        async move {
            let body = to_bytes(request.into_body(), usize::MAX).await.expect("a whole body");
            let texts = body.windows(8).filter(|bytes| bytes == b"\"m.text\"").count();
            told.events.fetch_add(texts, Ordering::SeqCst);
            told.transactions.fetch_add(1, Ordering::SeqCst);
            "{}"
        }
    });
    axum::serve(listener, router).await.expect("it serves");
}

async fn room(alice: &Client) -> OwnedRoomId {
    let body = json!({ "preset": "public_chat" });
    let room = alice.post("/_matrix/client/v3/createRoom", body).await.ok();
    room["room_id"].as_str().expect("an ID").try_into().expect("valid")
}

async fn say(alice: &Client, room: &RoomId, text: &str) {
    let id = text.replace(' ', "-");
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{id}");
    alice.put(&path, json!({ "msgtype": "m.text", "body": text })).await.ok();
}

/// Sends messages one after another, each once the service has the one before.
async fn one_by_one(alice: &Client, room: &RoomId, told: &Told) {
    let mut delays = Vec::with_capacity(MESSAGES);
    for n in 0..MESSAGES {
        let (before, started) = (load(&told.events), Instant::now());
        say(alice, room, &format!("single {n}")).await;
        let acknowledged = started.elapsed();
        while load(&told.events) == before {
            tokio::task::yield_now().await;
        }
        delays.push((started.elapsed(), acknowledged));
    }
    delays.sort_unstable();
    let (p50, p99) = (delays[MESSAGES / 2], delays[MESSAGES * 99 / 100]);
    println!("one by one, {DEAD} services dead: p50 {:?} (the request itself {:?})", p50.0, p50.1);
    println!("p99 {:?}", p99.0);
}

/// Many clients send at once; the service is told as they do.
async fn at_once(server: &TestServer, room: &RoomId, told: &Told) {
    let (messages, clients) = AT_ONCE;
    let mut senders = Vec::new();
    for n in 0..clients {
        let sender = server.register(&format!("sender{n}")).await;
        let path = format!("/_matrix/client/v3/rooms/{room}/join");
        sender.post(&path, json!({})).await.ok();
        senders.push(sender);
    }
    let (events, transactions) = (load(&told.events), load(&told.transactions));
    let (started, spent) = (Instant::now(), processor());
    let each = messages / clients;
    join_all(senders.iter().map(|sender| async move {
        for n in 0..each {
            say(sender, room, &format!("many {n}")).await;
        }
    }))
    .await;
    let sent = started.elapsed();
    while load(&told.events) < events + each * clients {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{clients} clients at once sent {} messages in {sent:?}", each * clients);
    report(
        "while they did",
        told,
        (events, transactions),
        (started.elapsed(), processor() - spent),
    );
}

fn report(
    what: &str,
    told: &Told,
    (events, transactions): (usize, usize),
    (elapsed, spent): (Duration, Duration),
) {
    let (events, transactions) =
        (load(&told.events) - events, load(&told.transactions) - transactions);
    let each_second = |count: usize| count as f64 / elapsed.as_secs_f64();
    println!(
        "{what}: {events} events in {transactions} transactions in {elapsed:?}: {:.0} events and \
         {:.0} transactions each second, {spent:?} of processor time",
        each_second(events),
        each_second(transactions),
    );
}

async fn fewest_waiting(server: &TestServer) -> usize {
    let status = server.services.status().await.expect("it can be read");
    let fewest = status.iter().map(|status| status.waiting).min().unwrap_or(0);
    usize::try_from(fewest).unwrap_or(usize::MAX)
}

/// Says many things in one commit.
async fn say_at_once(server: &TestServer, room: &RoomId, sender: &UserId, count: usize) {
    let rooms = &server.federation.rooms;
    let numbers = &Numbers::draw(rooms, count).await.expect("numbers");
    let said = rooms.env.store.transact(|tx| {
        async move {
            let opened = RoomTx::open(&tx, rooms, room, numbers).await?;
            let mut opened = opened.expect("the room is there");
            for n in 0..count {
                let content = json!({ "msgtype": "m.text", "body": format!("waiting {n}") });
                let content = serde_json::from_value(content).expect("an object");
                let kind = TimelineEventType::RoomMessage;
                opened.append(Draft::message(sender, kind, content)).await?;
            }
            opened.finish();
            Ok::<_, AppendError>(())
        }
        .boxed()
    });
    said.await.expect("it can be said");
}

fn load(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

/// Memory of this process, in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = status.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    pages * 4096
}

/// Processor time of this process.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split(' ').skip(12).take(2);
    // Ticks are hundredths of a second on Linux.
    Duration::from_millis(ticks.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * 10)
}
