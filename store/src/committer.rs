//! Group commit: all transactions of a node go through one committer.
//!
//! Two threads share the work. The *applier* collects the transactions that wait, checks what
//! they read, gives each its position, writes all as one batch and makes the result visible to
//! new transactions. The *syncer* makes batches durable and only then tells clients, views and
//! waiters. So a busy room is not held up by the disk, and many senders share one fsync.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock, mpsc},
};

use arc_swap::ArcSwap;
use millrace_model::position::{Position, View};
use rustc_hash::FxHashMap;
use tokio::sync::{oneshot, watch};

use crate::{
    Error, Result,
    changes::{Newest, Watchers},
    engine::{Engine, EngineSnapshot, Write},
    read::encode_stamp,
    table::{Family, PartitionId, hash_bytes},
    tables,
    transaction::Submission,
};

/// So many transactions are committed as one batch at most.
const GROUP_MAX: usize = 256;
/// So many keys' last writes are remembered to find conflicts; a transaction older than what is
/// remembered runs again.
const REMEMBERED_MAX: usize = 1 << 18;
/// Commit log rows older than so many commits are deleted as new ones are written.
pub(crate) const LOG_KEPT: u64 = 10_000;

/// A transaction on its way to the committer.
pub(crate) struct Request {
    pub submission: Submission,
    /// Told when it is applied, or that it lost against another and has to run again.
    pub applied: oneshot::Sender<Result<Outcome>>,
    /// Told when it is durable.
    pub durable: oneshot::Sender<Result<()>>,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Lost,
}

/// A picture of the engine after some commit.
pub(crate) struct Point {
    pub engine: Arc<dyn EngineSnapshot>,
    pub seq: u64,
}

/// A batch that is applied and waits to become durable.
pub(crate) struct Group {
    point: Arc<Point>,
    changed: Vec<(PartitionId, u64)>,
    acknowledge: Vec<oneshot::Sender<Result<()>>>,
}

/// The last write of recently written keys.
struct LastWrites {
    /// Writes at or before this are forgotten.
    floor: u64,
    by_key: FxHashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl LastWrites {
    fn allow(&self, submission: &Submission) -> bool {
        let base = submission.base_seq;
        base >= self.floor
            && submission
                .reads
                .iter()
                .all(|key| self.by_key.get(key).is_none_or(|written| *written <= base))
    }

    fn record(&mut self, key: u64, seq: u64) {
        self.by_key.insert(key, seq);
        self.order.push_back((seq, key));
        while self.order.len() > REMEMBERED_MAX {
            let Some((seq, key)) = self.order.pop_front() else { break };
            self.floor = seq;
            if self.by_key.get(&key) == Some(&seq) {
                self.by_key.remove(&key);
            }
        }
    }
}

/// The first thread: gives transactions their order.
pub(crate) struct Applier {
    core: Arc<Core>,
    last_writes: LastWrites,
    seq: u64,
}

impl Applier {
    pub fn new(core: Arc<Core>, seq: u64) -> Self {
        // Nobody can hold a snapshot from before the start, so nothing older can conflict.
        let last_writes =
            LastWrites { floor: seq, by_key: FxHashMap::default(), order: VecDeque::new() };
        Self { core, last_writes, seq }
    }

    /// Runs until every sender of requests is gone or writing has failed.
    pub fn run(mut self, requests: &mpsc::Receiver<Request>, groups: &mpsc::Sender<Group>) {
        while let Ok(first) = requests.recv() {
            let mut waiting = vec![first];
            waiting.extend(requests.try_iter().take(GROUP_MAX - 1));
            if let Some(reason) = self.core.stopped.get() {
                refuse(waiting, reason);
            } else if let Some(group) = self.apply(waiting) {
                // The syncer ends only after this thread, so it is there to receive.
                let _ = groups.send(group);
            }
        }
    }

    fn apply(&mut self, waiting: Vec<Request>) -> Option<Group> {
        let mut batch = Vec::new();
        let mut changed = Vec::new();
        let mut accepted = Vec::new();
        for request in waiting {
            if !self.last_writes.allow(&request.submission) {
                let _ = request.applied.send(Ok(Outcome::Lost));
                continue;
            }
            self.seq += 1;
            let partitions = self.position(request.submission, &mut batch);
            changed.extend(partitions.into_iter().map(|partition| (partition, self.seq)));
            accepted.push((request.applied, request.durable));
        }
        if accepted.is_empty() {
            return None;
        }
        batch.push(tables::write_row(&tables::WRITERS, self.core.writer, &self.seq));
        if let Err(error) = self.core.engine.apply(&batch) {
            let reason = self.core.stop(&error);
            for (applied, _) in accepted {
                let _ = applied.send(Err(Error::Stopped(Arc::clone(&reason))));
            }
            return None;
        }
        let point = Arc::new(Point { engine: self.core.engine.snapshot(), seq: self.seq });
        self.core.applied.store(Arc::clone(&point));
        let acknowledge = accepted
            .into_iter()
            .map(|(applied, durable)| {
                let _ = applied.send(Ok(Outcome::Applied));
                durable
            })
            .collect();
        Some(Group { point, changed, acknowledge })
    }

    /// Fills the position into a submission's rows and adds its change index and log rows.
    /// Returns the partitions in which `/sync` has news.
    fn position(&mut self, submission: Submission, batch: &mut Vec<Write>) -> Vec<PartitionId> {
        let position = Position { writer: self.core.writer, seq: self.seq };
        let mut changes: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for ((family, key), mut write) in submission.writes {
            self.last_writes.record(hash_bytes(&key), self.seq);
            if write.synced {
                if let Some(value) = &mut write.value {
                    encode_stamp(position, value);
                }
                let listed = changes.entry(key[2..write.split].to_vec()).or_default();
                tables::list_change(listed, &key[..2], &key[write.split..]);
            }
            batch.push(Write { family, key, value: write.value });
        }
        let mut log = Vec::new();
        let mut touched = Vec::with_capacity(changes.len() + submission.touched.len());
        for partition in submission.touched {
            if !changes.contains_key(&*partition.0) {
                touched.push(partition.id());
                tables::list_partition(&mut log, &partition.0);
            }
        }
        for (partition, rows) in changes {
            touched.push(PartitionId::of_bytes(&partition));
            tables::list_partition(&mut log, &partition);
            let key = tables::change_key(&partition, position);
            batch.push(Write { family: Family::Changes, key, value: Some(rows) });
        }
        batch.push(tables::write_row(&tables::LOG, (position.writer, position.seq), &log));
        if let Some(expired) = position.seq.checked_sub(LOG_KEPT) {
            batch.push(tables::delete_row(&tables::LOG, (position.writer, expired)));
        }
        touched
    }
}

fn refuse(waiting: Vec<Request>, reason: &Arc<str>) {
    for request in waiting {
        let _ = request.applied.send(Err(Error::Stopped(Arc::clone(reason))));
    }
}

/// The second thread: makes batches durable, then announces them.
pub(crate) struct Syncer {
    pub core: Arc<Core>,
}

impl Syncer {
    /// Runs until the applier has ended and everything it applied is settled.
    pub fn run(self, groups: &mpsc::Receiver<Group>) {
        while let Ok(first) = groups.recv() {
            let mut batch = vec![first];
            batch.extend(groups.try_iter());
            match self.core.engine.sync() {
                Ok(()) => self.publish(batch),
                Err(error) => {
                    let reason = self.core.stop(&error);
                    for acknowledge in batch.into_iter().flat_map(|group| group.acknowledge) {
                        let _ = acknowledge.send(Err(Error::Stopped(Arc::clone(&reason))));
                    }
                }
            }
        }
    }

    fn publish(&self, groups: Vec<Group>) {
        let Some(newest) = groups.last().map(|group| Arc::clone(&group.point)) else { return };
        let seq = newest.seq;
        let changed: Vec<_> = groups.iter().flat_map(|group| &group.changed).copied().collect();
        // First what changed, then the view: a reader of the new view must not find an old answer.
        self.core.newest.record(changed.iter().copied(), seq);
        self.core.durable.store(newest);
        self.core.watchers.announce(changed.into_iter().map(|(partition, _)| partition));
        self.core.durable_seq.send_replace(seq);
        for acknowledge in groups.into_iter().flat_map(|group| group.acknowledge) {
            let _ = acknowledge.send(Ok(()));
        }
    }
}

/// What the committer's threads and the store's handles share.
pub(crate) struct Core {
    pub engine: Arc<dyn Engine>,
    pub writer: u16,
    /// Newest picture for transactions; may be ahead of the disk.
    pub applied: ArcSwap<Point>,
    /// Newest picture for views.
    pub durable: ArcSwap<Point>,
    pub durable_seq: watch::Sender<u64>,
    pub newest: Newest,
    pub watchers: Arc<Watchers>,
    /// Why writing has stopped, if it has.
    pub stopped: OnceLock<Arc<str>>,
}

impl Core {
    /// The view that ends with commit `seq`.
    pub fn view(&self, seq: u64) -> View {
        View::at(Position { writer: self.writer, seq })
    }

    /// After a failed write nobody can know what is on the disk, so nothing more is written.
    fn stop(&self, error: &Error) -> Arc<str> {
        let reason = self.stopped.get_or_init(|| error.to_string().into());
        tracing::error!(%reason, "writing to the database failed; restart after mending it");
        // Whoever waits for what will not become durable has to hear of it.
        self.durable_seq.send_modify(|_| ());
        Arc::clone(reason)
    }
}
