//! Where tests keep a database, and what a power loss does to it.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fs::{self, File},
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    Result, Store,
    engine::{Engine, EngineSnapshot, MemoryEngine, RocksEngine, RocksOptions, Write},
    transaction::Limits,
};

/// The engines there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Rocks,
}

/// A database that can be opened again and again.
pub(crate) struct Place {
    seed: u64,
    content: Content,
}

enum Content {
    Memory(MemoryEngine),
    Rocks(tempfile::TempDir),
}

impl Place {
    pub fn new(kind: Kind) -> Self {
        let content = match kind {
            Kind::Memory => Content::Memory(MemoryEngine::new()),
            Kind::Rocks => Content::Rocks(tempfile::tempdir().unwrap()),
        };
        let seed = seed();
        // Shown where the test fails.
        println!("MILLRACE_SEED={seed}");
        Self { seed, content }
    }

    /// Random numbers that the test's output can repeat.
    pub fn random(&self) -> Random {
        Random(self.seed)
    }

    pub fn folder(&self) -> Option<&Path> {
        match &self.content {
            Content::Memory(_) => None,
            Content::Rocks(folder) => Some(folder.path()),
        }
    }

    pub fn try_open(&self) -> Result<Arc<dyn Engine>> {
        Ok(match &self.content {
            Content::Memory(engine) => Arc::new(engine.clone()),
            Content::Rocks(folder) => Arc::new(Watched::open(folder.path())?),
        })
    }

    pub fn open(&self) -> Arc<dyn Engine> {
        self.try_open().unwrap()
    }

    pub async fn store(&self) -> Store {
        open_store(self.open()).await
    }

    /// What a power loss leaves of it. Nobody has it open.
    pub fn lose_unsynced(&self) {
        match &self.content {
            Content::Memory(engine) => engine.lose_unsynced(),
            Content::Rocks(folder) => truncate_log(folder.path()).unwrap(),
        }
    }
}

pub(crate) async fn open_store(engine: Arc<dyn Engine>) -> Store {
    Store::open(engine, ruma::server_name!("example.org"), Limits::default()).await.unwrap()
}

/// The seed of this run: of the environment, to repeat one, or another each time.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("MILLRACE_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// A small generator of random numbers (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// RocksDB, with a note beside it of how much of its logs was synced.
pub(crate) struct Watched {
    rocks: RocksEngine,
    folder: PathBuf,
    syncing: Mutex<()>,
}

/// Where the note lies, in the database's folder.
const NOTE: &str = "synced.note";

impl Watched {
    pub fn open(folder: &Path) -> Result<Self> {
        let options = RocksOptions { write_buffer_bytes: 2 << 20, ..RocksOptions::default() };
        let rocks = RocksEngine::open(folder, &options)?;
        Ok(Self { rocks, folder: folder.to_owned(), syncing: Mutex::new(()) })
    }
}

impl Engine for Watched {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        self.rocks.snapshot()
    }

    fn apply(&self, batch: &[Write]) -> Result<()> {
        self.rocks.apply(batch)
    }

    fn sync(&self) -> Result<()> {
        let _one = self.syncing.lock();
        // What is in the files before the call is what the call makes durable.
        let lengths = log_lengths(&self.folder).unwrap();
        self.rocks.sync()?;
        let note: Vec<_> =
            lengths.iter().map(|(log, len)| format!("{} {len}\n", log.display())).collect();
        let fresh = self.folder.join("synced.new");
        fs::write(&fresh, note.concat()).unwrap();
        fs::rename(fresh, self.folder.join(NOTE)).unwrap();
        Ok(())
    }
}

fn log_lengths(folder: &Path) -> io::Result<HashMap<PathBuf, u64>> {
    let mut lengths = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            // A log that was removed meanwhile is no longer needed.
            if let Ok(about) = fs::metadata(&path) {
                lengths.insert(path, about.len());
            }
        }
    }
    Ok(lengths)
}

/// Cuts the newest log to what was synced. Older logs are left: the system may have written them.
pub(crate) fn truncate_log(folder: &Path) -> io::Result<()> {
    let note = fs::read_to_string(folder.join(NOTE)).unwrap_or_default();
    let synced: HashMap<_, _> = note
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(log, len)| Some((PathBuf::from(log), len.parse::<u64>().ok()?)))
        .collect();
    let Some(newest) = log_lengths(folder)?.into_keys().max() else { return Ok(()) };
    let len = synced.get(&newest).copied().unwrap_or(0);
    File::options().write(true).open(newest)?.set_len(len)
}

/// Makes a test of each function for each engine. Each takes a [`Place`].
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    let kind = $crate::suite::place::Kind::Memory;
                    super::$name($crate::suite::place::Place::new(kind)).await;
                }
            )*
        }
        mod rocks {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    let kind = $crate::suite::place::Kind::Rocks;
                    super::$name($crate::suite::place::Place::new(kind)).await;
                }
            )*
        }
    };
}
pub(crate) use on_every_engine;
