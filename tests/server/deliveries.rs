//! How far messages have come: what senders who ask are told, and that nobody else notices.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::time::Duration;

use millrace_test_support::{
    Answer, Client, FakeAnswer, FakeRoom, FakeServer, Network, TestServer,
};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const DEVICE: &str = "org.matrix.msc4089.delivery";
const SERVER: &str = "org.millrace.server_delivery";

async fn private_room(creator: &Client, invited: &[&Client]) -> String {
    let users: Vec<_> = invited.iter().map(|client| client.user()).collect();
    let body = json!({ "preset": "private_chat", "invite": users });
    let room = creator.post(&format!("{V3}/createRoom"), body).await.ok();
    let room = text(&room["room_id"]);
    for client in invited {
        join(client, &room, creator).await;
    }
    room
}

async fn join(client: &Client, room: &str, creator: &Client) {
    let via = creator.user().server_name();
    client.post(&format!("{V3}/join/{room}?via={via}"), json!({})).await.ok();
}

async fn say(sender: &Client, room: &str, body: &str) -> String {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{body}");
    text(&sender.put(&path, json!({ "msgtype": "m.text", "body": body })).await.ok()["event_id"])
}

async fn deliver(client: &Client, room: &str, event: &str) -> Answer {
    client.post(&format!("{V3}/rooms/{room}/receipt/{DEVICE}/{event}"), json!({})).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// All receipts in a response, as `event type user`.
fn receipts(news: &Value) -> Vec<String> {
    let rooms = news["rooms"]["join"].as_object().into_iter().flatten();
    let events = rooms.flat_map(|(_, room)| room["ephemeral"]["events"].as_array()).flatten();
    let contents = events.filter(|event| event["type"] == "m.receipt");
    let mut found = Vec::new();
    for (event, types) in contents.flat_map(|event| event["content"].as_object().unwrap()) {
        for (kind, users) in types.as_object().unwrap() {
            found.extend(users.as_object().unwrap().iter().map(|(user, receipt)| {
                assert!(receipt["ts"].as_u64().is_some_and(|ts| ts > 0), "{receipt}");
                format!("{event} {kind} {user}")
            }));
        }
    }
    found
}

/// A device that syncs.
struct Device<'a> {
    client: &'a Client,
    filter: String,
    since: String,
}

impl<'a> Device<'a> {
    /// One as all are today.
    async fn ordinary(client: &'a Client) -> Self {
        let mut device = Self { client, filter: String::new(), since: String::new() };
        device.sync(0).await;
        device
    }

    /// One that asks how far its user's messages have come.
    async fn asking(client: &'a Client) -> Self {
        let types = json!(["m.receipt", "m.typing", DEVICE]);
        let filter = json!({ "room": { "ephemeral": { "types": types } } });
        let made = client.post(&format!("{V3}/user/{}/filter", client.user()), filter).await.ok();
        let filter = format!("&filter={}", text(&made["filter_id"]));
        let mut device = Self { client, filter, since: String::new() };
        device.sync(0).await;
        device
    }

    /// The next response. It acknowledges the one before.
    async fn sync(&mut self, timeout_ms: u32) -> Value {
        let since = match self.since.as_str() {
            "" => String::new(),
            since => format!("&since={since}"),
        };
        let path = format!("{V3}/sync?timeout={timeout_ms}{}{since}", self.filter);
        let news = self.client.get(&path).await.ok();
        self.since = text(&news["next_batch"]);
        news
    }

    /// Waits for an event.
    async fn sees(&mut self, event: &str) {
        while !self.sync(10_000).await.to_string().contains(event) {}
    }

    /// Waits for a receipt; returns what it saw of receipts until then, that one last.
    async fn hears(&mut self, receipt: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let new = receipts(&self.sync(10_000).await);
            let is_there = new.iter().any(|new| new == receipt);
            heard.extend(new);
            if is_there {
                return heard;
            }
        }
    }
}

#[tokio::test]
async fn a_sender_who_asks_hears_when_a_device_has_a_message_and_nobody_else_notices() {
    let server = TestServer::start().await;
    let versions = server.client().get("/_matrix/client/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4089"], true);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = private_room(&alice, &[&bob, &carol]).await;
    let mut asking = Device::asking(&alice).await;
    let mut ordinary = Device::ordinary(&alice).await;
    let (mut carols, mut bobs) = (Device::asking(&carol).await, Device::ordinary(&bob).await);

    let first = say(&alice, &room, "first").await;
    let second = say(&alice, &room, "second").await;
    bobs.sees(&second).await;
    asking.sees(&second).await;
    ordinary.sees(&second).await;
    carols.sees(&second).await;
    let quiet = asking.sync(0).await;
    assert!(receipts(&quiet).is_empty(), "what was sent may have been lost: {quiet}");

    let unread = bobs.sync(0).await;
    assert!(unread["rooms"].get("join").is_none(), "nothing changed for bob: {unread}");
    let heard = asking.hears(&format!("{second} {DEVICE} @bob:test")).await;
    assert_eq!(heard.len(), 1, "the newest stands for {first} too: {heard:?}");
    let unmoved = ordinary.sync(0).await;
    let fields: Vec<_> = unmoved.as_object().unwrap().keys().collect();
    assert!(unmoved.get("rooms").is_none(), "who does not ask is told nothing: {fields:?}");
    // Carol's device has acknowledged nothing; she asks, and hears only of what she has sent.
    let third = say(&carol, &room, "third").await;
    bobs.sees(&third).await;
    bobs.sync(0).await;
    let heard = carols.hears(&format!("{third} {DEVICE} @bob:test")).await;
    assert!(heard.iter().all(|receipt| receipt.starts_with(&third)), "{heard:?}");

    // What was delivered is not read.
    let all = Device { client: &bob, filter: String::new(), since: String::new() }.sync(0).await;
    let joined = &all["rooms"]["join"][&room];
    let unread = joined["unread_notifications"]["notification_count"].as_u64();
    assert!(unread >= Some(3), "{joined}");
    assert!(receipts(&all).is_empty(), "{all}");
    // An initial sync of who asks has the newest of each.
    asking.hears(&format!("{second} {DEVICE} @carol:test")).await;
    let mut fresh = Device { client: &alice, filter: asking.filter.clone(), since: String::new() };
    let mut told = receipts(&fresh.sync(0).await);
    told.sort();
    let expected = ["@bob:test", "@carol:test"].map(|user| format!("{second} {DEVICE} {user}"));
    assert_eq!(told, expected);
    // It stands beside what was read.
    bob.post(&format!("{V3}/rooms/{room}/receipt/m.read/{second}"), json!({})).await.ok();
    asking.hears(&format!("{second} m.read @bob:test")).await;
}

#[tokio::test]
async fn a_sender_hears_when_another_server_and_a_device_there_have_a_message() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let room = private_room(&alice, &[&bob]).await;
    let (mut alices, mut bobs) = (Device::asking(&alice).await, Device::asking(&bob).await);

    let event = say(&alice, &room, "over").await;
    let heard = alices.hears(&format!("{event} {SERVER} @bob:two")).await;
    assert_eq!(heard.len(), 1, "no device has it yet: {heard:?}");
    bobs.sees(&event).await;
    bobs.sync(0).await;
    alices.hears(&format!("{event} {DEVICE} @bob:two")).await;

    let answer = say(&bob, &room, "back").await;
    bobs.hears(&format!("{answer} {SERVER} @alice:one")).await;
    alices.sees(&answer).await;
    alices.sync(0).await;
    bobs.hears(&format!("{answer} {DEVICE} @alice:one")).await;

    // What cannot be sent has come nowhere, until it can.
    network.cut("one", "two");
    let held = say(&alice, &room, "held").await;
    alices.sees(&held).await;
    while one.outbound.counts().waiting == 0 {
        tokio::task::yield_now().await;
    }
    assert!(receipts(&alices.sync(0).await).is_empty());
    network.mend("one", "two");
    network.clock.advance(Duration::from_hours(1));
    one.outbound.wake();
    alices.hears(&format!("{held} {SERVER} @bob:two")).await;
}

#[tokio::test]
async fn a_client_of_the_old_endpoint_acknowledges_too() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = private_room(&alice, &[&bob]).await;
    let mut alices = Device::asking(&alice).await;
    let from = text(&bob.get(&format!("{V3}/events?timeout=0")).await.ok()["end"]);
    let event = say(&alice, &room, "old").await;
    let news = bob.get(&format!("{V3}/events?timeout=0&from={from}")).await.ok();
    assert!(news["chunk"].to_string().contains(&event), "{news}");
    let from = text(&news["end"]);
    bob.get(&format!("{V3}/events?timeout=0&from={from}")).await.ok();
    alices.hears(&format!("{event} {DEVICE} @bob:test")).await;
}

#[tokio::test]
async fn no_receipts_are_made_in_public_and_large_rooms_and_for_who_wants_none() {
    let mut config = TestServer::config();
    config.delivery.automatic_delivery_receipts_members_max = 2;
    let server = TestServer::start_with(&config).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let public = alice.post(&format!("{V3}/createRoom"), json!({ "preset": "public_chat" })).await;
    let public = text(&public.ok()["room_id"]);
    join(&bob, &public, &alice).await;
    let large = private_room(&alice, &[&bob, &carol]).await;
    let willing = private_room(&alice, &[&bob]).await;
    let unwilling = private_room(&alice, &[&carol]).await;
    let wish = format!("{V3}/user/@carol:test/account_data/org.millrace.delivery_receipts");
    carol.put(&wish, json!({ "automatic": false })).await.ok();
    let mut alices = Device::asking(&alice).await;
    let (mut bobs, mut carols) = (Device::ordinary(&bob).await, Device::ordinary(&carol).await);

    let said = [say(&alice, &public, "a").await, say(&alice, &large, "b").await];
    bobs.sees(&said[0]).await;
    carols.sees(&said[1]).await;
    let unheard = say(&alice, &unwilling, "c").await;
    carols.sees(&unheard).await;
    carols.sync(0).await;
    let heard = say(&alice, &willing, "d").await;
    bobs.sees(&heard).await;
    bobs.sync(0).await;
    let receipts = alices.hears(&format!("{heard} {DEVICE} @bob:test")).await;
    assert_eq!(receipts.len(), 1, "{receipts:?}");

    // Clients may all the same, each for itself, as often as they like.
    for event in [&said[0], &said[0]] {
        deliver(&bob, &public, event).await.ok();
    }
    deliver(&carol, &unwilling, &unheard).await.ok();
    deliver(&carol, &public, &said[0]).await.refused(403, "M_FORBIDDEN");
    deliver(&alice, &public, &said[0]).await.ok();
    deliver(&bob, &large, "$unknown").await.ok();
    let mut receipts = alices.hears(&format!("{unheard} {DEVICE} @carol:test")).await;
    receipts.sort();
    let mut by_clients = [(&said[0], "bob"), (&unheard, "carol")]
        .map(|(event, user)| format!("{event} {DEVICE} @{user}:test"));
    by_clients.sort();
    assert_eq!(receipts, by_clients, "not of her own devices");
}

#[tokio::test]
async fn who_is_ignored_is_not_heard_of_and_where_it_is_switched_off_there_is_nothing() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = private_room(&alice, &[&bob, &carol]).await;
    let list = format!("{V3}/user/@alice:test/account_data/m.ignored_user_list");
    alice.put(&list, json!({ "ignored_users": { "@bob:test": {} } })).await.ok();
    let mut alices = Device::asking(&alice).await;
    let event = say(&alice, &room, "a").await;
    deliver(&bob, &room, &event).await.ok();
    deliver(&carol, &room, &event).await.ok();
    let heard = alices.hears(&format!("{event} {DEVICE} @carol:test")).await;
    assert_eq!(heard.len(), 1, "{heard:?}");

    let mut config = TestServer::config();
    config.delivery.allow_delivery_receipts = false;
    let server = TestServer::start_with(&config).await;
    let versions = server.client().get("/_matrix/client/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4089"], false);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = private_room(&alice, &[&bob]).await;
    let (mut alices, mut bobs) = (Device::asking(&alice).await, Device::ordinary(&bob).await);
    let event = say(&alice, &room, "a").await;
    bobs.sees(&event).await;
    bobs.sync(0).await;
    deliver(&bob, &room, &event).await.refused(400, "M_INVALID_PARAM");
    bob.post(&format!("{V3}/rooms/{room}/receipt/m.read/{event}"), json!({})).await.ok();
    let heard = alices.hears(&format!("{event} m.read @bob:test")).await;
    assert_eq!(heard.len(), 1, "{heard:?}");
}

/// EDUs with receipts that a fake server was sent.
fn told(server: &FakeServer) -> Vec<Value> {
    let asked = server.asked("/send/");
    let edus = asked.iter().flat_map(|asked| asked.body["edus"].as_array()).flatten();
    let of_receipts = edus.filter(|edu| edu["edu_type"] == "m.receipt");
    of_receipts.map(|edu| edu["content"].clone()).collect()
}

#[tokio::test]
async fn servers_speak_for_their_own_users_and_only_the_senders_is_told() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let (far, third) = (FakeServer::start(&network, "far"), FakeServer::start(&network, "third"));
    for server in [&far, &third] {
        server.answers("/send/", FakeAnswer::Json(json!({ "pdus": {} })));
    }
    let (alice, carol) = (one.register("alice").await, one.register("carol").await);
    let public = json!({ "preset": "public_chat" });
    let id = text(&alice.post(&format!("{V3}/createRoom"), public).await.ok()["room_id"]);
    join(&carol, &id, &alice).await;
    let room = FakeRoom::of(&one, &id).await;
    let bob = room.join(&far, &far.user("bob"), &[&room.newest]);
    far.send(&one, &[&bob], &[]).await.ok();
    one.inbound.idle().await;
    let dave = room.join(&third, &third.user("dave"), &[&bob]);
    third.send(&one, &[&dave], &[]).await.ok();
    one.inbound.idle().await;

    let mut alices = Device::asking(&alice).await;
    let event = say(&alice, &id, "a").await;
    let receipt = json!({ "data": { "ts": 5 }, "event_ids": [event, "$unknown"] });
    let users = json!({ "@carol:one": receipt, "@bob:far": receipt, "@eve:far": receipt });
    // Without read receipts beside it, and with what is none.
    let content = json!({ &id: { DEVICE: users, "m.strange": 7 } });
    far.send(&one, &[], &[json!({ "edu_type": "m.receipt", "content": content })]).await.ok();
    let heard = alices.hears(&format!("{event} {DEVICE} @bob:far")).await;
    assert_eq!(heard.len(), 1, "carol is not theirs, and eve not in the room: {heard:?}");

    let said = room.say(&far, &bob, &[&dave], "b");
    far.send(&one, &[&said], &[]).await.ok();
    one.inbound.idle().await;
    deliver(&alice, &id, said.event_id.as_str()).await.ok();
    while told(&far).is_empty() {
        tokio::task::yield_now().await;
    }
    let now = &told(&far)[0][&id][DEVICE]["@alice:one"]["data"]["ts"];
    let alices = json!({ "data": { "ts": now }, "event_ids": [said.event_id] });
    let content = json!({ &id: { "m.read": {}, DEVICE: { "@alice:one": alices } } });
    assert_eq!(told(&far), [content]);
    assert_eq!(told(&third), [] as [Value; 0]);
}
