//! The store's handle: opening, transactions, snapshots, news.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, mpsc},
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use millrace_model::position::{Position, View};
use parking_lot::Mutex;
use tokio::sync::{RwLock, oneshot, watch};

use crate::{
    Error, Result,
    changes::{Newest, News, Watch, Watchers},
    committer::{Applier, Core, LOG_KEPT, Outcome, Point, Request, Syncer},
    engine::{Engine, RawScan},
    key::{KeyPart, KeyRef},
    one_writer::WRITER,
    read::{Read, Scan, Snapshot, prefix_end},
    table::{Family, Node, Partition, PartitionId, PartitionKey, Table},
    tables,
    transaction::{Limits, Submission, Tx},
    value::Value,
};

/// The format this program reads and writes. Raise it with a migration step in `open`, once there are
/// databases that somebody depends on. 2: every event has its row in `EVENT_ROOMS`.
pub const FORMAT: u32 = 2;

/// A transaction that lost so often runs alone the next time.
const LOSSES_MAX: u32 = 3;
/// Number of locks that partitions share.
const GATES: usize = 256;

/// Everything the server remembers. Clones are handles on the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held for reading by every transaction, for writing by one that lost too often.
    turnstile: RwLock<()>,
    /// See [`Store::transact_in`].
    gates: Vec<tokio::sync::Mutex<()>>,
    limits: Limits,
    numbers: crate::numbers::Numbers,
}

/// One row that a commit changed, from the change index of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub position: Position,
    /// The table's number, `TABLE.info().id`.
    pub table: u16,
    /// The key within the partition, for `TABLE.decode_key`.
    pub key: Vec<u8>,
}

impl Store {
    /// Opens the store on an engine, creating what is missing, as the only writer of it.
    ///
    /// # Errors
    /// [`Error::Format`] and [`Error::ServerName`] where the database is not ours to use.
    pub async fn open(
        engine: Arc<dyn Engine>,
        server_name: &ruma::ServerName,
        limits: Limits,
    ) -> Result<Self> {
        let writer = WRITER;
        // A process that was killed may have left what is written and not yet durable; before it
        // is shown, it has to be.
        engine.sync()?;
        let found = Snapshot { engine: engine.snapshot(), view: View::default() };
        let seq = found.get(&tables::WRITERS, Node, writer).await?.unwrap_or(0);
        identify(&*engine, &found, server_name).await?;
        let point = Arc::new(Point { engine: engine.snapshot(), seq });
        let core = Arc::new(Core {
            engine,
            writer,
            applied: ArcSwap::new(Arc::clone(&point)),
            durable: ArcSwap::new(point),
            durable_seq: watch::Sender::new(seq),
            newest: Newest::new(seq),
            watchers: Arc::default(),
            stopped: OnceLock::new(),
        });
        let (requests, threads) = spawn_committer(&core, seq)?;
        let shared = Shared {
            core,
            requests: Mutex::new(Some(requests)),
            threads: Mutex::new(threads),
            turnstile: RwLock::default(),
            gates: std::iter::repeat_with(Default::default).take(GATES).collect(),
            limits,
            numbers: crate::numbers::Numbers::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Finishes what was submitted and ends the committer. Later commits fail. Call it before
    /// opening the same database again in this process.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let _ = tokio::task::spawn_blocking(move || shared.end()).await;
    }

    /// Runs `body` as one atomic, serialisable transaction and returns when it is durable.
    ///
    /// `body` runs again when another commit changed what it had read, so it must not have other
    /// effects; it must not start another transaction. `Ok` commits, `Err` writes nothing. It
    /// returns a boxed future (`.boxed()`), as the compiler cannot yet see through a borrowing
    /// closure that its future can be sent between threads.
    ///
    /// # Errors
    /// What `body` returns, and the store's own failures.
    pub async fn transact<'a, T, E, F>(&self, body: F) -> Result<T, E>
    where
        E: From<Error>,
        F: Fn(Tx) -> BoxFuture<'a, Result<T, E>>,
    {
        let (out, durable) = self.apply(&body).await?;
        self.settle(durable).await?;
        Ok(out)
    }

    /// As [`Store::transact`], one at a time for each `partition`: for transactions of which many
    /// at once would all read and write the same head, as sends to one room do.
    ///
    /// # Errors
    /// As [`Store::transact`].
    pub async fn transact_in<'a, P, T, E, F>(
        &self,
        partition: impl KeyRef<P>,
        body: F,
    ) -> Result<T, E>
    where
        P: Partition,
        E: From<Error>,
        F: Fn(Tx) -> BoxFuture<'a, Result<T, E>>,
    {
        let PartitionId(hash) = PartitionId::of::<P>(&partition);
        let gate = &self.shared.gates[usize::try_from(hash % GATES as u64).unwrap_or(0)];
        let turn = gate.lock().await;
        let (out, durable) = self.apply(&body).await?;
        // The next one may read what is applied, and does not wait for the disk.
        drop(turn);
        self.settle(durable).await?;
        Ok(out)
    }

    async fn apply<'a, T, E, F>(&self, body: &F) -> Result<(T, Durable), E>
    where
        E: From<Error>,
        F: Fn(Tx) -> BoxFuture<'a, Result<T, E>>,
    {
        let mut losses = 0;
        loop {
            let alone = losses >= LOSSES_MAX;
            let shared_turn = if alone { None } else { Some(self.shared.turnstile.read().await) };
            let lone_turn = if alone { Some(self.shared.turnstile.write().await) } else { None };
            let applied = self.shared.core.applied.load_full();
            let view = self.shared.core.view(applied.seq);
            let tx = Tx::new(Arc::clone(&applied.engine), view, applied.seq);
            let out = body(tx.clone()).await?;
            let Some(submission) = tx.finish(&self.shared.limits)? else {
                return Ok((out, Durable::At(tx.base_seq())));
            };
            let (outcome, durable) = self.submit(submission).await?;
            drop((shared_turn, lone_turn));
            match outcome {
                Outcome::Applied => return Ok((out, Durable::Told(durable))),
                Outcome::Lost => losses += 1,
            }
        }
    }

    async fn submit(
        &self,
        submission: Submission,
    ) -> Result<(Outcome, oneshot::Receiver<Result<()>>)> {
        let (applied, applied_rx) = oneshot::channel();
        let (durable, durable_rx) = oneshot::channel();
        let request = Request { submission, applied, durable };
        {
            let requests = self.shared.requests.lock();
            let sender = requests.as_ref().ok_or_else(closed)?;
            sender.send(request).map_err(|_| closed())?;
        }
        Ok((applied_rx.await.map_err(|_| closed())??, durable_rx))
    }

    async fn settle(&self, durable: Durable) -> Result<()> {
        match durable {
            Durable::Told(told) => told.await.map_err(|_| closed())?,
            Durable::At(seq) => {
                let core = &self.shared.core;
                let mut reached = core.durable_seq.subscribe();
                let is_settled = |durable: &u64| *durable >= seq || core.stopped.get().is_some();
                let durable = *reached.wait_for(is_settled).await.map_err(|_| closed())?;
                match core.stopped.get() {
                    Some(reason) if durable < seq => Err(Error::Stopped(Arc::clone(reason))),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The newest durable picture of everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let durable = self.shared.core.durable.load_full();
        let view = self.shared.core.view(durable.seq);
        Snapshot { engine: Arc::clone(&durable.engine), view }
    }

    /// Which of `partitions` may have news after `since`, as indexes into the slice. One look-up
    /// in memory each.
    #[must_use]
    pub fn news(&self, partitions: &[PartitionId], since: &View) -> Vec<usize> {
        self.shared.core.newest.after(partitions, since.seq(self.shared.core.writer))
    }

    /// Whether one partition may have news after `since`.
    #[must_use]
    pub fn news_of(&self, partition: PartitionId, since: &View) -> News {
        if self.news(&[partition], since).is_empty() { News::None } else { News::Maybe }
    }

    /// Begins to watch partitions for commits (and for what else is announced to
    /// [`Store::watchers`]).
    #[must_use]
    pub fn watch(&self, partitions: Vec<PartitionId>) -> Watch {
        self.shared.core.watchers.watch(partitions)
    }

    /// Where what is not durable, such as typing, announces itself.
    #[must_use]
    pub fn watchers(&self) -> &Arc<Watchers> {
        &self.shared.core.watchers
    }

    /// Tells the seq of the newest durable commit, to followers of all that is written.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.shared.core.durable_seq.subscribe()
    }

    /// A new event number, never given before, also not before a restart.
    ///
    /// # Errors
    /// Where no block of numbers can be reserved.
    pub async fn next_event_number(&self) -> Result<u64> {
        self.shared.numbers.next(self).await
    }
}

impl Snapshot {
    /// Rows of synced tables in `partition` that changed after `since`, newest first, at most
    /// `limit`. A row that changed twice is listed twice.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn changes<P: Partition>(
        &self,
        partition: impl KeyRef<P>,
        since: &View,
        limit: usize,
    ) -> Result<Vec<Change>> {
        let partition = PartitionKey::of::<P>(&partition);
        let mut changes = Vec::new();
        for Position { writer, seq: newest } in self.view.iter() {
            let after = since.seq(writer);
            if after >= newest {
                continue;
            }
            let start = tables::change_key(&partition.0, Position { writer, seq: after + 1 });
            let end =
                prefix_end(tables::change_key(&partition.0, Position { writer, seq: newest }));
            let scan = RawScan { family: Family::Changes, start, end, reverse: true, limit };
            for (key, value) in self.engine.scan(scan).await? {
                let position = change_position(&key);
                let rows = tables::listed_changes(&value);
                let (position, rows) = position.zip(rows).ok_or_else(|| Error::Malformed {
                    table: "changes",
                    reason: "not a list of rows".into(),
                })?;
                changes.extend(rows.into_iter().map(|(table, key)| Change {
                    position,
                    table,
                    key,
                }));
            }
        }
        changes.truncate(limit);
        Ok(changes)
    }
}

impl Snapshot {
    /// The partitions that have news after `since`, each once; `None` where the log of commits no
    /// longer reaches back so far, so that whoever follows has to look at all partitions.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn touched(&self, since: &View) -> Result<Option<BTreeSet<PartitionKey>>> {
        let mut touched = BTreeSet::new();
        for Position { writer, seq: newest } in self.view.iter() {
            let after = since.seq(writer);
            if after >= newest {
                continue;
            }
            if newest - after > LOG_KEPT {
                return Ok(None);
            }
            let scan = Scan::all().after((writer, after)).up_to((writer, newest));
            let rows = self.scan(&tables::LOG, Node, scan).await?;
            if rows.len() as u64 != newest - after {
                return Ok(None);
            }
            for (_, listed) in rows {
                let partitions = tables::listed_partitions(&listed).ok_or_else(|| {
                    Error::Malformed { table: "log", reason: "not a list of partitions".into() }
                })?;
                touched.extend(partitions);
            }
        }
        Ok(Some(touched))
    }

    /// The partitions that have rows of `table`, in order, at most `limit`, from behind `after` on:
    /// for work that goes through everything. It reads past all rows of the table, so it is meant
    /// for tables with one row in each partition.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn partitions<P: Partition + KeyRef<P> + PartialEq, K: KeyPart, V: Value>(
        &self,
        table: &'static Table<P, K, V>,
        after: Option<&P>,
        limit: usize,
    ) -> Result<Vec<P>> {
        let whole = table.kind_prefix();
        let start =
            after.map_or_else(|| whole.clone(), |after| prefix_end(table.partition_prefix(after)));
        let (family, end) = (table.info().family, prefix_end(whole.clone()));
        let scan = RawScan { family, start, end, reverse: false, limit };
        let mut partitions = Vec::new();
        for (key, _) in self.engine.scan(scan).await? {
            let partition = P::decode(&mut &key[whole.len()..]);
            let malformed = || table.malformed("its partition");
            let partition = partition.ok_or_else(malformed)?;
            if partitions.last() != Some(&partition) {
                partitions.push(partition);
            }
        }
        Ok(partitions)
    }
}

fn change_position(key: &[u8]) -> Option<Position> {
    let (rest, seq) = key.split_last_chunk()?;
    let (_, writer) = rest.split_last_chunk()?;
    Some(Position { writer: u16::from_be_bytes(*writer), seq: u64::from_be_bytes(*seq) })
}

/// How a transaction learns that it is durable.
enum Durable {
    Told(oneshot::Receiver<Result<()>>),
    /// It wrote nothing, but what it read may not have been durable yet.
    At(u64),
}

fn closed() -> Error {
    Error::Stopped("the store is closed".into())
}

impl Shared {
    fn end(&self) {
        drop(self.requests.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn_committer(
    core: &Arc<Core>,
    seq: u64,
) -> Result<(mpsc::Sender<Request>, Vec<JoinHandle<()>>)> {
    let (requests, requests_rx) = mpsc::channel();
    let (groups, groups_rx) = mpsc::channel();
    let applier = Applier::new(Arc::clone(core), seq);
    let syncer = Syncer { core: Arc::clone(core) };
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map_err(|error| Error::Engine(error.to_string().into()))
    };
    Ok((
        requests,
        vec![
            spawn("store-apply", Box::new(move || applier.run(&requests_rx, &groups)))?,
            spawn("store-sync", Box::new(move || syncer.run(&groups_rx)))?,
        ],
    ))
}

/// Checks that the database is of a known format and of this server, or makes it so.
async fn identify(
    engine: &dyn Engine,
    found: &Snapshot,
    server_name: &ruma::ServerName,
) -> Result<()> {
    let format = found.get(&tables::ABOUT, Node, "format").await?;
    let Some(format) = format else {
        let about = |key: &str, value: String| tables::write_row(&tables::ABOUT, key, &value);
        engine.apply(&[
            about("format", FORMAT.to_string()),
            about("server_name", server_name.to_string()),
        ])?;
        return engine.sync();
    };
    let format = format.parse().unwrap_or(u32::MAX);
    if format != FORMAT {
        return Err(Error::Format { found: format, known: FORMAT });
    }
    let name = found.get(&tables::ABOUT, Node, "server_name").await?.unwrap_or_default();
    if name != server_name.as_str() {
        return Err(Error::ServerName { found: name, configured: server_name.to_string() });
    }
    Ok(())
}
