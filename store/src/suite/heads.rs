//! Ranges have heads, and the store refuses whoever forgets them.

use futures::FutureExt;

use super::place::{Place, on_every_engine};
use crate::{Error, Read, Result, Scan, Store, Table, Tx};

const HEAD: Table<String, (), u64> = Table::new(9101, "test_head");
const ROWS: Table<String, u64, u64> = Table::new(9102, "test_rows").guarded_by(&HEAD);
const FREE: Table<String, u64, u64> = Table::new(9103, "test_free");
const ADDED: Table<String, u64, u64> = Table::new(9104, "test_added").unguarded();

async fn write(store: &Store, body: fn(&Tx)) -> Result<()> {
    let body = |tx: Tx| {
        body(&tx);
        async { Ok(()) }.boxed()
    };
    store.transact(body).await
}

fn is_refused(result: &Result<()>) -> bool {
    matches!(result, Err(Error::HeadNotWritten { table: "test_rows", head: "test_head" }))
}

async fn whoever_changes_a_range_writes_its_head(place: Place) {
    let store = place.store().await;
    assert!(is_refused(&write(&store, |tx| tx.put(&ROWS, "a", 1_u64, &1)).await));
    assert!(is_refused(&write(&store, |tx| tx.delete(&ROWS, "a", 1_u64)).await));
    let other_partition = write(&store, |tx| {
        tx.put(&HEAD, "b", (), &1);
        tx.put(&ROWS, "a", 1_u64, &1);
    });
    assert!(is_refused(&other_partition.await), "the head of another partition");
    assert_eq!(store.snapshot().get(&HEAD, "b", ()).await.unwrap(), None, "refused as a whole");
    assert!(store.snapshot().view().is_empty(), "and without a position");
    let with_head = write(&store, |tx| {
        tx.put(&ROWS, "a", 1_u64, &1);
        tx.put(&HEAD, "a", (), &1);
    });
    with_head.await.unwrap();
    write(&store, |tx| tx.put(&FREE, "a", 1_u64, &1)).await.unwrap();
}

async fn whoever_scans_a_range_has_read_its_head(place: Place) {
    let store = place.store().await;
    let scan = async |table: &'static Table<String, u64, u64>, head: Option<&'static str>| {
        let body = |tx: Tx| {
            async move {
                if let Some(partition) = head {
                    tx.get(&HEAD, partition, ()).await?;
                }
                tx.scan(table, "a", Scan::all()).await.map(drop)
            }
            .boxed()
        };
        store.transact(body).await
    };
    assert!(matches!(scan(&ROWS, None).await, Err(Error::HeadNotRead { table: "test_rows" })));
    assert!(matches!(scan(&ROWS, Some("b")).await, Err(Error::HeadNotRead { .. })));
    assert!(scan(&ROWS, Some("a")).await.is_ok());
    assert!(
        matches!(scan(&FREE, Some("a")).await, Err(Error::HeadNotRead { table: "test_free" })),
        "a table without a head cannot be scanned in a transaction"
    );
    assert!(scan(&ADDED, None).await.is_ok(), "nor does one need it that is only added to");
    assert!(store.snapshot().scan(&ROWS, "a", Scan::all()).await.is_ok(), "a snapshot may");
}

on_every_engine! {
    whoever_changes_a_range_writes_its_head,
    whoever_scans_a_range_has_read_its_head,
}
