//! What benchmarks of the whole server share: a server on RocksDB, and what this process uses.

use std::{sync::Arc, time::Duration};

use millrace_federation::Transport;
use millrace_store::engine::{RocksEngine, RocksOptions};
use tempfile::TempDir;

use crate::{Network, TestClock, TestServer};

/// Ticks of the system's clock for processor time in a second: always so many on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A server on a RocksDB of its own, which is removed in the end.
pub struct BenchServer {
    /// The server; its name is `one`.
    pub server: TestServer,
    _folder: TempDir,
}

impl BenchServer {
    /// A server that reaches others over `transport`.
    ///
    /// # Panics
    /// Where there is no place for a database.
    pub async fn start(clock: TestClock, transport: Arc<dyn Transport>) -> Self {
        let folder = TempDir::with_prefix("millrace-bench-").expect("a folder");
        let engine = RocksEngine::open(folder.path(), &RocksOptions::default());
        let engine = Arc::new(engine.expect("a database"));
        let mut config = TestServer::config();
        config.server.server_name = "one".to_owned();
        let server = TestServer::start_between(engine, &config, clock, transport).await;
        Self { server, _folder: folder }
    }

    /// A server in a network.
    ///
    /// # Panics
    /// Where there is no place for a database.
    pub async fn start_in(network: &Network) -> Self {
        let started = Self::start(network.clock.clone(), network.transport("one")).await;
        network.enter("one", started.server.router.clone());
        started
    }
}

/// What is told of a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// What it has now.
    Resident,
    /// The most that it had since [`reset_peak`].
    Peak,
}

/// Memory of this process, in KiB; 0 where the system does not tell.
#[must_use]
pub fn memory_kib(which: Memory) -> u64 {
    let field = match which {
        Memory::Resident => "VmRSS:",
        Memory::Peak => "VmHWM:",
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

/// From now on the peak of memory is counted anew.
pub fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").ok();
}

/// Processor time that this process has used; none where the system does not tell.
#[must_use]
pub fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets come fields 3 and on; 14 and 15 are user and system time, in ticks.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}
