//! Positions: without gaps, never given twice, and every change is found by them.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, future::join_all};

use super::place::{Place, Random, on_every_engine};
use crate::{
    Error, News, Node, PartitionId, PartitionKey, Position, Read, Scan, Store, Table, Tx, View,
    tables,
};

const NOTES: Table<String, u64, u64> = Table::synced(9201, "test_notes");
const OTHERS: Table<String, u64, u64> = Table::synced(9202, "test_others");
const QUIET: Table<String, u64, u64> = Table::new(9203, "test_quiet");

async fn note(store: &Store, partition: &str, key: u64) {
    let body = |tx: Tx| {
        tx.put(&NOTES, partition, key, &key);
        async { Ok::<_, Error>(()) }.boxed()
    };
    store.transact(body).await.unwrap();
}

/// The seqs of all notes of some partitions; each is of another commit.
async fn seqs(store: &Store, partitions: u64) -> Vec<u64> {
    let snapshot = store.snapshot();
    let mut seqs = Vec::new();
    for partition in 0..partitions {
        let rows = snapshot.scan_stamped(&NOTES, partition.to_string(), Scan::all()).await;
        seqs.extend(rows.unwrap().into_iter().map(|(_, position, _)| position.seq));
    }
    seqs.sort_unstable();
    seqs
}

async fn positions_have_no_gaps_and_are_never_given_twice(place: Place) {
    for round in 1..=3_u64 {
        let store = place.store().await;
        let writers = (0..10_u64).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..15 {
                    note(&store, &(writer % 4).to_string(), round * 10_000 + writer * 100 + n)
                        .await;
                }
            })
        });
        for writer in join_all(writers).await {
            writer.unwrap();
        }
        let seqs = seqs(&store, 4).await;
        assert_eq!(seqs, (1..=150 * round).collect::<Vec<_>>());
        assert_eq!(store.snapshot().view().seq(0), 150 * round);
        let log = store.snapshot().scan(&tables::LOG, Node, Scan::all()).await.unwrap();
        let logged: Vec<_> = log.into_iter().map(|((_, seq), _)| seq).collect();
        assert_eq!(logged, seqs, "each commit has its row in the log");
        store.close().await;
    }
}

async fn a_commit_that_is_answered_is_in_the_view(place: Place) {
    let store = place.store().await;
    let writers = (0..6_u64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut last = View::default();
            for n in 0..20 {
                note(&store, "p", writer * 100 + n).await;
                let snapshot = store.snapshot();
                let (position, _) =
                    snapshot.get_stamped(&NOTES, "p", writer * 100 + n).await.unwrap().unwrap();
                assert!(snapshot.view().covers(position));
                assert!(!last.covers(position), "it was not in the view before");
                assert!(snapshot.view().includes(&last), "a view never goes back");
                last = snapshot.view().clone();
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
}

/// What one random commit does: `(table, partition, key)`, deletions too.
type Touched = BTreeSet<(u16, String, u64)>;

async fn random_commit(store: &Store, random: &mut Random) -> Touched {
    let mut touched = Touched::new();
    let mut writes = Vec::new();
    for _ in 0..1 + random.below(4) {
        let (partition, key) = (random.below(3).to_string(), random.below(6) as u64);
        let table = [&NOTES, &OTHERS, &QUIET][random.below(3)];
        if table.info().synced {
            touched.insert((table.info().id, partition.clone(), key));
        }
        writes.push((table, partition, key, random.below(3) == 0));
    }
    let body = |tx: Tx| {
        for (table, partition, key, is_deleted) in &writes {
            if *is_deleted {
                tx.delete(table, partition, *key);
            } else {
                tx.put(table, partition, *key, key);
            }
        }
        async { Ok::<_, Error>(()) }.boxed()
    };
    store.transact(body).await.unwrap();
    touched
}

async fn every_change_is_in_the_change_index(place: Place) {
    let mut random = place.random();
    let store = place.store().await;
    let mut commits: BTreeMap<u64, Touched> = BTreeMap::new();
    for _ in 0..60 {
        let touched = random_commit(&store, &mut random).await;
        commits.insert(store.snapshot().view().seq(0), touched);
    }
    store.close().await;
    drop(store);
    let store = place.store().await;
    let snapshot = store.snapshot();
    for since in [0, 1, 17, 30, 59, 60] {
        let view = View::at(Position { writer: 0, seq: since });
        for partition in ["0", "1", "2", "absent"] {
            let mut expected: Vec<_> = commits
                .range(since + 1..)
                .flat_map(|(seq, touched)| touched.iter().map(move |touched| (*seq, touched)))
                .filter(|(_, (_, of, _))| of == partition)
                .map(|(seq, (table, _, key))| (seq, *table, *key))
                .collect();
            let changes = snapshot.changes::<String>(partition, &view, usize::MAX).await.unwrap();
            let newest_first = changes.windows(2).all(|pair| pair[0].position >= pair[1].position);
            assert!(newest_first);
            let mut found: Vec<_> = (changes.iter())
                .map(|change| {
                    let key = NOTES.decode_key(&change.key).unwrap();
                    (change.position.seq, change.table, key)
                })
                .collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "since {since} in {partition}");
            let few = snapshot.changes::<String>(partition, &view, 3).await.unwrap();
            assert_eq!(few, changes[..changes.len().min(3)], "a limit keeps the newest");
        }
    }
}

async fn news_is_told_of_changed_partitions_only(place: Place) {
    let store = place.store().await;
    note(&store, "a", 1).await;
    let since = store.snapshot().view().clone();
    let ids = ["a", "b", "c"].map(|partition| PartitionId::of::<String>(&partition));
    assert_eq!(store.news(&ids, &since), Vec::<usize>::new());
    assert_eq!(store.news(&ids, &View::default()), [0]);
    note(&store, "b", 1).await;
    assert_eq!(store.news(&ids, &since), [1]);
    let body = |tx: Tx| {
        tx.put(&QUIET, "c", 1_u64, &1);
        async { Ok::<_, Error>(()) }.boxed()
    };
    store.transact(body).await.unwrap();
    assert_eq!(store.news_of(ids[2], &since), News::None, "its rows are not for /sync");
    store.close().await;
    drop(store);
    let store = place.store().await;
    assert_eq!(store.news_of(ids[1], &since), News::Maybe, "after a restart nothing is missed");
    let now = store.snapshot().view().clone();
    assert_eq!(store.news(&ids, &now), Vec::<usize>::new());
}

async fn a_row_that_is_amended_keeps_its_position_and_is_no_news(place: Place) {
    let store = place.store().await;
    note(&store, "a", 1).await;
    let since = store.snapshot().view().clone();
    let body = |tx: Tx| {
        async move {
            let row = tx.get_stamped(&NOTES, "a", 1_u64).await?;
            let (position, _) = row.expect("it was noted");
            tx.amend(&NOTES, "a", 1_u64, (position, &7));
            Ok::<_, Error>(())
        }
        .boxed()
    };
    store.transact(body).await.unwrap();
    let snapshot = store.snapshot();
    let (position, value) = snapshot.get_stamped(&NOTES, "a", 1_u64).await.unwrap().unwrap();
    assert_eq!(value, 7);
    assert!(since.covers(position), "it was seen already");
    assert_eq!(store.news(&[PartitionId::of::<String>(&"a")], &since), Vec::<usize>::new());
    assert!(snapshot.changes::<String>("a", &since, usize::MAX).await.unwrap().is_empty());
}

async fn a_watcher_is_woken_for_its_partitions_only(place: Place) {
    let store = place.store().await;
    let id = |partition: &str| PartitionId::of::<String>(&partition);
    let watch = store.watch(vec![id("a"), id("b")]);
    let other = store.watch(vec![id("c")]);
    assert!(watch.changed().now_or_never().is_none());
    note(&store, "b", 1).await;
    let since = store.snapshot();
    watch.changed().await;
    assert!(since.get(&NOTES, "b", 1_u64).await.unwrap().is_some(), "woken when it can be read");
    assert!(watch.changed().now_or_never().is_none(), "once");
    assert!(other.changed().now_or_never().is_none(), "not for what it does not watch");
    drop(watch);
    note(&store, "c", 1).await;
    other.changed().await;
}

async fn who_watches_a_touched_partition_is_woken_though_no_row_is_there(place: Place) {
    let store = place.store().await;
    let id = |partition: &str| PartitionId::of::<String>(&partition);
    let (watch, other) = (store.watch(vec![id("a")]), store.watch(vec![id("c")]));
    let since = store.snapshot().view().clone();
    let touch = |write: bool| {
        let body = move |tx: Tx| {
            tx.touch::<String>("a");
            if write {
                tx.put(&QUIET, "b", 1_u64, &1);
            }
            async { Ok::<_, Error>(()) }.boxed()
        };
        store.transact(body)
    };
    touch(false).await.unwrap();
    assert!(watch.changed().now_or_never().is_none(), "nothing was committed");
    touch(true).await.unwrap();
    watch.changed().await;
    assert!(other.changed().now_or_never().is_none());
    assert_eq!(store.news(&["a", "b", "c"].map(id), &since), [0]);
    let changes = store.snapshot().changes::<String>("a", &since, usize::MAX).await.unwrap();
    assert!(changes.is_empty());
}

async fn event_numbers_are_never_given_twice(place: Place) {
    let mut given = BTreeSet::new();
    for _ in 0..3 {
        let store = place.store().await;
        let tasks = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..700 {
                    mine.push(store.next_event_number().await.unwrap());
                }
                mine
            })
        });
        for number in join_all(tasks).await.into_iter().flat_map(|mine| mine.unwrap()) {
            assert!(number > 0 && given.insert(number), "{number} was given before");
        }
        store.close().await;
        drop(store);
        place.lose_unsynced();
    }
}

async fn a_follower_is_told_which_partitions_have_news_while_the_log_reaches_back(place: Place) {
    let store = place.store().await;
    for (partition, key) in [("a", 1), ("b", 2), ("a", 3)] {
        note(&store, partition, key).await;
    }
    let mut commits = store.commits();
    let since = |seq| View::at(Position { writer: 0, seq });
    let touched = async |seq| {
        let touched = store.snapshot().touched(&since(seq)).await.unwrap();
        touched.map(|all| all.iter().map(PartitionKey::partition::<String>).collect::<Vec<_>>())
    };
    let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
    assert_eq!(touched(0).await, Some(vec![a.clone(), b.clone()]));
    assert_eq!(touched(2).await, Some(vec![a.clone()]));
    assert_eq!(touched(3).await, Some(vec![]));
    assert_eq!(*commits.borrow_and_update(), 3);
    let forget = |tx: Tx| {
        tx.delete(&tables::LOG, Node, (0_u16, 1_u64));
        async { Ok::<_, Error>(()) }.boxed()
    };
    store.transact(forget).await.unwrap();
    assert!(commits.has_changed().unwrap());
    assert_eq!(touched(0).await, None, "what the first commit touched is forgotten");
    assert_eq!(touched(1).await, Some(vec![a, b]));
    let key = PartitionKey::of::<String>(&"a");
    assert_eq!(key.partition::<ruma::OwnedRoomId>(), None, "it is of another kind");
}

async fn partitions_are_listed_in_pages(place: Place) {
    let store = place.store().await;
    for (partition, key) in [("a", 1), ("b", 1), ("b", 2), ("bb", 1), ("c", 1)] {
        note(&store, partition, key).await;
    }
    let snapshot = store.snapshot();
    let page = async |after: Option<&str>, limit| {
        let after = after.map(ToOwned::to_owned);
        snapshot.partitions(&NOTES, after.as_ref(), limit).await.unwrap()
    };
    assert_eq!(page(None, 10).await, ["a", "b", "bb", "c"]);
    assert_eq!(page(None, 2).await, ["a", "b"]);
    assert_eq!(page(Some("b"), 10).await, ["bb", "c"]);
    assert!(page(Some("c"), 10).await.is_empty());
}

on_every_engine! {
    positions_have_no_gaps_and_are_never_given_twice,
    a_commit_that_is_answered_is_in_the_view,
    every_change_is_in_the_change_index,
    news_is_told_of_changed_partitions_only,
    a_row_that_is_amended_keeps_its_position_and_is_no_news,
    a_watcher_is_woken_for_its_partitions_only,
    who_watches_a_touched_partition_is_woken_though_no_row_is_there,
    event_numbers_are_never_given_twice,
    a_follower_is_told_which_partitions_have_news_while_the_log_reaches_back,
    partitions_are_listed_in_pages,
}
