//! Notifications, from an event to the gateway or the mailbox: a whole server, and gateways of the test's
//! own.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{sync::Arc, time::Duration};

use millrace::config::{Config, email::Security};
use millrace_store::{Read, Scan, engine::MemoryEngine, tables::PUSHERS_BEHIND};
use millrace_test_support::{Client, FakeAnswer, FakeServer, MailSink, Network, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

/// Alice writes to Bob, whose phone is asleep.
struct World {
    network: Network,
    engine: Arc<MemoryEngine>,
    config: Config,
    server: TestServer,
    gateway: FakeServer,
    alice: Client,
    bob: Client,
    room: String,
}

fn pusher(key: &str, format: Value) -> Value {
    let mut data = json!({ "url": "https://push.test/_matrix/push/v1/notify", "brand": "x" });
    if !format.is_null() {
        data["format"] = format;
    }
    json!({
        "kind": "http", "app_id": "app", "pushkey": key, "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "data": data, "append": true,
    })
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true: {what}");
}

/// Long enough for what must not happen to happen.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

impl World {
    async fn new() -> Self {
        Self::with(TestServer::config()).await
    }

    async fn with(mut config: Config) -> Self {
        let network = Network::default();
        config.server.server_name = "hs.test".to_owned();
        let engine = Arc::new(MemoryEngine::new());
        let server = start(&network, &engine, &config).await;
        let gateway = FakeServer::start(&network, "push.test");
        gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({ "rejected": [] }))));
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let body = json!({ "preset": "private_chat", "name": "Kitchen", "invite": [bob.user()] });
        let made = alice.post(&format!("{V3}/createRoom"), body).await.ok();
        let room = made["room_id"].as_str().unwrap().to_owned();
        bob.post(&format!("{V3}/join/{room}"), json!({})).await.ok();
        Self { network, engine, config, server, gateway, alice, bob, room }
    }

    async fn push_to(&self, user: &Client, pusher: Value) {
        // What was there before is older.
        self.network.clock.advance(Duration::from_secs(1));
        user.post(&format!("{V3}/pushers/set"), pusher).await.ok();
    }

    async fn say(&self, text: &str) -> String {
        let body = json!({ "msgtype": "m.text", "body": text });
        let txn: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = format!("{V3}/rooms/{}/send/m.room.message/{txn}", self.room);
        let sent = self.alice.put(&path, body).await.ok();
        sent["event_id"].as_str().unwrap().to_owned()
    }

    async fn read(&self, event: &str) {
        let path = format!("{V3}/rooms/{}/receipt/m.read/{event}", self.room);
        self.bob.post(&path, json!({})).await.ok();
    }

    /// What the gateway was told, the oldest first.
    fn told(&self) -> Vec<Value> {
        let asked = self.gateway.asked("/notify").into_iter();
        asked.map(|asked| asked.body["notification"].clone()).collect()
    }

    async fn told_times(&self, times: usize) -> Vec<Value> {
        eventually(&format!("{times} notifications"), || self.told().len() >= times).await;
        a_moment().await;
        let told = self.told();
        assert_eq!(told.len(), times, "{told:#?}");
        told
    }

    async fn pushers(&self) -> usize {
        let listed = self.bob.get(&format!("{V3}/pushers")).await.ok();
        listed["pushers"].as_array().unwrap().len()
    }
}

async fn start(network: &Network, engine: &Arc<MemoryEngine>, config: &Config) -> TestServer {
    let transport = network.transport("hs.test");
    TestServer::start_between(engine.clone(), config, network.clock.clone(), transport).await
}

#[tokio::test]
async fn a_message_is_pushed_as_the_specification_says_and_reading_clears_the_badge() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    let event = world.say("Tea?").await;
    let told = world.told_times(1).await;
    let notification = &told[0];
    let ts = &notification["devices"][0]["pushkey_ts"];
    assert!(ts.as_u64().unwrap() > 1_700_000_000);
    let expected = json!({
        "event_id": event, "room_id": world.room, "type": "m.room.message",
        "sender": "@alice:hs.test", "sender_display_name": "alice", "room_name": "Kitchen",
        "content": { "msgtype": "m.text", "body": "Tea?" },
        "prio": "high", "counts": { "unread": 1 },
        "devices": [{
            "app_id": "app", "pushkey": "key", "pushkey_ts": ts, "data": { "brand": "x" },
            "tweaks": { "sound": "default" },
        }],
    });
    assert_eq!(*notification, expected);

    let second = world.say("Still hot").await;
    assert_eq!(world.told_times(2).await[1]["counts"]["unread"], 2);
    world.read(&second).await;
    let told = world.told_times(3).await;
    assert_eq!(told[2]["counts"], json!({ "unread": 0 }));
    assert!(told[2].get("event_id").is_none(), "only the badge");
}

#[tokio::test]
async fn who_wants_only_ids_gets_no_content_and_who_sends_gets_nothing() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", "event_id_only".into())).await;
    world.push_to(&world.alice, pusher("alice's", Value::Null)).await;
    let event = world.say("Tea?").await;
    let told = world.told_times(1).await;
    let mut notification = told[0].clone();
    notification.as_object_mut().unwrap().remove("devices");
    let expected = json!({
        "event_id": event, "room_id": world.room, "prio": "high", "counts": { "unread": 1 },
    });
    assert_eq!(notification, expected);
}

#[tokio::test]
async fn a_muted_room_pushes_nothing() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    let rule = json!({ "actions": [] });
    let path = format!("{V3}/pushrules/global/room/{}", world.room);
    world.bob.put(&path, rule).await.ok();
    world.say("Tea?").await;
    a_moment().await;
    assert_eq!(world.told(), Vec::<Value>::new());
}

#[tokio::test]
async fn an_invitation_is_pushed() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    let body = json!({ "preset": "private_chat", "name": "Cellar", "invite": [world.bob.user()] });
    world.alice.post(&format!("{V3}/createRoom"), body).await.ok();
    let told = world.told_times(1).await;
    assert_eq!(told[0]["type"], "m.room.member");
    assert_eq!(told[0]["user_is_target"], true);
    assert_eq!(told[0]["membership"], "invite");
    assert_eq!(told[0]["room_name"], "Cellar");
}

#[tokio::test]
async fn a_rejected_key_removes_the_pusher() {
    let world = World::new().await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({ "rejected": ["key"] }))));
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    world.push_to(&world.bob, pusher("other", Value::Null)).await;
    world.say("Tea?").await;
    world.told_times(2).await;
    for _ in 0..100 {
        if world.pushers().await == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the pusher is still there");
}

#[tokio::test]
async fn a_gateway_that_was_down_gets_what_is_still_unread_once_also_after_a_restart() {
    let mut world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Status(503, json!({}))));
    let first = world.say("one").await;
    let down = world.told_times(1).await.len();
    for text in ["two", "three"] {
        world.say(text).await;
    }
    world.read(&first).await;
    a_moment().await;
    assert_eq!(world.told().len(), down, "it is left alone for a while");

    // The process dies; what is not sent is in the store.
    world.server.stop().await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({ "rejected": [] }))));
    world.network.clock.advance(Duration::from_secs(5));
    world.server = start(&world.network, &world.engine, &world.config).await;
    let told = world.told_times(down + 2).await;
    let bodies: Vec<&Value> = told[down..].iter().map(|told| &told["content"]["body"]).collect();
    assert_eq!(bodies, ["two", "three"], "what is read is not pushed");
    assert_eq!(told[down]["counts"]["unread"], 2);
}

#[tokio::test]
async fn many_that_waited_are_told_by_the_newest() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Status(503, json!({}))));
    world.say("0").await;
    world.told_times(1).await;
    for number in 1..30 {
        world.say(&number.to_string()).await;
    }
    world.gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({}))));
    world.network.clock.advance(Duration::from_secs(5));
    let told = world.told_times(2).await;
    assert_eq!(told[1]["content"]["body"], "29");
    assert_eq!(told[1]["counts"]["unread"], 30);
}

#[tokio::test]
async fn what_is_too_old_is_dropped_and_garbage_is_no_answer() {
    let world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    for garbage in [FakeAnswer::Text("<html>".into()), FakeAnswer::Endless] {
        world.gateway.on("/notify", move |_| Some(garbage.clone()));
        let before = world.told().len();
        world.say(&format!("old {before}")).await;
        world.network.clock.advance(Duration::from_hours(1));
        eventually("it is tried", || world.told().len() > before).await;
    }
    world.network.clock.advance(Duration::from_hours(25));
    world.gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({}))));
    let before = world.told().len();
    a_moment().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = world.told();
    let shown = after[before..].iter().filter(|told| told.get("event_id").is_some());
    assert_eq!(shown.count(), 0, "{after:#?}");
}

#[tokio::test]
async fn a_gateway_that_is_down_for_long_is_behind_by_no_more_than_what_is_not_too_old() {
    let mut world = World::new().await;
    world.push_to(&world.bob, pusher("key", Value::Null)).await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Status(503, json!({}))));
    world.say("old").await;
    let old = world.server.env.store.snapshot().view().seq(0);
    world.told_times(1).await;
    world.network.clock.advance(Duration::from_hours(23));
    eventually("it is tried again", || world.told().len() > 1).await;
    world.say("newer").await;
    let before = world.told().len();
    world.network.clock.advance(Duration::from_hours(2));
    eventually("it is tried with what is newer", || world.told().len() > before).await;
    assert_eq!(world.told()[before]["content"]["body"], "newer");
    let behind = async || {
        let snapshot = world.server.env.store.snapshot();
        let rows = snapshot.scan(&PUSHERS_BEHIND, world.bob.user(), Scan::all()).await.unwrap();
        rows[0].1.since
    };
    for _ in 0..100 {
        if behind().await >= old {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(behind().await >= old, "what is too old is not looked at again");

    let before = world.told().len();
    world.server.stop().await;
    world.gateway.on("/notify", |_| Some(FakeAnswer::Json(json!({ "rejected": [] }))));
    world.network.clock.advance(Duration::from_hours(2));
    world.server = start(&world.network, &world.engine, &world.config).await;
    let told = world.told_times(before + 1).await;
    assert_eq!(told[before]["content"]["body"], "newer");
}

/// A server that sends mail, on which Bob has an address.
async fn mail_world() -> (World, MailSink) {
    let sink = MailSink::start().await;
    let mut config = TestServer::config();
    config.email.smtp_host = Some("127.0.0.1".to_owned());
    config.email.smtp_port = Some(sink.port());
    config.email.smtp_security = Security::None;
    config.email.from = Some("Test <no-reply@test>".to_owned());
    config.well_known.client = Some("https://client.test".to_owned());
    let world = World::with(config).await;
    let secret = "s3cret";
    let body = json!({ "client_secret": secret, "email": "bob@mail.test", "send_attempt": 1 });
    let path = format!("{V3}/account/3pid/email/requestToken");
    let sid = world.bob.post(&path, body).await.ok()["sid"].clone();
    world.bob.text(&sink.newest().link()).await;
    let body = json!({
        "sid": sid, "client_secret": secret,
        "auth": {
            "type": "m.login.password", "password": "password",
            "identifier": { "type": "m.id.user", "user": "bob" },
        },
    });
    world.bob.post(&format!("{V3}/account/3pid/add"), body).await.ok();
    (world, sink)
}

fn mail_pusher(address: &str) -> Value {
    json!({
        "kind": "email", "app_id": "m.email", "pushkey": address, "app_display_name": "Mail",
        "device_display_name": address, "lang": "en", "data": {}, "append": true,
    })
}

#[tokio::test]
async fn unread_messages_come_by_mail_after_a_while_all_in_one_until_unsubscribed() {
    let (world, sink) = mail_world().await;
    let path = format!("{V3}/pushers/set");
    let refused = world.bob.post(&path, mail_pusher("alice@mail.test")).await;
    refused.refused(400, "M_THREEPID_NOT_FOUND");
    world.push_to(&world.bob, mail_pusher("bob@mail.test")).await;
    let before = sink.count();
    let read = world.say("read at once").await;
    world.read(&read).await;
    for text in ["Tea?", "Still <hot>"] {
        world.say(text).await;
    }
    a_moment().await;
    assert_eq!(sink.count(), before, "it may be read yet");
    world.network.clock.advance(Duration::from_mins(11));
    eventually("a mail", || sink.count() > before).await;
    let mail = sink.newest();
    assert_eq!(mail.to, "bob@mail.test");
    for part in ["Kitchen", "alice: Tea?", "Still <hot>", "Still &lt;hot&gt;", "List-Unsubscribe"] {
        assert!(mail.text.contains(part), "{part}: {}", mail.text);
    }
    assert!(!mail.text.contains("read at once"), "{}", mail.text);

    // More comes, but not at once.
    world.say("Cold now").await;
    world.network.clock.advance(Duration::from_mins(11));
    a_moment().await;
    assert_eq!(sink.count(), before + 1);

    let text = mail.text.split_once("open this link:").unwrap().1;
    let path = text.split_whitespace().next().unwrap();
    let path = path.strip_prefix("https://client.test").unwrap();
    let client = world.server.client();
    assert!(world.bob.text(path).await.contains("Yes, no more mails"));
    assert_eq!(world.pushers().await, 1, "looking at the link ends nothing");
    let forged = path.replace("m.email", "m.other");
    let cut = path.split_once("&proof").unwrap().0;
    for bad in [forged.as_str(), cut] {
        client.get(bad).await.says(400, "This link is not valid");
        client.post(bad, json!({})).await.says(400, "This link is not valid");
    }
    client.post(path, json!({})).await;
    assert_eq!(world.pushers().await, 0);
    world.network.clock.advance(Duration::from_hours(2));
    a_moment().await;
    assert_eq!(sink.count(), before + 1);
}
