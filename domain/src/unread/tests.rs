use millrace_store::{
    Read,
    rows::receipt::{ReceiptKind, UnreadCount},
    tables::ROOM_HEAD,
};
use ruma::{EventId, OwnedEventId};
use serde_json::json;

use super::*;
use crate::{
    receipts::{NewReceipt, Scope, advance},
    rooms::test_room::{TestRoom, user},
};

struct World {
    room: TestRoom,
    unreads: Unreads,
}

impl World {
    /// Alice's room, which Bob has joined.
    async fn new() -> Self {
        let room = TestRoom::with_visibility("shared").await;
        room.say("alice", "before bob came").await;
        room.member("bob", "bob", "join").await;
        Self { room, unreads: Unreads::default() }
    }

    async fn counts_by(&self, unreads: &Unreads) -> Counts {
        let rooms = &self.room.rooms;
        let snapshot = rooms.env.store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, &self.room.id, ()).await.unwrap().unwrap();
        unreads.counts(rooms, &snapshot, &user("bob"), (&self.room.id, &head)).await.unwrap()
    }

    /// Bob's counts, which must be the same when they are counted anew.
    async fn counts(&self) -> Counts {
        let counts = self.counts_by(&self.unreads).await;
        assert_eq!(counts, self.counts_by(&Unreads::default()).await, "after a restart");
        counts
    }

    async fn total(&self) -> (u64, u64) {
        let UnreadCount { notify, highlight } = self.counts().await.total();
        (notify, highlight)
    }

    async fn read(&self, event: &EventId, scope: Scope) {
        let receipt = NewReceipt { kind: ReceiptKind::Private, scope, event_id: event.to_owned() };
        advance(&self.room.rooms, &self.room.id, &user("bob"), receipt).await.unwrap();
    }

    async fn in_thread(&self, sender: &str, root: &EventId) -> OwnedEventId {
        let relates_to = json!({"rel_type": "m.thread", "event_id": root});
        self.room.message(sender, json!({"body": "x", "m.relates_to": relates_to})).await
    }
}

const fn count(notify: u64, highlight: u64) -> UnreadCount {
    UnreadCount { notify, highlight }
}

#[tokio::test]
async fn messages_count_from_the_join_on_and_mentions_highlight() {
    let world = World::new().await;
    assert_eq!(world.total().await, (0, 0));
    world.room.say("alice", "one").await;
    world.room.say("alice", "hello @bob:test.example").await;
    assert_eq!(world.total().await, (2, 1));
    world.room.set("alice", "m.room.topic", "", json!({"topic": "t"})).await;
    assert_eq!(world.total().await, (2, 1), "a topic does not notify");
}

#[tokio::test]
async fn a_receipt_and_an_own_message_reset_the_count() {
    let world = World::new().await;
    let first = world.room.say("alice", "1").await;
    world.room.say("alice", "2").await;
    assert_eq!(world.total().await, (2, 0));
    world.read(&first, Scope::All).await;
    assert_eq!(world.total().await, (1, 0));
    world.room.say("bob", "an answer").await;
    assert_eq!(world.total().await, (0, 0));
    world.room.say("alice", "3").await;
    assert_eq!(world.total().await, (1, 0));
}

#[tokio::test]
async fn threads_are_counted_and_read_apart() {
    let world = World::new().await;
    let root = world.room.say("alice", "root").await;
    let first = world.in_thread("alice", &root).await;
    world.in_thread("alice", &root).await;
    let main = world.room.say("alice", "main").await;
    let counts = world.counts().await;
    assert_eq!(counts.main, count(2, 0));
    assert_eq!(counts.threads[&root], count(2, 0));
    world.read(&root, Scope::Main).await;
    world.read(&first, Scope::Thread(root.clone())).await;
    let counts = world.counts().await;
    assert_eq!((counts.main, counts.threads[&root]), (count(1, 0), count(1, 0)));
    world.in_thread("bob", &root).await;
    let counts = world.counts().await;
    assert_eq!((counts.main, counts.threads.len()), (count(1, 0), 0), "answering reads the thread");
    world.in_thread("alice", &root).await;
    world.read(&main, Scope::All).await;
    let counts = world.counts().await;
    assert_eq!((counts.main, counts.threads[&root]), (count(0, 0), count(1, 0)));
}

#[tokio::test]
async fn a_change_of_name_reads_nothing_in_threads() {
    let world = World::new().await;
    let root = world.room.say("alice", "root").await;
    world.in_thread("alice", &root).await;
    let name = json!({"membership": "join", "displayname": "Bobby"});
    world.room.set("bob", "m.room.member", user("bob").as_str(), name).await;
    assert_eq!(world.counts().await.threads[&root], count(1, 0));
    world.room.say("alice", "hello bobby").await;
    assert_eq!(world.counts().await.main, count(1, 1), "the new name is a mention");
}

#[tokio::test]
async fn messages_of_ignored_users_do_not_count() {
    let world = World::new().await;
    let list = json!({"ignored_users": {"@alice:test.example": {}}}).to_string();
    let list = serde_json::value::RawValue::from_string(list).unwrap();
    let env = &world.room.rooms.env;
    crate::account_data::set(env, &user("bob"), None, "m.ignored_user_list", &list).await.unwrap();
    world.room.say("alice", "hello bob").await;
    assert_eq!(world.total().await, (0, 0));
}

#[tokio::test]
async fn a_change_of_push_rules_decides_about_later_messages() {
    let world = World::new().await;
    world.room.say("alice", "1").await;
    assert_eq!(world.counts_by(&world.unreads).await.main, count(1, 0));
    let (env, kind) = (&world.room.rooms.env, ruma::push::RuleKind::Override);
    crate::push_rules::set_enabled(env, &user("bob"), &kind, ".m.rule.master", true).await.unwrap();
    world.room.say("alice", "2").await;
    assert_eq!(world.counts_by(&world.unreads).await.main, count(1, 0));
}

#[tokio::test]
async fn a_long_count_goes_on_from_what_was_written_down() {
    let world = World::new().await;
    for _ in 0..310 {
        world.room.say("alice", "x").await;
    }
    assert_eq!(world.counts_by(&world.unreads).await.main, count(310, 0));
    let store = &world.room.rooms.env.store;
    let (bob, unread) = (&user("bob"), &millrace_store::tables::UNREAD);
    while store.snapshot().get(unread, bob, &world.room.id).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    world.room.say("alice", "x").await;
    assert_eq!(world.counts().await.main, count(311, 0));
}

#[tokio::test]
async fn notifications_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let first = world.room.say("alice", "1").await;
    world.room.say("alice", "2 bob").await;
    world.room.say("alice", "3").await;
    world.read(&first, Scope::All).await;
    let list = async |before, limit, highlights_only| {
        let query = NotificationsQuery { before, limit, highlights_only };
        let (unreads, rooms) = (&world.unreads, &world.room.rooms);
        let page = notifications(unreads, rooms, &user("bob"), query).await.unwrap();
        let body = |one: &Notification| {
            let event: serde_json::Value = serde_json::from_str(one.event.get()).unwrap();
            (event["content"]["body"].as_str().unwrap().to_owned(), one.read)
        };
        (page.notifications.iter().map(body).collect::<Vec<_>>(), page.next)
    };
    let expected = |rows: &[(&str, bool)]| -> Vec<_> {
        rows.iter().map(|(body, read)| ((*body).to_owned(), *read)).collect()
    };
    let (page, next) = list(None, 2, false).await;
    assert_eq!(page, expected(&[("3", false), ("2 bob", false)]));
    // What was sent before Bob came was for others.
    assert_eq!(list(next, 10, false).await, (expected(&[("1", true)]), None));
    assert_eq!(list(None, 10, true).await.0, expected(&[("2 bob", false)]));
}
