//! What the store refuses: too much, too old, another's database.

use std::time::Duration;

use futures::FutureExt;

use super::place::{Place, on_every_engine};
use crate::{Error, FORMAT, Read, Result, Store, Table, Tx, tables, transaction::Limits};

const BLOBS: Table<String, u64, Vec<u8>> = Table::new(9401, "test_blobs");

async fn open(place: &Place, limits: Limits) -> Result<Store> {
    Store::open(place.open(), ruma::server_name!("example.org"), limits).await
}

async fn write(store: &Store, bytes: usize) -> Result<()> {
    let body = |tx: Tx| {
        tx.put(&BLOBS, "p", 1_u64, &vec![1; bytes]);
        async { Ok(()) }.boxed()
    };
    store.transact(body).await
}

async fn a_transaction_that_writes_too_much_is_refused(place: Place) {
    let limits = Limits { bytes_max: 1000, ..Limits::default() };
    let store = open(&place, limits).await.unwrap();
    let refused = write(&store, 1000).await;
    assert!(matches!(refused, Err(Error::TooLarge { limit: 1000, .. })), "{refused:?}");
    assert_eq!(store.snapshot().get(&BLOBS, "p", 1_u64).await.unwrap(), None);
    write(&store, 900).await.unwrap();
}

async fn a_transaction_that_is_too_old_is_refused(place: Place) {
    let limits = Limits { age_max: Duration::ZERO, ..Limits::default() };
    let store = open(&place, limits).await.unwrap();
    assert!(matches!(write(&store, 1).await, Err(Error::TooOld { limit_ms: 0 })));
    assert_eq!(store.snapshot().get(&BLOBS, "p", 1_u64).await.unwrap(), None);
}

async fn another_format_is_refused(place: Place) {
    open(&place, Limits::default()).await.unwrap().close().await;
    for format in ["1", "2000", "gibberish"] {
        let row = tables::write_row(&tables::ABOUT, "format", &format.to_owned());
        let engine = place.open();
        engine.apply(&[row]).unwrap();
        engine.sync().unwrap();
        drop(engine);
        let refused = open(&place, Limits::default()).await.err();
        assert!(matches!(refused, Some(Error::Format { known: FORMAT, .. })), "{refused:?}");
    }
}

async fn another_servers_database_is_refused(place: Place) {
    open(&place, Limits::default()).await.unwrap().close().await;
    let other = ruma::server_name!("other.example.org");
    let refused = Store::open(place.open(), other, Limits::default()).await.err();
    assert!(matches!(refused, Some(Error::ServerName { .. })), "{refused:?}");
    open(&place, Limits::default()).await.unwrap();
}

async fn a_closed_store_writes_no_more(place: Place) {
    let store = open(&place, Limits::default()).await.unwrap();
    write(&store, 1).await.unwrap();
    store.close().await;
    assert!(matches!(write(&store, 2).await, Err(Error::Stopped(_))));
    let kept = store.snapshot().get(&BLOBS, "p", 1_u64).await.unwrap();
    assert_eq!(kept, Some(vec![1]), "it can be read");
}

on_every_engine! {
    a_transaction_that_writes_too_much_is_refused,
    a_transaction_that_is_too_old_is_refused,
    another_format_is_refused,
    another_servers_database_is_refused,
    a_closed_store_writes_no_more,
}
