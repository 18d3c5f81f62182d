//! What services are told beside events: typing, receipts, presence, messages to devices, devices.

use millrace_test_support::{TestService, Transaction};
use serde_json::{Value, json};

use super::world::{IRC, V3, World};

const STABLE: &str = "receive_ephemeral: true";
const UNSTABLE: &str = "de.sorunome.msc2409.push_ephemeral: true";

/// Everything of one kind in the field of some transactions.
fn of(sent: &[Transaction], field: &str, kind: &str) -> Vec<Value> {
    let all = sent.iter().flat_map(|sent| sent.body[field].as_array().cloned().unwrap_or_default());
    all.filter(|event| event["type"] == kind).collect()
}

#[tokio::test]
async fn typing_receipts_and_presence_come_as_the_service_wants_them() {
    let new = TestService::start("new").await;
    let old = TestService::start("old").await;
    let none = TestService::start("none").await;
    let users =
        |id: &str| format!("namespaces: {{users: [{{exclusive: true, regex: '@{id}_.*'}}]}}");
    let world = World::new(&[
        new.registration(&format!("{STABLE}\n{}", users("new"))),
        old.registration(&format!("{UNSTABLE}\n{}", users("old"))),
        none.registration(&users("none")),
    ])
    .await;
    let room = world.bridged_room(&new, "@new_a:test").await;
    world.join(&old, "@old_a:test", &room).await;
    world.join(&none, "@none_a:test", &room).await;
    let event = world.say(&room, "read this").await;
    let alice = &world.alice;
    let path = format!("{V3}/rooms/{room}/typing/@alice:test");
    alice.put(&path, json!({ "typing": true, "timeout": 30000 })).await.ok();
    alice.post(&format!("{V3}/rooms/{room}/receipt/m.read/{event}"), json!({})).await.ok();
    let path = format!("{V3}/presence/@alice:test/status");
    alice.put(&path, json!({ "presence": "online", "status_msg": "here" })).await.ok();
    for (service, field) in [(&new, "ephemeral"), (&old, "de.sorunome.msc2409.ephemeral")] {
        for kind in ["m.typing", "m.receipt", "m.presence"] {
            service.until(|sent| !of(sent, field, kind).is_empty()).await;
        }
        let sent = service.transactions();
        let typing = of(&sent, field, "m.typing");
        let typed = json!({
            "type": "m.typing", "room_id": room, "content": { "user_ids": ["@alice:test"] },
        });
        assert!(typing.contains(&typed), "{typing:?}");
        let receipt = &of(&sent, field, "m.receipt")[0];
        assert_eq!(receipt["room_id"], room);
        assert!(receipt["content"][&event]["m.read"]["@alice:test"]["ts"].is_u64());
        let presence = of(&sent, field, "m.presence");
        assert!(presence.iter().any(|shown| shown["sender"] == "@alice:test"), "{presence:?}");
    }
    world.say(&room, "last").await;
    none.until_told("last").await;
    let fields = ["ephemeral", "de.sorunome.msc2409.ephemeral"];
    let told = |sent: &Transaction| fields.iter().any(|field| sent.body.get(field).is_some());
    assert!(!none.transactions().iter().any(told));
}

#[tokio::test]
async fn a_private_receipt_is_told_only_to_the_readers_service() {
    let (irc, other) = (TestService::start("irc").await, TestService::start("other").await);
    let users = "namespaces: {users: [{exclusive: true, regex: '@other_.*'}]}";
    let world = World::new(&[
        irc.registration(&format!("{STABLE}\n{IRC}")),
        other.registration(&format!("{STABLE}\n{users}")),
    ])
    .await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.join(&other, "@other_a:test", &room).await;
    let event = world.say(&room, "read this").await;
    let read = |kind: &str| format!("{V3}/rooms/{room}/receipt/{kind}/{event}?user_id=@irc_a:test");
    let bot = world.client(&irc);
    bot.post(&read("m.read.private"), json!({})).await.ok();
    bot.post(&read("m.read"), json!({})).await.ok();
    let has = |sent: &[Transaction], kind: &str| {
        let all = of(sent, "ephemeral", "m.receipt");
        all.iter().any(|told| told["content"][&event].get(kind).is_some())
    };
    irc.until(|sent| has(sent, "m.read.private") && has(sent, "m.read")).await;
    other.until(|sent| has(sent, "m.read")).await;
    assert!(!has(&other.transactions(), "m.read.private"));
}

#[tokio::test]
async fn messages_to_devices_of_its_users_come_once_and_leave_the_queue() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(&format!("{STABLE}\n{IRC}"))]).await;
    let bot = world.client(&irc);
    bot.put(&format!("{V3}/devices/BRIDGE"), json!({})).await.ok();
    let send = async |n: u32, user: &str| {
        let path = format!("{V3}/sendToDevice/m.test/{n}");
        let body = json!({ "messages": { user: { "*": { "n": n } } } });
        world.alice.put(&path, body).await.ok();
    };
    for n in 0..3 {
        send(n, "@irc-bot:test").await;
        send(n + 10, "@alice:test").await;
    }
    let field = "de.sorunome.msc2409.to_device";
    irc.until(|sent| of(sent, field, "m.test").len() == 3).await;
    let messages = of(&irc.transactions(), field, "m.test");
    for (n, message) in messages.iter().enumerate() {
        let wanted = json!({
            "type": "m.test", "sender": "@alice:test", "content": { "n": n },
            "to_user_id": "@irc-bot:test", "to_device_id": "BRIDGE",
        });
        assert_eq!(*message, wanted);
    }
    let sync = format!("{V3}/sync?user_id=@irc-bot:test&device_id=BRIDGE");
    loop {
        let synced = bot.get(&sync).await.ok();
        if synced["to_device"]["events"].as_array().is_none_or(Vec::is_empty) {
            break;
        }
        // Requests are function calls here: the worker needs a turn.
        tokio::task::yield_now().await;
    }
    let synced = world.alice.get(&format!("{V3}/sync")).await.ok();
    assert_eq!(synced["to_device"]["events"].as_array().unwrap().len(), 3, "hers are hers");
}

#[tokio::test]
async fn a_service_that_encrypts_is_told_whose_devices_change_where_it_is() {
    let irc = TestService::start("irc").await;
    let more = format!("org.matrix.msc3202: true\n{STABLE}\n{IRC}");
    let world = World::new(&[irc.registration(&more)]).await;
    let (bob, carol) = (world.server.register("bob").await, world.server.register("carol").await);
    let encrypted = json!({
        "preset": "public_chat",
        "initial_state": [{
            "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" },
        }],
    });
    let room = world.room(encrypted).await;
    let plain = world.bridged_room(&irc, "@irc_b:test").await;
    carol.post(&format!("{V3}/join/{plain}"), json!({})).await.ok();
    world.join(&irc, "@irc_a:test", &room).await;
    let field = "org.matrix.msc3202.device_lists";
    let in_list = |sent: &[Transaction], list: &str, user: &str| {
        let told = |sent: &Transaction| {
            sent.body[field][list].as_array().is_some_and(|users| users.contains(&json!(user)))
        };
        sent.iter().any(told)
    };
    // All members of the room that it came to.
    irc.until(|sent| in_list(sent, "changed", "@alice:test")).await;
    bob.post(&format!("{V3}/join/{room}"), json!({})).await.ok();
    irc.until(|sent| in_list(sent, "changed", "@bob:test")).await;
    let before = irc.transactions().len();
    for client in [&carol, &bob] {
        let device = format!("{V3}/devices/{}", client.device());
        client.put(&device, json!({ "display_name": "renamed" })).await.ok();
    }
    irc.until(|sent| in_list(&sent[before..], "changed", "@bob:test")).await;
    bob.post(&format!("{V3}/rooms/{room}/leave"), json!({})).await.ok();
    irc.until(|sent| in_list(sent, "left", "@bob:test")).await;
    assert!(!in_list(&irc.transactions(), "changed", "@carol:test"), "that room is not encrypted");
}
