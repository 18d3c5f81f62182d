//! What searching costs: a whole search of 20,000 messages in a room, with looking at who may see
//! what, and the index alone with any number of messages.
//!
//!     cargo bench -p millrace-search                        # 20,000 messages
//!     MESSAGES=1000000 cargo bench -p millrace-search       # and the index alone with a million
//!
//! It also looks for people among 100,000.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

#[path = "../../domain/benches/world/mod.rs"]
mod world;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_domain::rooms::Viewer;
use millrace_model::filter::EventFilter;
use millrace_search::{
    Search,
    index::{Change, Cursor, Index, Member, Message, Order, PeopleQuery, Place, Progress, Query},
    room_events::{Request, StateWanted},
    words::Terms,
};
use ruma::{OwnedRoomId, OwnedUserId, owned_room_id};
use serde_json::json;
use world::{alice, new_room, say, world};

/// Messages of the whole search.
const MESSAGES: u64 = 20_000;
/// Words that messages are made of; the first are the most frequent.
const WORDS: u64 = 20_000;
const WORDS_PER_MESSAGE: u64 = 12;
const PEOPLE: u64 = 100_000;
const SEARCHES: u64 = 500;

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    /// A word; as in language, few are frequent and most are rare.
    fn word(&mut self) -> String {
        let range = 1 + self.next() % WORDS;
        letters(self.next() % range)
    }

    fn message(&mut self) -> String {
        let words: Vec<String> = (0..WORDS_PER_MESSAGE).map(|_| self.word()).collect();
        words.join(" ")
    }
}

/// A number as a word.
fn letters(mut number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "lo", "mi", "nu", "re", "sa", "ti", "vo", "be", "du", "fa", "go", "hi", "ju", "pe",
        "zo",
    ];
    let mut word = String::new();
    loop {
        word.push_str(SYLLABLES[(number % 16) as usize]);
        number /= 16;
        if number == 0 {
            return word;
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}", at(50), at(99));
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    times.push(begun.elapsed());
    done
}

/// Terms of one frequent word, of one rare word, and of two words.
fn terms(numbers: &mut Numbers) -> [(&'static str, String); 3] {
    let frequent = letters(numbers.next() % 20);
    let rare = letters(WORDS / 2 + numbers.next() % (WORDS / 2));
    let both = format!("{} {}", letters(numbers.next() % 20), numbers.word());
    [("a frequent word", frequent), ("a rare word", rare), ("two words", both)]
}

async fn whole_search() {
    let rooms = world().await;
    let room = new_room(&rooms).await;
    let mut numbers = Numbers(1);
    for _ in 0..MESSAGES {
        let body = json!({"msgtype": "m.text", "body": numbers.message()});
        say(&rooms, &room, body).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::Folder(folder.path().to_owned());
    let search = Arc::new(Search::open(rooms.clone(), place).await.expect("an index"));
    let begun = Instant::now();
    search.follow().await.expect("it is indexed");
    let rate = MESSAGES as f64 / begun.elapsed().as_secs_f64();
    println!("{MESSAGES} messages of a room: {rate:.0} indexed per second, from the store");
    println!("  {:.1} MB on disk", size(folder.path()) as f64 / 1e6);
    let viewer = Viewer::load(&rooms.env.store.snapshot(), alice(), None).await.expect("a viewer");
    for order in [Order::Recent, Order::Rank] {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut names = [""; 3];
        for _ in 0..SEARCHES {
            for (nth, (name, term)) in terms(&mut numbers).into_iter().enumerate() {
                names[nth] = name;
                let request = request(term, order);
                let begun = Instant::now();
                search.room_events(&viewer, &request).await.expect("results");
                times[nth].push(begun.elapsed());
            }
        }
        for (name, times) in names.into_iter().zip(times) {
            report(&format!("  a whole search, {name}, {order:?}"), times);
        }
    }
}

fn request(term: String, order: Order) -> Request {
    Request {
        term,
        kinds: vec!["m.room.message".to_owned()],
        rooms: None,
        senders: None,
        filter: EventFilter::default(),
        limit: 10,
        order,
        around: None,
        state: StateWanted::None,
        group_by: Default::default(),
        next_batch: None,
    }
}

fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// A hundred rooms, of which the searcher is in ten.
fn index_alone(messages: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::Folder(folder.path().to_owned());
    let index = Index::open(&place, 1, 0).expect("an index");
    let rooms: Vec<OwnedRoomId> =
        (0..100).map(|n| format!("!{n}:bench").try_into().expect("a room ID")).collect();
    let mut numbers = Numbers(2);
    let begun = Instant::now();
    let mut batch = Vec::new();
    for number in 0..messages {
        batch.push(Change::Message(Message {
            room: rooms[(numbers.next() % 100) as usize].clone(),
            number,
            kind: "m.room.message".to_owned(),
            sender: alice().to_owned(),
            sent_ms: number,
            text: numbers.message(),
        }));
        if batch.len() == 1000 {
            index.apply(&batch).expect("taken in");
            batch.clear();
        }
        if number % 50_000 == 49_999 {
            index.commit(Progress::default()).expect("committed");
        }
    }
    index.apply(&batch).expect("taken in");
    index.commit(Progress::default()).expect("committed");
    let rate = messages as f64 / begun.elapsed().as_secs_f64();
    println!("the index alone, {messages} messages: {rate:.0} indexed per second");
    println!("  {:.1} MB on disk", size(folder.path()) as f64 / 1e6);
    for (own, name) in [(10, "ten of a hundred rooms"), (100, "all rooms")] {
        for order in [Order::Recent, Order::Rank] {
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            let mut names = [""; 3];
            for _ in 0..SEARCHES {
                for (nth, (name, term)) in terms(&mut numbers).into_iter().enumerate() {
                    names[nth] = name;
                    let query = Query {
                        terms: Terms::parse(&term).expect("terms"),
                        rooms: rooms[..own].to_vec(),
                        kinds: vec!["m.room.message".to_owned()],
                        senders: None,
                        order,
                    };
                    let found = || index.find(&query, Cursor::Start, 32).expect("hits");
                    timed(&mut times[nth], found);
                }
            }
            for (term, times) in names.into_iter().zip(times) {
                report(&format!("  {term}, {name}, {order:?}"), times);
            }
        }
    }
}

fn people() {
    let folder = tempfile::tempdir().expect("a folder");
    let index = Index::open(&Place::Folder(folder.path().to_owned()), 1, 0).expect("an index");
    let mut numbers = Numbers(3);
    let room = owned_room_id!("!all:bench");
    let begun = Instant::now();
    for chunk in 0..PEOPLE / 1000 {
        let members = (0..1000).map(|n| {
            let number = chunk * 1000 + n;
            let user: OwnedUserId =
                format!("@{}{number}:bench", letters(number)).try_into().expect("a user ID");
            let name = Some(format!("{} {}", numbers.word(), numbers.word()));
            Change::Member(Member { room: room.clone(), user, name, is_public: n % 2 == 0 })
        });
        index.apply(&members.collect::<Vec<_>>()).expect("taken in");
    }
    index.commit(Progress::default()).expect("committed");
    println!("{PEOPLE} people: indexed in {:?}", begun.elapsed());
    println!("  {:.1} MB on disk", size(folder.path()) as f64 / 1e6);
    for len in [1, 3, 6] {
        let mut times = Vec::new();
        for _ in 0..SEARCHES {
            let term: String = letters(numbers.next() % PEOPLE).chars().take(len).collect();
            let query = PeopleQuery { term, rooms: vec![room.clone()] };
            timed(&mut times, || index.people(&query, 0, 256).expect("people"));
        }
        report(&format!("  a name's first {len} letters"), times);
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(whole_search());
    people();
    let messages = std::env::var("MESSAGES").ok().and_then(|messages| messages.parse().ok());
    index_alone(messages.unwrap_or(MESSAGES));
}
