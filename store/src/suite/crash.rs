//! A writer is killed at random moments, many times over, and a power loss is simulated after it.
//!
//! The writer is this test binary, run again for [`writer`] alone. It prints what it was told to
//! be durable; after its end, all of that has to be in the database.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{
    place::{Kind, Place, Random, Watched, open_store},
    workload::{Acknowledged, WORKERS, append, verify},
};

/// Where the writer finds its database.
const FOLDER: &str = "MILLRACE_CRASH_FOLDER";
const KILLS: usize = 30;
const POWER_LOSSES: usize = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the writer that the crash tests start and kill"]
async fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = open_store(Arc::new(Watched::open(Path::new(&folder)).unwrap())).await;
    say(&format!("ready {}", store.snapshot().view().seq(0)));
    let workers = (0..WORKERS).map(|worker| {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let (n, seq) = append(&store, worker).await.unwrap();
                say(&format!("written {worker} {n} {seq}"));
            }
        })
    });
    futures::future::join_all(workers).await;
}

/// Past the test harness, which would keep what is printed.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "suite::crash::writer", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the writer said so far.
#[derive(Default)]
struct Heard {
    acknowledged: Acknowledged,
    /// The newest seq it saw.
    seen: u64,
}

impl Heard {
    fn line(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let is_ack = match words.next() {
            Some("ready") => false,
            Some("written") => true,
            _ => return false,
        };
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match numbers[..] {
            [seq] if !is_ack => self.seen = self.seen.max(seq),
            [worker, n, seq] if is_ack => {
                let before = self.acknowledged.insert((worker, n), seq);
                assert_eq!(before, None, "entry {n} of {worker} was written before");
                self.seen = self.seen.max(seq);
            }
            _ => return false, // Cut off by the kill: nobody was told.
        }
        is_ack
    }
}

/// Lets a writer run for a random while, kills it and adds what it said.
fn run_and_kill(folder: &Path, random: &mut Random, heard: &mut Heard) {
    let mut child = start(folder);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    if random.below(5) == 0 {
        // While it starts, perhaps.
        std::thread::sleep(Duration::from_millis(random.below(80) as u64));
    } else {
        let acks = random.below(200);
        let mut line = String::new();
        let mut left = acks;
        while left > 0 && lines.read_line(&mut line).unwrap() > 0 {
            left -= usize::from(heard.line(line.trim_end()));
            line.clear();
        }
        assert_eq!(left, 0, "the writer ended by itself");
        std::thread::sleep(Duration::from_micros(random.below(4000) as u64));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    hear_the_rest(lines, heard);
}

fn hear_the_rest(mut lines: BufReader<ChildStdout>, heard: &mut Heard) {
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    // A last line without its end may lack digits.
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    for line in whole.lines() {
        heard.line(line);
    }
}

async fn crash(rounds: usize, after: impl Fn(&Place)) {
    let place = Place::new(Kind::Rocks);
    let mut random = place.random();
    let mut heard = Heard { acknowledged: BTreeMap::new(), seen: 0 };
    for round in 0..rounds {
        run_and_kill(place.folder().unwrap(), &mut random, &mut heard);
        after(&place);
        println!("round {round}: {} acknowledged", heard.acknowledged.len());
        let store = place.store().await;
        verify(&store, &heard.acknowledged, heard.seen).await;
        heard.seen = store.snapshot().view().seq(0);
        store.close().await;
    }
    assert!(!heard.acknowledged.is_empty());
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_acknowledged() {
    crash(KILLS, |_| {}).await;
}

#[tokio::test]
async fn a_power_loss_takes_nothing_acknowledged() {
    crash(POWER_LOSSES, Place::lose_unsynced).await;
}
