//! A workload whose every commit can be checked afterwards.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;

use crate::{Error, Family, Node, Position, Read, Scan, Store, Table, Tx, View, tables};

const HEAD: Table<String, (), u64> = Table::new(9501, "test_ledger_head");
const LEDGER: Table<String, u64, u64> = Table::synced(9502, "test_ledger").guarded_by(&HEAD);
const BODIES: Table<String, u64, Vec<u8>> =
    Table::new(9503, "test_bodies").in_family(Family::Bodies);
const TOTAL: Table<String, (), u64> = Table::new(9504, "test_total");

/// How many append at once, each to a ledger of its own.
pub(crate) const WORKERS: u64 = 6;
/// Every so many entries a worker counts in a row that all share.
const COUNTED_EACH: u64 = 4;

/// Entries that were acknowledged: `(worker, n) -> seq`.
pub(crate) type Acknowledged = BTreeMap<(u64, u64), u64>;

fn body_of(worker: u64, n: u64) -> Vec<u8> {
    let len = (worker * 7919 + n * 104_729) % 2000;
    vec![(worker ^ n) as u8; len as usize]
}

fn mark_of(worker: u64, n: u64) -> u64 {
    worker << 32 | n
}

/// Appends the next entry of a worker's ledger and returns its number and seq.
pub(crate) async fn append(store: &Store, worker: u64) -> crate::Result<(u64, u64)> {
    let body = |tx: Tx| {
        async move {
            let ledger = worker.to_string();
            let n = tx.get(&HEAD, &ledger, ()).await?.unwrap_or(0) + 1;
            tx.put(&HEAD, &ledger, (), &n);
            tx.put(&LEDGER, &ledger, n, &mark_of(worker, n));
            tx.put(&BODIES, &ledger, n, &body_of(worker, n));
            if n % COUNTED_EACH == 0 {
                let total = tx.get(&TOTAL, "all", ()).await?.unwrap_or(0);
                tx.put(&TOTAL, "all", (), &(total + 1));
            }
            Ok::<_, Error>(n)
        }
        .boxed()
    };
    let n = store.transact(body).await?;
    let entry = store.snapshot().get_stamped(&LEDGER, worker.to_string(), n).await?;
    let (position, _) = entry.expect("what is answered can be read");
    Ok((n, position.seq))
}

/// Checks a store that was opened after a fault: what was acknowledged is there, nothing is half
/// written, and each position belongs to one commit. `seen` is the newest seq of a view that
/// anybody has seen.
pub(crate) async fn verify(store: &Store, acknowledged: &Acknowledged, seen: u64) {
    let snapshot = store.snapshot();
    let newest = snapshot.view().seq(0);
    assert!(newest >= seen, "a view went back from {seen} to {newest}");
    let mut seqs = BTreeSet::new();
    let mut counted = 0;
    for worker in 0..WORKERS {
        let ledger = worker.to_string();
        let head = snapshot.get(&HEAD, &ledger, ()).await.unwrap().unwrap_or(0);
        counted += head / COUNTED_EACH;
        let entries = snapshot.scan_stamped(&LEDGER, &ledger, Scan::all()).await.unwrap();
        let bodies = snapshot.scan(&BODIES, &ledger, Scan::all()).await.unwrap();
        assert_eq!(entries.len() as u64, head, "entries of ledger {worker} and its head");
        assert_eq!(bodies.len() as u64, head, "bodies of ledger {worker} and its head");
        for (n, (entry, (body_n, body))) in (1..).zip(entries.iter().zip(&bodies)) {
            let (entry_n, position, mark) = entry;
            assert_eq!((*entry_n, *body_n, *mark), (n, n, mark_of(worker, n)));
            assert_eq!(*body, body_of(worker, n));
            assert!(seqs.insert(position.seq), "seq {} belongs to two commits", position.seq);
            if let Some(seq) = acknowledged.get(&(worker, n)) {
                assert_eq!(position.seq, *seq, "the position of entry {n} of ledger {worker}");
            }
        }
        let last = acknowledged.range((worker, 0)..=(worker, u64::MAX)).next_back();
        let last = last.map_or(0, |((_, n), _)| *n);
        assert!(head >= last, "ledger {worker} ends at {head}, {last} was acknowledged");
        let changes = snapshot.changes::<String>(&ledger, &View::default(), usize::MAX).await;
        let changed: Vec<_> = (changes.unwrap().iter().rev())
            .map(|change| (LEDGER.decode_key(&change.key).unwrap(), change.position))
            .collect();
        let written: Vec<(u64, Position)> =
            entries.iter().map(|(n, position, _)| (*n, *position)).collect();
        assert_eq!(changed, written, "the change index of ledger {worker}");
    }
    assert_eq!(snapshot.get(&TOTAL, "all", ()).await.unwrap().unwrap_or(0), counted);
    assert!(seqs.iter().copied().eq(1..=newest), "each seq up to {newest} is of one commit");
    let log = snapshot.scan(&tables::LOG, Node, Scan::all()).await.unwrap();
    let logged: Vec<_> = log.into_iter().map(|((_, seq), _)| seq).collect();
    let first = logged.first().copied().unwrap_or(newest + 1);
    assert!(logged.into_iter().eq(first..=newest), "the log has no gaps");
}
