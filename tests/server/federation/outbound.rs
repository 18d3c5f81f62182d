//! What leaves the server: to servers that note what they are sent, that are down, or lose answers.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::FutureExt;
use millrace_domain::rooms::{AppendError, Draft, Numbers, RoomTx};
use millrace_store::{Read, Scan, engine::MemoryEngine, tables::TO_DEVICE_OUT};
use millrace_test_support::{Client, Manner, Recorder, TestClock, TestServer, Transaction};
use ruma::{OwnedRoomId, RoomId, UserId, events::TimelineEventType, server_name};
use serde_json::{Value, json};

struct World {
    one: TestServer,
    alice: Client,
    others: Recorder,
    engine: MemoryEngine,
}

async fn start(engine: &MemoryEngine, clock: TestClock, others: &Recorder) -> TestServer {
    let mut config = TestServer::config();
    config.server.server_name = "one".to_owned();
    TestServer::start_between(Arc::new(engine.clone()), &config, clock, others.transport()).await
}

impl World {
    async fn new() -> Self {
        let (engine, others) = (MemoryEngine::new(), Recorder::default());
        let one = start(&engine, TestClock::default(), &others).await;
        let alice = one.register("alice").await;
        let world = Self { one, alice, others, engine };
        // Nobody is told of the user's first device: it was there before anybody came.
        world.followed().await;
        world
    }

    /// Waits until the tasks of all servers were told of what is committed.
    async fn followed(&self) {
        let seq = self.one.env.store.snapshot().view().seq(0);
        while self.one.outbound.counts().followed < seq {
            self.one.outbound.wake();
            tokio::task::yield_now().await;
        }
    }

    /// Ends the server as a power loss would, as far as sending goes, and starts it again.
    async fn restarted(self) -> Self {
        let Self { one, alice, others, engine } = self;
        let clock = one.clock.clone();
        one.stop().await;
        let one = start(&engine, clock, &others).await;
        let alice = alice.on(&one);
        Self { one, alice, others, engine }
    }

    async fn room(&self) -> OwnedRoomId {
        let body = json!({ "preset": "public_chat" });
        let room = self.alice.post("/_matrix/client/v3/createRoom", body).await.ok();
        room["room_id"].as_str().unwrap().try_into().unwrap()
    }

    /// Sets a membership, also that of a user of another server, as if it had sent the event.
    async fn member(&self, room: &RoomId, sender: &str, target: &str, membership: &str) {
        let rooms = &self.one.federation.rooms;
        let numbers = &Numbers::draw(rooms, 1).await.unwrap();
        let content = serde_json::from_value(json!({ "membership": membership })).unwrap();
        let sender = UserId::parse(sender).unwrap();
        let draft = &Draft::state(&sender, TimelineEventType::RoomMember, target, content);
        let appended = rooms.env.store.transact(|tx| {
            async move {
                let opened = RoomTx::open(&tx, rooms, room, numbers).await?;
                let mut opened = opened.expect("the room is there");
                opened.append(draft.clone()).await?;
                opened.finish();
                Ok::<_, AppendError>(())
            }
            .boxed()
        });
        appended.await.unwrap();
    }

    async fn join(&self, room: &RoomId, user: &str) {
        self.member(room, user, user, "join").await;
    }

    async fn say(&self, room: &RoomId, text: &str) -> String {
        let id = text.replace(' ', "-");
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{id}");
        let body = json!({ "msgtype": "m.text", "body": text });
        let sent = self.alice.put(&path, body).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    /// Says many things in one commit.
    async fn say_at_once(&self, room: &RoomId, count: usize) {
        let rooms = &self.one.federation.rooms;
        let numbers = &Numbers::draw(rooms, count).await.unwrap();
        let sender = &self.alice.user().to_owned();
        let appended = rooms.env.store.transact(|tx| {
            async move {
                let opened = RoomTx::open(&tx, rooms, room, numbers).await?;
                let mut opened = opened.expect("the room is there");
                for n in 0..count {
                    let body = json!({ "msgtype": "m.text", "body": format!("m{n}") });
                    let content = serde_json::from_value(body).expect("an object");
                    let kind = TimelineEventType::RoomMessage;
                    opened.append(Draft::message(sender, kind, content)).await?;
                }
                opened.finish();
                Ok::<_, AppendError>(())
            }
            .boxed()
        });
        appended.await.unwrap();
    }

    async fn to_device(&self, user: &str, transaction: &str) {
        let path = format!("/_matrix/client/v3/sendToDevice/m.test/{transaction}");
        let body = json!({ "messages": { user: { "D": { "text": transaction } } } });
        self.alice.put(&path, body).await.ok();
    }

    /// The clock goes on, and who is due is tried.
    fn wait(&self, by: Duration) {
        self.one.clock.advance(by);
        self.one.outbound.wake();
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The texts of messages, in the order in which they came.
fn texts(transactions: &[Transaction]) -> Vec<String> {
    let pdus = transactions.iter().flat_map(Transaction::pdus);
    let bodies = pdus.filter_map(|pdu| pdu["content"]["body"].as_str());
    bodies.map(str::to_owned).collect()
}

fn has(text: &str) -> impl Fn(&[Transaction]) -> bool {
    move |transactions| texts(transactions).iter().any(|found| found == text)
}

fn messages(transactions: &[Transaction]) -> Vec<String> {
    let edus = transactions.iter().flat_map(|sent| sent.edus("m.direct_to_device"));
    let text = |edu: &Value| edu["messages"]["@bob:two"]["D"]["text"].as_str().map(str::to_owned);
    edus.filter_map(text).collect()
}

#[tokio::test]
async fn events_arrive_in_order_each_once_and_at_most_fifty_at_a_time() {
    let world = World::new().await;
    world.others.set("two", Manner::Holds);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    let all: Vec<String> = (0..130).map(|n| format!("m{n}")).collect();
    for text in &all {
        world.say(&room, text).await;
    }
    world.others.set("two", Manner::Up);
    let sent = world.others.until("two", has("m129")).await;
    assert_eq!(texts(&sent), all);
    assert!(sent.iter().all(|sent| sent.pdus().len() <= 50));
    assert!(sent.iter().any(|sent| sent.pdus().len() == 50), "what waits goes together");
    let ids: BTreeSet<_> = sent.iter().map(|sent| &sent.id).collect();
    assert_eq!(ids.len(), sent.len());
    let own = |pdu: &Value| pdu["sender"] == "@bob:two";
    assert!(!sent.iter().flat_map(Transaction::pdus).any(own), "its own events it has");
}

#[tokio::test]
async fn a_commit_with_more_events_of_a_room_than_are_read_at_once_is_sent_whole_and_in_order() {
    let world = World::new().await;
    world.others.set("two", Manner::Up);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "before").await;
    world.say_at_once(&room, 230).await;
    world.say(&room, "after").await;
    let sent = texts(&world.others.until("two", has("after")).await);
    let many = (0..230).map(|n| format!("m{n}"));
    let all: Vec<_> =
        ["before".to_owned()].into_iter().chain(many).chain(["after".to_owned()]).collect();
    assert_eq!(sent, all);
}

#[tokio::test]
async fn a_server_whose_user_was_only_invited_is_told_that_the_invitation_is_taken_back() {
    let world = World::new().await;
    world.others.set("two", Manner::Up);
    let room = world.room().await;
    for (invited, manner) in [("@bob:two", Manner::Up), ("@carol:three", Manner::Down)] {
        let server = invited.split_once(':').unwrap().1;
        world.others.set(server, manner);
        world.member(&room, "@alice:one", invited, "invite").await;
        let path = format!("/_matrix/client/v3/rooms/{room}/kick");
        world.alice.post(&path, json!({ "user_id": invited })).await.ok();
    }
    let leaves = |sent: &[Transaction]| {
        let pdus = sent.iter().flat_map(Transaction::pdus);
        pdus.filter(|pdu| pdu["content"]["membership"] == "leave").count()
    };
    world.others.until("two", |sent| leaves(sent) == 1).await;
    world.others.tried("three", 1).await;
    world.others.set("three", Manner::Up);
    world.wait(DAY);
    world.others.until("three", |sent| leaves(sent) == 1).await;
    world.say(&room, "among ourselves").await;
    world.to_device("@bob:two", "end").await;
    let sent = world.others.until("two", |sent| !messages(sent).is_empty()).await;
    assert!(!has("among ourselves")(&sent));
}

#[tokio::test]
async fn a_transaction_whose_answer_was_lost_is_repeated_as_the_same_also_after_a_crash() {
    let world = World::new().await;
    world.others.set("two", Manner::LosesAnswers);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "first").await;
    let sent = world.others.until("two", has("first")).await;
    world.say(&room, "second").await;
    let world = world.restarted().await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    let all = world.others.until("two", has("second")).await;
    assert_eq!(all[1].id, sent[0].id, "the same transaction");
    assert_eq!(all[1].pdus(), sent[0].pdus());
    let later: Vec<_> = all.iter().skip(2).cloned().collect();
    assert_eq!(texts(&later), ["second"], "and each event in one transaction only");
    assert!(later.iter().all(|later| later.id != sent[0].id));
}

#[tokio::test]
async fn what_was_not_sent_before_a_crash_is_sent_after_it() {
    let world = World::new().await;
    world.others.set("two", Manner::Holds);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "first").await;
    let before = world.others.until("two", has("first")).await;
    world.say(&room, "second").await;
    let world = world.restarted().await;
    world.others.set("two", Manner::Up);
    let all = world.others.until("two", has("second")).await;
    assert_eq!(texts(&all), ["first", "first", "second"]);
    assert_eq!(all[1].id, before[0].id);
}

#[tokio::test]
async fn after_an_outage_a_busy_room_is_caught_up_with_by_its_newest_event() {
    let world = World::new().await;
    let (busy, calm) = (world.room().await, world.room().await);
    for room in [&busy, &calm] {
        world.join(room, "@bob:two").await;
    }
    for n in 0..60 {
        world.say(&busy, &format!("busy{n}")).await;
    }
    for n in 0..3 {
        world.say(&calm, &format!("calm{n}")).await;
    }
    world.others.tried("two", 1).await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    let told = |sent: &[Transaction]| has("calm2")(sent) && has("busy59")(sent);
    let sent = texts(&world.others.until("two", told).await);
    let of = |name: &str| sent.iter().filter(|text| text.starts_with(name)).count();
    assert_eq!(of("calm"), 3, "where little happened all is sent: {sent:?}");
    assert!(of("busy") < 55, "where much did, the newest: {sent:?}");
    world.say(&busy, "live").await;
    world.say(&calm, "live too").await;
    let again = world.others.until("two", has("live too")).await;
    assert_eq!(texts(&again)[sent.len()..], ["live", "live too"]);
}

#[tokio::test]
async fn a_server_that_shows_up_is_told_at_once() {
    let world = World::new().await;
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "hello").await;
    world.others.tried("two", 1).await;
    world.others.set("two", Manner::Up);
    // Several times in vain would take it longer; here its pause is not over yet, but it speaks to us.
    let two = ruma::server_name!("two");
    while world.one.federation.destinations.is_due(two) {
        tokio::task::yield_now().await;
    }
    world.one.federation.destinations.succeeded(two).await;
    world.others.until("two", has("hello")).await;
}

#[tokio::test]
async fn servers_that_are_down_are_tried_once_and_cost_nothing_until_they_are_due() {
    const DEAD: usize = 300;
    let world = World::new().await;
    world.others.set("two", Manner::Up);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    for n in 0..DEAD {
        world.join(&room, &format!("@user:dead{n}")).await;
    }
    world.say(&room, "first").await;
    for n in 0..DEAD {
        world.others.tried(&format!("dead{n}"), 1).await;
    }
    while world.one.outbound.counts().waiting < DEAD {
        tokio::task::yield_now().await;
    }
    let before = world.others.attempts_of_all() - world.others.attempts("two");
    for n in 0..20 {
        world.say(&room, &format!("m{n}")).await;
    }
    world.others.until("two", has("m19")).await;
    let after = world.others.attempts_of_all() - world.others.attempts("two");
    assert_eq!(before, after, "nobody who is down was tried again");
    assert_eq!(world.one.outbound.counts().active, 1);
    world.wait(DAY);
    for n in 0..DEAD {
        world.others.tried(&format!("dead{n}"), 2).await;
    }
}

#[tokio::test]
async fn receipts_of_a_user_that_wait_are_one_and_private_ones_stay_here() {
    let world = World::new().await;
    world.others.set("two", Manner::Holds);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    let mut last = String::new();
    for n in 0..3 {
        last = world.say(&room, &format!("m{n}")).await;
        world.others.until("two", |sent| !sent.is_empty()).await;
        let path = format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{last}");
        world.alice.post(&path, json!({})).await.ok();
    }
    let private = world.say(&room, "private").await;
    let path = format!("/_matrix/client/v3/rooms/{room}/receipt/m.read.private/{private}");
    world.alice.post(&path, json!({})).await.ok();
    world.to_device("@bob:two", "end").await;
    world.followed().await;
    world.others.set("two", Manner::Up);
    let sent = world
        .others
        .until("two", |sent| {
            !messages(sent).is_empty() && sent.iter().any(|sent| !sent.edus("m.receipt").is_empty())
        })
        .await;
    let receipts: Vec<_> = sent.iter().flat_map(|sent| sent.edus("m.receipt")).collect();
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    let read = &receipts[0][room.as_str()]["m.read"]["@alice:one"];
    assert_eq!(read["event_ids"], json!([last]));
}

#[tokio::test]
async fn messages_to_devices_arrive_once_and_in_order_over_an_outage_and_a_crash() {
    let world = World::new().await;
    world.others.set("two", Manner::LosesAnswers);
    world.to_device("@bob:two", "a").await;
    let first = world.others.until("two", |sent| !sent.is_empty()).await;
    world.to_device("@bob:two", "b").await;
    let world = world.restarted().await;
    world.to_device("@bob:two", "c").await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    let sent =
        world.others.until("two", |sent| messages(sent).iter().any(|text| text == "c")).await;
    assert_eq!(sent[1].id, first[0].id);
    let id = |sent: &Transaction| sent.edus("m.direct_to_device")[0]["message_id"].clone();
    assert_eq!(id(&sent[1]), id(&first[0]), "what may have arrived has the same ID");
    assert_eq!(messages(&sent[1..]), ["a", "b", "c"]);
    world.to_device("@bob:two", "d").await;
    let sent =
        world.others.until("two", |sent| messages(sent).iter().any(|text| text == "d")).await;
    assert_eq!(messages(&sent[1..]), ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn messages_to_devices_expire_for_a_server_that_is_gone_and_changes_of_devices_are_told_later()
 {
    let world = World::new().await;
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.to_device("@bob:two", "old").await;
    world.others.tried("two", 1).await;
    let login = json!({
        "type": "m.login.password", "password": "password", "device_id": "NEW",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    world.one.client().post("/_matrix/client/v3/login", login).await.ok();
    world.wait(31 * DAY);
    // What is too old is looked for at the start, and now and then.
    let world = world.restarted().await;
    loop {
        let snapshot = world.one.env.store.snapshot();
        let waiting = snapshot.scan(&TO_DEVICE_OUT, server_name!("two"), Scan::all()).await;
        if waiting.unwrap().is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    world.to_device("@bob:two", "new").await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    let changes = |sent: &[Transaction]| -> Vec<Value> {
        let edus = sent.iter().flat_map(|sent| sent.edus("m.device_list_update"));
        edus.filter(|edu| edu["device_id"] == "NEW").cloned().collect()
    };
    let all = |sent: &[Transaction]| !changes(sent).is_empty() && !messages(sent).is_empty();
    let sent = world.others.until("two", all).await;
    assert_eq!(messages(&sent), ["new"]);
    // It follows one that the other server does not know, which asks for the whole list then.
    let changes = changes(&sent);
    assert!(changes[0]["prev_id"].as_array().is_some_and(|ids| !ids.is_empty()), "{changes:?}");
}

#[tokio::test]
async fn a_server_whose_last_user_is_kicked_gets_the_kick_and_nothing_after() {
    let world = World::new().await;
    for server in ["two", "three"] {
        world.others.set(server, Manner::Up);
    }
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.join(&room, "@carol:three").await;
    world.say(&room, "hello").await;
    let path = format!("/_matrix/client/v3/rooms/{room}/kick");
    world.alice.post(&path, json!({ "user_id": "@bob:two" })).await.ok();
    world.say(&room, "he is gone").await;
    world.others.until("three", has("he is gone")).await;
    // What is sent to a server keeps its order, so after this nothing from before is to come.
    world.to_device("@bob:two", "end").await;
    let sent = world.others.until("two", |sent| !messages(sent).is_empty()).await;
    assert_eq!(texts(&sent), ["hello"]);
    let last = sent.iter().flat_map(Transaction::pdus).next_back().unwrap();
    assert_eq!(last["state_key"], "@bob:two");
    assert_eq!(last["content"]["membership"], "leave");
}

#[tokio::test]
async fn a_server_that_was_down_when_its_last_user_was_banned_hears_of_it_and_not_more() {
    let world = World::new().await;
    let (room, other) = (world.room().await, world.room().await);
    for room in [&room, &other] {
        world.join(room, "@bob:two").await;
    }
    world.say(&room, "hello").await;
    world.others.tried("two", 1).await;
    world.member(&room, "@alice:one", "@bob:two", "ban").await;
    world.say(&room, "he is gone").await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    world.say(&other, "elsewhere").await;
    let sent = world.others.until("two", has("elsewhere")).await;
    assert!(!has("he is gone")(&sent));
    let bans = sent.iter().flat_map(Transaction::pdus);
    assert_eq!(bans.filter(|pdu| pdu["content"]["membership"] == "ban").count(), 1);
}

#[tokio::test]
async fn typing_and_presence_are_told_and_not_kept_for_who_is_down() {
    let world = World::new().await;
    world.others.set("two", Manner::Up);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.join(&room, "@carol:three").await;
    let path = format!("/_matrix/client/v3/rooms/{room}/typing/@alice:one");
    world.alice.put(&path, json!({ "typing": true, "timeout": 30000 })).await.ok();
    let typing = |sent: &[Transaction]| -> Vec<bool> {
        let edus = sent.iter().flat_map(|sent| sent.edus("m.typing"));
        edus.filter_map(|edu| edu["typing"].as_bool()).collect()
    };
    world.others.until("two", |sent| typing(sent) == [true]).await;
    world.alice.put(&path, json!({ "typing": false })).await.ok();
    world.others.until("two", |sent| typing(sent) == [true, false]).await;
    let status = "/_matrix/client/v3/presence/@alice:one/status";
    let online = json!({ "presence": "online", "status_msg": "hey" });
    world.alice.put(status, online).await.ok();
    let statuses = |sent: &[Transaction]| -> Vec<Value> {
        let edus = sent.iter().flat_map(|sent| sent.edus("m.presence"));
        edus.map(|edu| edu["push"][0]["status_msg"].clone()).collect()
    };
    world.others.until("two", |sent| statuses(sent).contains(&json!("hey"))).await;
    world.others.tried("three", 1).await;
    while world.one.outbound.counts().waiting < 1 {
        tokio::task::yield_now().await;
    }
    world.others.set("three", Manner::Up);
    world.wait(DAY);
    world.say(&room, "hello").await;
    let sent = world.others.until("three", has("hello")).await;
    assert!(typing(&sent).is_empty() && statuses(&sent).is_empty(), "{sent:?}");
}

#[tokio::test]
async fn a_transaction_that_a_server_will_never_take_does_not_hold_up_the_next() {
    let world = World::new().await;
    world.others.set("two", Manner::Refuses(400));
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "first").await;
    world.others.until("two", has("first")).await;
    world.others.set("two", Manner::Up);
    world.say(&room, "second").await;
    let sent = world.others.until("two", has("second")).await;
    assert_eq!(texts(&sent), ["first", "second"]);
}

#[tokio::test]
async fn changes_of_devices_are_told_in_a_chain_also_after_an_outage() {
    let world = World::new().await;
    world.others.set("two", Manner::Up);
    let room = world.room().await;
    world.join(&room, "@bob:two").await;
    world.say(&room, "hello").await;
    world.others.until("two", has("hello")).await;
    let log_in = async || {
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let body =
            json!({ "type": "m.login.password", "identifier": user, "password": "password" });
        world.one.client().post("/_matrix/client/v3/login", body).await.ok();
    };
    let updates = |sent: &[Transaction]| -> Vec<Value> {
        let edus = sent.iter().flat_map(|sent| sent.edus("m.device_list_update"));
        edus.cloned().collect()
    };
    log_in().await;
    world.others.until("two", |sent| updates(sent).len() == 1).await;
    world.others.set("two", Manner::Down);
    log_in().await;
    log_in().await;
    world.others.tried("two", 3).await;
    world.others.set("two", Manner::Up);
    world.wait(DAY);
    let sent = updates(&world.others.until("two", |sent| updates(sent).len() == 3).await);
    for pair in sent.windows(2) {
        assert_eq!(pair[1]["prev_id"], json!([pair[0]["stream_id"]]), "{sent:?}");
    }
    assert_eq!(sent[0]["user_id"], "@alice:one");
}
