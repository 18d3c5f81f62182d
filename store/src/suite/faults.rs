//! An engine that fails, and power losses in the midst of work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use parking_lot::Mutex;

use super::{
    place::{Random, open_store, seed},
    workload::{Acknowledged, WORKERS, append, verify},
};
use crate::{
    Error, Family, Read, Result, Store, Table, Tx,
    engine::{Engine, EngineSnapshot, MemoryEngine, Write},
    tables,
};

const ROWS: Table<String, u64, u64> = Table::new(9601, "test_fault_rows");

/// A memory engine that fails when it is told to, and takes its time to sync.
#[derive(Default)]
struct Faulty {
    memory: MemoryEngine,
    fails_apply: AtomicBool,
    fails_sync: AtomicBool,
    sync_takes: Duration,
}

fn fault() -> Error {
    Error::Engine("no space left on device".into())
}

impl Engine for Faulty {
    fn snapshot(&self) -> Arc<dyn EngineSnapshot> {
        self.memory.snapshot()
    }

    fn apply(&self, batch: &[Write]) -> Result<()> {
        if self.fails_apply.load(Ordering::SeqCst) {
            Err(fault())
        } else {
            self.memory.apply(batch)
        }
    }

    fn sync(&self) -> Result<()> {
        std::thread::sleep(self.sync_takes);
        if self.fails_sync.load(Ordering::SeqCst) { Err(fault()) } else { self.memory.sync() }
    }
}

async fn write(store: &Store, n: u64) -> Result<()> {
    let body = |tx: Tx| {
        tx.put(&ROWS, "p", n, &n);
        async { Ok(()) }.boxed()
    };
    store.transact(body).await
}

async fn read(store: &Store, n: u64) -> Result<Option<u64>> {
    store.transact(|tx: Tx| async move { tx.get(&ROWS, "p", n).await }.boxed()).await
}

/// Fails a test that would hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

#[tokio::test]
async fn a_failed_write_ends_writing_and_not_reading() {
    let engine = Arc::new(Faulty::default());
    let store = open_store(engine.clone()).await;
    write(&store, 1).await.unwrap();
    engine.fails_apply.store(true, Ordering::SeqCst);
    let failed = soon(write(&store, 2)).await;
    assert!(matches!(&failed, Err(Error::Stopped(why)) if why.contains("no space")), "{failed:?}");
    engine.fails_apply.store(false, Ordering::SeqCst);
    assert!(matches!(soon(write(&store, 3)).await, Err(Error::Stopped(_))), "for good");
    let snapshot = store.snapshot();
    assert_eq!(snapshot.get(&ROWS, "p", 1_u64).await.unwrap(), Some(1));
    assert_eq!(snapshot.get(&ROWS, "p", 2_u64).await.unwrap(), None);
    assert_eq!(soon(read(&store, 1)).await.unwrap(), Some(1));
    store.close().await;
    let store = open_store(engine).await;
    write(&store, 4).await.expect("a new start may write again");
}

#[tokio::test]
async fn what_could_not_be_synced_is_not_acknowledged() {
    let engine = Arc::new(Faulty::default());
    let store = open_store(engine.clone()).await;
    write(&store, 1).await.unwrap();
    let durable = store.snapshot().view().clone();
    engine.fails_sync.store(true, Ordering::SeqCst);
    assert!(matches!(soon(write(&store, 2)).await, Err(Error::Stopped(_))));
    assert_eq!(*store.snapshot().view(), durable, "no view shows it");
    assert_eq!(store.snapshot().get(&ROWS, "p", 2_u64).await.unwrap(), None);
    assert!(matches!(soon(write(&store, 3)).await, Err(Error::Stopped(_))));
    let read = soon(read(&store, 2)).await;
    assert!(matches!(read, Err(Error::Stopped(_))), "it would read what is not durable: {read:?}");
    store.close().await;
    engine.memory.lose_unsynced();
    engine.fails_sync.store(false, Ordering::SeqCst);
    let store = open_store(engine).await;
    assert_eq!(store.snapshot().get(&ROWS, "p", 1_u64).await.unwrap(), Some(1));
    assert_eq!(store.snapshot().get(&ROWS, "p", 2_u64).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_store_shows_when_it_is_opened_is_durable() {
    // A process was killed between writing and syncing; the system still has what it wrote.
    let engine = MemoryEngine::new();
    open_store(Arc::new(engine.clone())).await.close().await;
    let unsynced = tables::write_row(&tables::WRITERS, 0_u16, &7);
    engine.apply(&[unsynced]).unwrap();
    let store = open_store(Arc::new(engine.clone())).await;
    let shown = store.snapshot().view().seq(0);
    store.close().await;
    engine.lose_unsynced();
    let store = open_store(Arc::new(engine)).await;
    assert_eq!(store.snapshot().view().seq(0), shown);
}

#[tokio::test]
async fn a_store_without_a_sound_format_row_is_made_durable_first() {
    let engine = MemoryEngine::new();
    open_store(Arc::new(engine.clone())).await.close().await;
    engine.lose_unsynced();
    let about = engine.snapshot();
    let key = tables::write_row(&tables::ABOUT, "format", &String::new()).key;
    let found = about.get_in_memory(Family::Rows, &key).unwrap().unwrap();
    assert!(found.is_some(), "a new database says what it is before anything is written to it");
}

/// Power fails again and again while many write; each time, what is left is checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_power_loss_in_the_midst_of_work_takes_nothing_acknowledged() {
    let seed = seed();
    println!("MILLRACE_SEED={seed}");
    let mut random = Random(seed);
    let engine = Arc::new(Faulty { sync_takes: Duration::from_micros(300), ..Faulty::default() });
    let store = open_store(engine.clone()).await;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::new()));
    let done = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let (n, seq) = append(&store, worker).await.unwrap();
                    acknowledged.lock().insert((worker, n), seq);
                }
            })
        })
        .collect();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_micros(random.below(4000) as u64)).await;
        // First what is promised, then what is left: a promise in between is not looked for.
        let promised = acknowledged.lock().clone();
        let seen = store.snapshot().view().seq(0);
        let left = open_store(Arc::new(engine.memory.after_power_loss())).await;
        verify(&left, &promised, seen).await;
        left.close().await;
    }
    done.store(true, Ordering::Relaxed);
    for worker in join_all(workers).await {
        worker.unwrap();
    }
    assert!(!acknowledged.lock().is_empty());
}
