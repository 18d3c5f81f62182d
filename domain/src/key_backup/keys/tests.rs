use ruma::{owned_room_id, room_id, user_id};

use super::*;
use crate::{
    key_backup::{NewBackup, backup, create, current, delete},
    testing,
};

fn alice() -> &'static UserId {
    user_id!("@alice:test.example")
}

fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64) -> BackedUpKey {
    let session_data = format!(r#"{{"text":"{first_message_index}"}}"#);
    BackedUpKey { first_message_index, forwarded_count, is_verified, session_data }
}

fn one(session: &str, key: BackedUpKey) -> RoomKeys {
    let keys = BTreeMap::from([(session.to_owned(), key)]);
    BTreeMap::from([(owned_room_id!("!r:x"), keys)])
}

async fn world() -> (Env, u64) {
    let env = testing::env().await;
    let version = create(&env, alice(), &new()).await.unwrap();
    (env, version)
}

fn new() -> NewBackup {
    NewBackup { algorithm: "a".to_owned(), auth_data: "{}".to_owned() }
}

#[tokio::test]
async fn a_better_key_replaces_one_and_only_a_change_is_counted() {
    let (env, version) = world().await;
    let session = Selection::Session(room_id!("!r:x"), "s");
    // Each better than the one before.
    let order = [(false, 9, 9), (false, 9, 8), (false, 8, 9), (true, 20, 20), (true, 20, 1)];
    for (n, (verified, index, count)) in order.into_iter().enumerate() {
        let better = key(verified, index, count);
        let state = store_keys(&env, alice(), version, &one("s", better.clone())).await.unwrap();
        assert_eq!(state, BackupState { count: 1, etag: n as u64 + 1 });
        for (verified, index, count) in &order[..=n] {
            let worse = one("s", key(*verified, *index, *count));
            let again = store_keys(&env, alice(), version, &worse).await.unwrap();
            assert_eq!(again, state, "it is not better");
        }
        let found = keys(&env, alice(), version, session).await.unwrap();
        assert_eq!(found, one("s", better));
    }
}

#[tokio::test]
async fn keys_go_into_the_current_backup_only() {
    let (env, first) = world().await;
    store_keys(&env, alice(), first, &one("s", key(true, 1, 1))).await.unwrap();
    let second = create(&env, alice(), &new()).await.unwrap();
    let refused = store_keys(&env, alice(), first, &one("t", key(true, 1, 1))).await;
    assert!(matches!(refused, Err(BackupError::NotCurrent { current }) if current == second));
    let unknown = store_keys(&env, alice(), 99, &one("t", key(true, 1, 1))).await;
    assert!(matches!(unknown, Err(BackupError::Unknown)));
    assert_eq!(backup(&env, alice(), first).await.unwrap().count, 1);
    delete(&env, alice(), second).await.unwrap();
    assert_eq!(current(&env, alice()).await.unwrap().0, first, "the one before is current again");
    store_keys(&env, alice(), first, &one("t", key(true, 1, 1))).await.unwrap();
    let third = create(&env, alice(), &new()).await.unwrap();
    assert!(third > second, "no version is given twice");
}

#[tokio::test]
async fn a_deleted_backup_is_gone_with_all_its_keys_and_may_be_deleted_again() {
    let (env, version) = world().await;
    let many = (0..1_200).map(|n| (format!("s{n}"), key(true, n, 0))).collect();
    let many = BTreeMap::from([(owned_room_id!("!r:x"), many)]);
    let state = store_keys(&env, alice(), version, &many).await.unwrap();
    assert_eq!(state.count, 1_200, "it took several commits");
    delete(&env, alice(), version).await.unwrap();
    delete(&env, alice(), version).await.unwrap();
    let gone = keys(&env, alice(), version, Selection::All).await;
    assert!(matches!(gone, Err(BackupError::Unknown)));
    let rows = env.store.snapshot().scan(&BACKED_UP_KEYS, alice(), Scan::all()).await.unwrap();
    assert!(rows.is_empty());
    assert!(matches!(delete(&env, alice(), 7).await, Err(BackupError::Unknown)));
}

#[tokio::test]
async fn all_keys_are_one_body_and_some_can_be_deleted() {
    let (env, version) = world().await;
    let empty = keys_json(&env, alice(), version).await.unwrap();
    assert_eq!(empty, r#"{"rooms":{}}"#);
    let room = |n: u64| {
        let room = OwnedRoomId::try_from(format!("!r{n}:x")).unwrap();
        let keys = (0..1_500).map(|n| (format!("s{n}"), key(true, n, 0))).collect();
        (room, keys)
    };
    let stored: RoomKeys = (0..3).map(room).collect();
    store_keys(&env, alice(), version, &stored).await.unwrap();
    let body = keys_json(&env, alice(), version).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let rooms = body["rooms"].as_object().unwrap();
    assert_eq!(rooms.len(), 3, "more than one page");
    for room in rooms.values() {
        assert_eq!(room["sessions"].as_object().unwrap().len(), 1_500);
        assert_eq!(room["sessions"]["s3"]["session_data"]["text"], "3");
    }
    let session = Selection::Session(room_id!("!r0:x"), "s3");
    let state = delete_keys(&env, alice(), version, session).await.unwrap();
    assert_eq!(state.count, 4_499);
    let again = delete_keys(&env, alice(), version, session).await.unwrap();
    assert_eq!(again, state);
    let room = Selection::Room(room_id!("!r0:x"));
    assert_eq!(delete_keys(&env, alice(), version, room).await.unwrap().count, 3_000);
    assert_eq!(delete_keys(&env, alice(), version, Selection::All).await.unwrap().count, 0);
}
