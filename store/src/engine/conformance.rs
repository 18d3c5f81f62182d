//! What every engine must do. Another engine joins by a [`Place`] and a line at the end.

use std::{collections::BTreeMap, sync::Arc};

use super::{EngineSnapshot, RawRows, RawScan, Write};
use crate::{
    suite::place::{Kind, Place},
    table::Family,
};

fn put(family: Family, key: &[u8], value: &[u8]) -> Write {
    Write { family, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn delete(family: Family, key: &[u8]) -> Write {
    Write { family, key: key.to_vec(), value: None }
}

fn scan(start: &[u8], end: &[u8]) -> RawScan {
    RawScan {
        family: Family::Rows,
        start: start.to_vec(),
        end: end.to_vec(),
        reverse: false,
        limit: usize::MAX,
    }
}

/// All keys that tests use.
fn everything(family: Family) -> RawScan {
    RawScan { family, ..scan(&[], &[0xff; 64]) }
}

fn rows(rows: &[(&[u8], &[u8])]) -> RawRows {
    rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

async fn one(snapshot: &dyn EngineSnapshot, family: Family, key: &[u8]) -> Option<Vec<u8>> {
    let read = snapshot.get(family, vec![key.to_vec()]).await.unwrap();
    assert_eq!(read.len(), 1);
    // What is told without waiting must be the same.
    if let Some(at_once) = snapshot.get_in_memory(family, key).unwrap() {
        assert_eq!(at_once, read[0]);
    }
    read.into_iter().next().flatten()
}

async fn all(snapshot: &dyn EngineSnapshot, family: Family) -> RawRows {
    snapshot.scan(everything(family)).await.unwrap()
}

async fn a_scan_returns_its_range_in_order(place: Place) {
    let engine = place.open();
    let keys: [&[u8]; 6] = [b"b", b"a", b"ab", b"", b"c\xff", b"c"];
    let batch: Vec<_> = keys.iter().map(|key| put(Family::Rows, key, b"x")).collect();
    engine.apply(&batch).unwrap();
    let snapshot = engine.snapshot();
    let keys_of = async |scan: RawScan| -> Vec<Vec<u8>> {
        snapshot.scan(scan).await.unwrap().into_iter().map(|(key, _)| key).collect()
    };
    let is = |keys: &[&[u8]]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    let whole = everything(Family::Rows);
    assert_eq!(keys_of(whole.clone()).await, is(&[b"", b"a", b"ab", b"b", b"c", b"c\xff"]));
    let backwards = RawScan { reverse: true, ..whole.clone() };
    assert_eq!(keys_of(backwards.clone()).await, is(&[b"c\xff", b"c", b"b", b"ab", b"a", b""]));
    assert_eq!(keys_of(RawScan { limit: 2, ..whole.clone() }).await, is(&[b"", b"a"]));
    assert_eq!(keys_of(RawScan { limit: 2, ..backwards }).await, is(&[b"c\xff", b"c"]));
    assert_eq!(keys_of(RawScan { limit: 0, ..whole }).await, is(&[]));
    assert_eq!(keys_of(scan(b"a", b"c")).await, is(&[b"a", b"ab", b"b"]), "the end is exclusive");
    let part = RawScan { reverse: true, limit: 1, ..scan(b"a", b"c") };
    assert_eq!(keys_of(part).await, is(&[b"b"]), "also backwards");
    assert_eq!(keys_of(scan(b"aa", b"bb")).await, is(&[b"ab", b"b"]), "bounds need not exist");
    assert_eq!(keys_of(scan(b"d", b"e")).await, is(&[]));
    assert_eq!(keys_of(scan(b"b", b"b")).await, is(&[]), "an empty range");
    assert_eq!(keys_of(scan(b"c", b"a")).await, is(&[]), "an impossible range");
    let impossible = RawScan { reverse: true, ..scan(b"c", b"a") };
    assert_eq!(keys_of(impossible).await, is(&[]));
}

async fn families_are_apart(place: Place) {
    let engine = place.open();
    let batch = Family::ALL.map(|family| put(family, b"key", family.name().as_bytes()));
    engine.apply(&batch).unwrap();
    engine.apply(&[delete(Family::Bodies, b"key")]).unwrap();
    let snapshot = engine.snapshot();
    for family in Family::ALL {
        let expected = (family != Family::Bodies).then(|| family.name().as_bytes().to_vec());
        assert_eq!(one(&*snapshot, family, b"key").await, expected);
        assert_eq!(all(&*snapshot, family).await.len(), usize::from(expected.is_some()));
    }
}

async fn the_last_write_of_a_key_in_a_batch_counts(place: Place) {
    let engine = place.open();
    let batch = [
        put(Family::Rows, b"a", b"1"),
        put(Family::Rows, b"a", b"2"),
        put(Family::Rows, b"b", b"1"),
        delete(Family::Rows, b"b"),
        delete(Family::Rows, b"c"),
        put(Family::Rows, b"c", b"3"),
    ];
    engine.apply(&batch).unwrap();
    let found = all(&*engine.snapshot(), Family::Rows).await;
    assert_eq!(found, rows(&[(b"a", b"2"), (b"c", b"3")]));
}

async fn a_snapshot_does_not_see_later_writes(place: Place) {
    let engine = place.open();
    let empty = engine.snapshot();
    engine.apply(&[put(Family::Rows, b"a", b"1"), put(Family::Rows, b"b", b"1")]).unwrap();
    let before = engine.snapshot();
    let batch =
        [put(Family::Rows, b"a", b"2"), delete(Family::Rows, b"b"), put(Family::Rows, b"c", b"2")];
    engine.apply(&batch).unwrap();
    engine.sync().unwrap();
    assert_eq!(all(&*empty, Family::Rows).await, rows(&[]));
    assert_eq!(all(&*before, Family::Rows).await, rows(&[(b"a", b"1"), (b"b", b"1")]));
    assert_eq!(one(&*before, Family::Rows, b"a").await, Some(b"1".to_vec()));
    assert_eq!(one(&*before, Family::Rows, b"b").await, Some(b"1".to_vec()));
    assert_eq!(one(&*before, Family::Rows, b"c").await, None);
    let after = engine.snapshot();
    assert_eq!(all(&*after, Family::Rows).await, rows(&[(b"a", b"2"), (b"c", b"2")]));
    drop(engine);
    assert_eq!(one(&*before, Family::Rows, b"a").await, Some(b"1".to_vec()), "it outlives");
}

async fn many_keys_are_read_in_their_order(place: Place) {
    let engine = place.open();
    engine.apply(&[put(Family::Nodes, b"a", b"1"), put(Family::Nodes, b"b", b"2")]).unwrap();
    let keys: [&[u8]; 6] = [b"b", b"absent", b"a", b"b", b"", b"a"];
    let keys = keys.map(<[u8]>::to_vec).to_vec();
    let found = engine.snapshot().get(Family::Nodes, keys).await.unwrap();
    let (a, b) = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    assert_eq!(found, [b.clone(), None, a.clone(), b, None, a]);
    assert!(engine.snapshot().get(Family::Nodes, Vec::new()).await.unwrap().is_empty());
}

async fn an_empty_value_is_a_value(place: Place) {
    let engine = place.open();
    engine.apply(&[put(Family::Rows, b"empty", b"")]).unwrap();
    engine.sync().unwrap();
    drop(engine);
    let snapshot = place.open().snapshot();
    assert_eq!(one(&*snapshot, Family::Rows, b"empty").await, Some(Vec::new()));
    assert_eq!(one(&*snapshot, Family::Rows, b"absent").await, None);
    assert_eq!(all(&*snapshot, Family::Rows).await, rows(&[(b"empty", b"")]));
}

async fn large_values_come_back_whole(place: Place) {
    let engine = place.open();
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    engine.apply(&[put(Family::Bodies, b"large", &large)]).unwrap();
    engine.sync().unwrap();
    assert_eq!(one(&*engine.snapshot(), Family::Bodies, b"large").await.as_ref(), Some(&large));
    drop(engine);
    let snapshot = place.open().snapshot();
    assert_eq!(one(&*snapshot, Family::Bodies, b"large").await.as_ref(), Some(&large));
}

async fn keys_are_any_bytes_and_sorted_as_such(place: Place) {
    let engine = place.open();
    let mut model = BTreeMap::new();
    for first in 0..=u8::MAX {
        for key in [vec![first], vec![first, 0], vec![first, 0xff], vec![0, first], vec![0xff; 40]]
        {
            engine.apply(&[put(Family::Changes, &key, &[first])]).unwrap();
            model.insert(key, vec![first]);
        }
    }
    let snapshot = engine.snapshot();
    let expected: RawRows = model.into_iter().collect();
    assert_eq!(all(&*snapshot, Family::Changes).await, expected);
    let backwards = RawScan { reverse: true, ..everything(Family::Changes) };
    let found = snapshot.scan(backwards).await.unwrap();
    assert!(found.iter().eq(expected.iter().rev()));
    for (key, value) in &expected {
        assert_eq!(one(&*snapshot, Family::Changes, key).await.as_ref(), Some(value));
    }
}

async fn what_was_synced_survives_and_the_rest_goes_from_the_end(place: Place) {
    let engine = place.open();
    for n in 0..40_u8 {
        engine.apply(&Family::ALL.map(|family| put(family, &[n], &[n]))).unwrap();
        if n == 19 {
            engine.sync().unwrap();
        }
    }
    drop(engine);
    place.lose_unsynced();
    let snapshot = place.open().snapshot();
    let kept = all(&*snapshot, Family::Rows).await;
    assert!(kept.len() >= 20, "{} of 20 synced batches", kept.len());
    for (n, (key, _)) in kept.iter().enumerate() {
        assert_eq!(key, &[n as u8], "batches survive in the order they were applied");
    }
    for family in Family::ALL {
        assert_eq!(all(&*snapshot, family).await, kept, "a batch survives whole");
    }
}

async fn a_closed_engine_can_be_opened_again(place: Place) {
    for round in 0..5_u8 {
        let engine = place.open();
        let found = all(&*engine.snapshot(), Family::Rows).await;
        assert_eq!(found.len(), usize::from(round));
        engine.apply(&[put(Family::Rows, &[round], b"x")]).unwrap();
        engine.sync().unwrap();
    }
}

async fn a_batch_is_seen_whole_or_not_at_all(place: Place) {
    let engine = place.open();
    let writer = Arc::clone(&engine);
    let writing = std::thread::spawn(move || {
        for n in 0..500_u16 {
            let value = n.to_be_bytes();
            writer.apply(&Family::ALL.map(|family| put(family, b"n", &value))).unwrap();
        }
    });
    let mut last = None;
    while !writing.is_finished() {
        let snapshot = engine.snapshot();
        let seen = one(&*snapshot, Family::Rows, b"n").await;
        assert!(seen >= last, "a later picture is not older");
        for family in Family::ALL {
            assert_eq!(one(&*snapshot, family, b"n").await, seen);
        }
        last = seen;
    }
    writing.join().unwrap();
}

/// Random batches against a map, with a snapshot kept from each.
async fn an_engine_holds_what_a_map_holds(place: Place) {
    let mut random = place.random();
    let mut engine = place.open();
    let mut model: BTreeMap<(Family, Vec<u8>), Vec<u8>> = BTreeMap::new();
    let mut kept: Vec<(Arc<dyn EngineSnapshot>, BTreeMap<_, _>)> = Vec::new();
    for _ in 0..60 {
        let mut batch = Vec::new();
        for _ in 0..random.below(12) {
            let family = Family::ALL[random.below(4)];
            let key: Vec<u8> = (0..random.below(4)).map(|_| random.below(3) as u8 * 127).collect();
            let value =
                (random.below(3) > 0).then(|| vec![random.below(256) as u8; random.below(50)]);
            match &value {
                Some(value) => model.insert((family, key.clone()), value.clone()),
                None => model.remove(&(family, key.clone())),
            };
            batch.push(Write { family, key, value });
        }
        engine.apply(&batch).unwrap();
        if random.below(10) == 0 {
            engine.sync().unwrap();
            kept.clear();
            drop(engine);
            engine = place.open();
        }
        kept.push((engine.snapshot(), model.clone()));
    }
    for (snapshot, model) in &kept {
        for family in Family::ALL {
            let of_family = |low: &[u8], high: &[u8]| -> RawRows {
                let range = (family, low.to_vec())..(family, high.to_vec());
                let rows = model.range(range);
                rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
            };
            assert_eq!(all(&**snapshot, family).await, of_family(&[], &[0xff; 64]));
            let some = RawScan { family, ..scan(&[0, 127], &[127, 254]) };
            assert_eq!(snapshot.scan(some).await.unwrap(), of_family(&[0, 127], &[127, 254]));
        }
    }
}

crate::suite::place::on_every_engine! {
    a_scan_returns_its_range_in_order,
    families_are_apart,
    the_last_write_of_a_key_in_a_batch_counts,
    a_snapshot_does_not_see_later_writes,
    many_keys_are_read_in_their_order,
    an_empty_value_is_a_value,
    large_values_come_back_whole,
    keys_are_any_bytes_and_sorted_as_such,
    what_was_synced_survives_and_the_rest_goes_from_the_end,
    a_closed_engine_can_be_opened_again,
    a_batch_is_seen_whole_or_not_at_all,
    an_engine_holds_what_a_map_holds,
}

#[test]
fn a_database_in_use_is_refused() {
    let place = Place::new(Kind::Rocks);
    let _open = place.open();
    assert!(matches!(place.try_open().err(), Some(crate::Error::Locked(_))));
}

#[test]
fn a_damaged_database_is_refused() {
    let place = Place::new(Kind::Rocks);
    drop(place.open());
    let folder = place.folder().unwrap();
    std::fs::write(folder.join("CURRENT"), "not a manifest\n").unwrap();
    let error = place.try_open().err();
    assert!(matches!(error, Some(crate::Error::Corrupt { .. })), "{error:?}");
}
