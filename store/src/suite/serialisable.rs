//! Transactions behave as if they ran one after the other.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::sync::Barrier;

use super::place::{Place, on_every_engine};
use crate::{Error, Read, Result, Scan, Store, Table, Tx};

const BALANCES: Table<String, u64, u64> = Table::new(9001, "test_balances");
const NAMES: Table<String, (), u64> = Table::new(9002, "test_names");
const QUEUE_HEAD: Table<String, (), u64> = Table::new(9003, "test_queue_head");
const QUEUE: Table<String, u64, u64> = Table::new(9004, "test_queue").guarded_by(&QUEUE_HEAD);

/// Each account in a partition of its own.
async fn money_is_neither_made_nor_lost(place: Place) {
    const ACCOUNTS: u64 = 6;
    const EACH: u64 = 100;
    let store = place.store().await;
    let open = |tx: Tx| {
        async move {
            (0..ACCOUNTS).for_each(|n| tx.put(&BALANCES, account(n), n, &EACH));
            Ok::<_, Error>(())
        }
        .boxed()
    };
    store.transact(open).await.unwrap();
    let mut random = place.random();
    let tasks = (0..12).map(|_| {
        let (store, mut random) = (store.clone(), super::place::Random(random.next()));
        tokio::spawn(async move {
            for _ in 0..25 {
                let (from, to) = (random.below(6) as u64, random.below(6) as u64);
                transfer(&store, from, to, random.below(40) as u64).await.unwrap();
                assert_eq!(sum(&store).await, ACCOUNTS * EACH, "in every durable picture");
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(sum(&store).await, ACCOUNTS * EACH);
}

fn account(n: u64) -> String {
    format!("account {n}")
}

async fn transfer(store: &Store, from: u64, to: u64, amount: u64) -> Result<()> {
    let body = |tx: Tx| {
        async move {
            let has = tx.get(&BALANCES, account(from), from).await?.unwrap();
            let other = tx.get(&BALANCES, account(to), to).await?.unwrap();
            if from != to && has >= amount {
                tx.put(&BALANCES, account(from), from, &(has - amount));
                tx.put(&BALANCES, account(to), to, &(other + amount));
            }
            Ok(())
        }
        .boxed()
    };
    store.transact(body).await
}

async fn sum(store: &Store) -> u64 {
    let snapshot = store.snapshot();
    let balances = (0..6).map(|n| snapshot.get(&BALANCES, account(n), n));
    join_all(balances).await.into_iter().map(|balance| balance.unwrap().unwrap()).sum()
}

async fn a_name_is_given_once(place: Place) {
    let store = place.store().await;
    let claim = async |store: Store, name: String, by: u64| -> bool {
        let body = |tx: Tx| {
            let name = name.clone();
            async move {
                if tx.get(&NAMES, &name, ()).await?.is_some() {
                    return Ok(false);
                }
                tx.put(&NAMES, &name, (), &by);
                Ok::<_, Error>(true)
            }
            .boxed()
        };
        store.transact(body).await.unwrap()
    };
    for name in 0..20 {
        let name = format!("name {name}");
        let claims = (0..16).map(|by| tokio::spawn(claim(store.clone(), name.clone(), by)));
        let winners: Vec<_> = join_all(claims).await.into_iter().map(|won| won.unwrap()).collect();
        assert_eq!(winners.iter().filter(|won| **won).count(), 1, "{winners:?}");
        let owner = store.snapshot().get(&NAMES, &name, ()).await.unwrap().unwrap();
        assert!(winners[owner as usize], "the one who was told so has it");
    }
}

/// Two doctors are on call; each goes home if the other stays.
async fn write_skew_is_refused(place: Place) {
    let store = place.store().await;
    for round in 0..20_u64 {
        let night = format!("night {round}");
        let both = |tx: Tx| {
            let night = night.clone();
            async move {
                tx.put(&BALANCES, &night, 0_u64, &1);
                tx.put(&BALANCES, &night, 1_u64, &1);
                Ok::<_, Error>(())
            }
            .boxed()
        };
        store.transact(both).await.unwrap();
        let meet = Arc::new(Barrier::new(2));
        let leave = |doctor: u64| {
            let (store, meet, night) = (store.clone(), Arc::clone(&meet), night.clone());
            tokio::spawn(async move {
                let runs = AtomicU32::new(0);
                let body = |tx: Tx| {
                    let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
                    let (meet, night) = (Arc::clone(&meet), night.clone());
                    async move {
                        let on_call = tx.get_many(&BALANCES, &night, [0_u64, 1]).await?;
                        if first {
                            meet.wait().await; // Both have read before either writes.
                        }
                        if on_call.iter().flatten().sum::<u64>() == 2 {
                            tx.put(&BALANCES, &night, doctor, &0);
                        }
                        Ok::<_, Error>(())
                    }
                    .boxed()
                };
                store.transact(body).await.unwrap();
            })
        };
        for task in join_all([leave(0), leave(1)]).await {
            task.unwrap();
        }
        let on_call = store.snapshot().get_many(&BALANCES, &night, [0_u64, 1]).await.unwrap();
        assert_eq!(on_call.iter().flatten().sum::<u64>(), 1, "one of them stays");
    }
}

/// Runs a transaction that reads by `read` and writes elsewhere, while another commit does
/// `meddle` between its first read and its commit. Returns how often it ran.
async fn runs_beside(
    store: &Store,
    read: fn(Tx) -> BoxFuture<'static, Result<()>>,
    meddle: fn(&Tx),
) -> u32 {
    let runs = Arc::new(AtomicU32::new(0));
    let meet = Arc::new(Barrier::new(2));
    let reader = tokio::spawn({
        let (store, runs, meet) = (store.clone(), Arc::clone(&runs), Arc::clone(&meet));
        async move {
            let body = |tx: Tx| {
                let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
                let meet = Arc::clone(&meet);
                async move {
                    read(tx.clone()).await?;
                    if first {
                        meet.wait().await; // It has read.
                        meet.wait().await; // The other has committed.
                    }
                    tx.put(&NAMES, "result", (), &1);
                    Ok::<_, Error>(())
                }
                .boxed()
            };
            store.transact(body).await.unwrap();
        }
    });
    meet.wait().await;
    let body = |tx: Tx| {
        meddle(&tx);
        async { Ok::<_, Error>(()) }.boxed()
    };
    store.transact(body).await.unwrap();
    meet.wait().await;
    reader.await.unwrap();
    runs.load(Ordering::Relaxed)
}

fn read_name(tx: Tx) -> BoxFuture<'static, Result<()>> {
    async move { tx.get(&NAMES, "name", ()).await.map(drop) }.boxed()
}

fn read_queue(tx: Tx) -> BoxFuture<'static, Result<()>> {
    async move {
        tx.get(&QUEUE_HEAD, "queue", ()).await?;
        tx.scan(&QUEUE, "queue", Scan::all()).await.map(drop)
    }
    .boxed()
}

async fn a_key_that_was_read_absent_is_protected(place: Place) {
    let store = place.store().await;
    let runs = runs_beside(&store, read_name, |tx| tx.put(&NAMES, "name", (), &7)).await;
    assert_eq!(runs, 2);
}

async fn a_key_that_was_read_and_deleted_is_protected(place: Place) {
    let store = place.store().await;
    let runs = runs_beside(&store, read_name, |tx| tx.put(&NAMES, "name", (), &7)).await;
    assert_eq!(runs, 2);
    let runs = runs_beside(&store, read_name, |tx| tx.delete(&NAMES, "name", ())).await;
    assert_eq!(runs, 2);
}

async fn many_keys_read_at_once_are_protected(place: Place) {
    let store = place.store().await;
    let read = |tx: Tx| async move { tx.get_many(&QUEUE, "q", [1_u64, 2]).await.map(drop) }.boxed();
    let meddle = |tx: &Tx| {
        tx.put(&QUEUE_HEAD, "q", (), &1);
        tx.put(&QUEUE, "q", 2_u64, &1);
    };
    assert_eq!(runs_beside(&store, read, meddle).await, 2);
}

async fn a_range_is_protected_by_its_head(place: Place) {
    let store = place.store().await;
    let append = |tx: &Tx| {
        tx.put(&QUEUE_HEAD, "queue", (), &1);
        tx.put(&QUEUE, "queue", 1_u64, &1);
    };
    assert_eq!(runs_beside(&store, read_queue, append).await, 2);
}

async fn what_was_not_read_is_no_conflict(place: Place) {
    let store = place.store().await;
    let elsewhere = |tx: &Tx| tx.put(&NAMES, "another name", (), &7);
    assert_eq!(runs_beside(&store, read_name, elsewhere).await, 1, "another key");
    let same = |tx: &Tx| tx.put(&NAMES, "result", (), &7);
    assert_eq!(runs_beside(&store, read_name, same).await, 1, "written by both, read by none");
    let read =
        |tx: Tx| async move { tx.unprotected().get(&NAMES, "name", ()).await.map(drop) }.boxed();
    let name = |tx: &Tx| tx.put(&NAMES, "name", (), &7);
    assert_eq!(runs_beside(&store, read, name).await, 1, "read without protection");
}

async fn no_update_is_lost_and_nobody_starves(place: Place) {
    let store = place.store().await;
    let most = Arc::new(AtomicU32::new(0));
    let tasks = (0..24).map(|_| {
        let (store, most) = (store.clone(), Arc::clone(&most));
        tokio::spawn(async move {
            for _ in 0..8 {
                let runs = AtomicU32::new(0);
                let body = |tx: Tx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    async move {
                        let n = tx.get(&NAMES, "counter", ()).await?.unwrap_or(0);
                        tokio::task::yield_now().await;
                        tx.put(&NAMES, "counter", (), &(n + 1));
                        Ok::<_, Error>(())
                    }
                    .boxed()
                };
                store.transact(body).await.unwrap();
                most.fetch_max(runs.into_inner(), Ordering::Relaxed);
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(store.snapshot().get(&NAMES, "counter", ()).await.unwrap(), Some(24 * 8));
    assert!(most.load(Ordering::Relaxed) <= 4, "who lost three times runs alone");
}

async fn within_a_partition_one_runs_at_a_time(place: Place) {
    let store = place.store().await;
    let runs = Arc::new(AtomicU32::new(0));
    let tasks = (0..40).map(|_| {
        let (store, runs) = (store.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let body = |tx: Tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                async move {
                    let n = tx.get(&NAMES, "gated", ()).await?.unwrap_or(0);
                    tokio::task::yield_now().await;
                    tx.put(&NAMES, "gated", (), &(n + 1));
                    Ok::<_, Error>(())
                }
                .boxed()
            };
            store.transact_in::<String, _, _, _>("gated", body).await.unwrap();
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(store.snapshot().get(&NAMES, "gated", ()).await.unwrap(), Some(40));
    assert_eq!(runs.load(Ordering::Relaxed), 40, "nobody lost");
}

async fn a_transaction_sees_what_it_wrote(place: Place) {
    let store = place.store().await;
    let fill = |tx: Tx| {
        async move {
            tx.put(&QUEUE_HEAD, "own", (), &6);
            (1..=6_u64).for_each(|n| tx.put(&QUEUE, "own", n, &n));
            Ok::<_, Error>(())
        }
        .boxed()
    };
    store.transact(fill).await.unwrap();
    let body = |tx: Tx| {
        async move {
            assert_eq!(tx.get(&QUEUE_HEAD, "own", ()).await?, Some(6));
            tx.put(&QUEUE_HEAD, "own", (), &7);
            tx.put(&QUEUE, "own", 7_u64, &70);
            tx.put(&QUEUE, "own", 2_u64, &20);
            tx.delete(&QUEUE, "own", 1_u64);
            tx.delete(&QUEUE, "own", 6_u64);
            assert_eq!(tx.get(&QUEUE_HEAD, "own", ()).await?, Some(7));
            let some = tx.get_many(&QUEUE, "own", [1_u64, 2, 3, 7]).await?;
            assert_eq!(some, [None, Some(20), Some(3), Some(70)]);
            let all = tx.scan(&QUEUE, "own", Scan::all()).await?;
            assert_eq!(all, [(2, 20), (3, 3), (4, 4), (5, 5), (7, 70)]);
            let last = tx.scan(&QUEUE, "own", Scan::all().reverse().limit(2)).await?;
            assert_eq!(last, [(7, 70), (5, 5)]);
            let first = tx.scan(&QUEUE, "own", Scan::all().limit(2)).await?;
            assert_eq!(first, [(2, 20), (3, 3)]);
            let part = tx.scan(&QUEUE, "own", Scan::all().after(2_u64).up_to(4_u64)).await?;
            assert_eq!(part, [(3, 3), (4, 4)]);
            let unprotected = tx.unprotected().get(&QUEUE, "own", 2_u64).await?;
            assert_eq!(unprotected, Some(2), "the snapshot beneath is as it was");
            Ok::<_, Error>(())
        }
        .boxed()
    };
    store.transact(body).await.unwrap();
    let all = store.snapshot().scan(&QUEUE, "own", Scan::all()).await.unwrap();
    assert_eq!(all, [(2, 20), (3, 3), (4, 4), (5, 5), (7, 70)]);
}

async fn a_failed_body_writes_nothing(place: Place) {
    let store = place.store().await;
    let view = store.snapshot().view().clone();
    let body = |tx: Tx| {
        tx.put(&NAMES, "failed", (), &1);
        async { Err::<(), _>(Error::Engine("no".into())) }.boxed()
    };
    assert!(matches!(store.transact(body).await, Err(Error::Engine(_))));
    assert_eq!(store.snapshot().get(&NAMES, "failed", ()).await.unwrap(), None);
    assert_eq!(*store.snapshot().view(), view, "and has no position");
}

on_every_engine! {
    money_is_neither_made_nor_lost,
    a_name_is_given_once,
    write_skew_is_refused,
    a_key_that_was_read_absent_is_protected,
    a_key_that_was_read_and_deleted_is_protected,
    many_keys_read_at_once_are_protected,
    a_range_is_protected_by_its_head,
    what_was_not_read_is_no_conflict,
    no_update_is_lost_and_nobody_starves,
    within_a_partition_one_runs_at_a_time,
    a_transaction_sees_what_it_wrote,
    a_failed_body_writes_nothing,
}
