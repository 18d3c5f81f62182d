//! Views are closed: an observer never sees an event without those before it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, future::join_all};

use super::place::{Place, on_every_engine};
use crate::{Error, Read, Scan, Snapshot, Store, Table, Tx};

const HEAD: Table<String, (), u64> = Table::new(9301, "test_room_head");
const TIMELINE: Table<String, u64, u64> = Table::synced(9302, "test_timeline").guarded_by(&HEAD);

const ROOMS: u64 = 4;

/// Appends to a room an event that answers the newest one of another room.
async fn answer(store: &Store, room: u64, other: u64) {
    let body = |tx: Tx| {
        async move {
            let (room, other) = (room.to_string(), other.to_string());
            let last = tx.get(&HEAD, &room, ()).await?.unwrap_or(0);
            let answered = tx.get(&HEAD, &other, ()).await?.unwrap_or(0);
            tx.put(&HEAD, &room, (), &(last + 1));
            tx.put(&TIMELINE, &room, last + 1, &answered);
            Ok::<_, Error>(())
        }
        .boxed()
    };
    store.transact(body).await.unwrap();
}

/// Everything a picture shows must be there with all it stands on.
async fn check(snapshot: &Snapshot) {
    let mut seqs = BTreeSet::new();
    for room in 0..ROOMS {
        let other = ((room + 1) % ROOMS).to_string();
        let room = room.to_string();
        let head = snapshot.get(&HEAD, &room, ()).await.unwrap().unwrap_or(0);
        let rows = snapshot.scan_stamped(&TIMELINE, &room, Scan::all()).await.unwrap();
        let numbers: Vec<_> = rows.iter().map(|(n, ..)| *n).collect();
        assert_eq!(numbers, (1..=head).collect::<Vec<_>>(), "no event lacks one before it");
        let in_order = rows.windows(2).all(|pair| pair[0].1 < pair[1].1);
        assert!(in_order, "a room's order is that of its positions");
        for (_, position, answered) in rows {
            assert!(snapshot.view().covers(position), "a picture shows no more than its view");
            assert!(seqs.insert(position.seq));
            if answered > 0 {
                let before = snapshot.get_stamped(&TIMELINE, &other, answered).await.unwrap();
                let (before, _) = before.expect("what was answered is there");
                assert!(before < position);
            }
        }
    }
    let all: BTreeSet<_> = (1..=snapshot.view().seq(0)).collect();
    assert_eq!(seqs, all, "a picture shows no less than its view");
}

async fn an_observer_sees_no_event_without_those_before_it(place: Place) {
    let store = place.store().await;
    let done = Arc::new(AtomicBool::new(false));
    let observers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut last = store.snapshot().view().clone();
                while !done.load(Ordering::Relaxed) {
                    let snapshot = store.snapshot();
                    check(&snapshot).await;
                    assert!(snapshot.view().includes(&last));
                    last = snapshot.view().clone();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writers = (0..ROOMS * 2).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                answer(&store, writer % ROOMS, (writer + 1) % ROOMS).await;
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for observer in join_all(observers).await {
        observer.unwrap();
    }
    assert_eq!(store.snapshot().view().seq(0), ROOMS * 2 * 20);
    check(&store.snapshot()).await;
}

on_every_engine! {
    an_observer_sees_no_event_without_those_before_it,
}
