//! Events, in order and once, whatever happens to either side.

use std::time::Duration;

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::appservice::ServiceQueue,
    tables::{SERVICE_PROGRESS, SERVICE_QUEUE_HEAD},
};
use millrace_test_support::{Manner, Network, TestServer, TestService};
use serde_json::json;

use super::world::{IRC, V3, World};

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn events_come_in_order_and_once_over_an_outage_and_a_restart() {
    let mut irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    for n in numbers(0..3) {
        world.say(&room, &n).await;
    }
    irc.until_told("2").await;
    irc.go_away().await;
    for n in numbers(3..150) {
        world.say(&room, &n).await;
    }
    let world = world.restarted().await;
    for n in numbers(150..160) {
        world.say(&room, &n).await;
    }
    irc.come_back().await;
    world.server.clock.advance(Duration::from_mins(10));
    world.server.services.wake();
    irc.until_told("159").await;
    assert_eq!(irc.texts(), numbers(0..160));
    let join = irc.events().iter().any(|event| event["state_key"] == "@irc_a:test");
    assert!(join, "it is told of its user's join");
}

#[tokio::test]
async fn a_transaction_whose_answer_is_lost_is_repeated_as_the_same() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.say(&room, "before").await;
    irc.until_told("before").await;
    irc.set(Manner::LosesAnswers);
    world.say(&room, "lost").await;
    irc.until_told("lost").await;
    world.say(&room, "after").await;
    let world = world.restarted().await;
    irc.set(Manner::Up);
    world.server.clock.advance(Duration::from_mins(10));
    world.server.services.wake();
    irc.until_told("after").await;
    assert_eq!(irc.texts(), ["before", "lost", "after"]);
    let sent = irc.transactions();
    let lost: Vec<_> = sent.iter().filter(|t| t.body.to_string().contains("\"lost\"")).collect();
    assert!(lost.len() >= 2, "it is sent again");
    let events =
        |n: usize| lost[n].events().iter().map(|e| e["event_id"].clone()).collect::<Vec<_>>();
    assert!(lost.iter().all(|again| again.id == lost[0].id));
    assert_eq!(events(0), events(lost.len() - 1), "nothing is added to it");
}

#[tokio::test]
async fn a_service_that_asks_for_something_is_tried_again_at_once() {
    let mut irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    irc.until(|sent| !sent.is_empty()).await;
    irc.go_away().await;
    world.say(&room, "waiting").await;
    while world.server.services.status().await.unwrap()[0].failures == 0 {
        tokio::task::yield_now().await;
    }
    irc.come_back().await;
    // The clock stands still: nothing is due.
    world.client(&irc).get(&format!("{V3}/account/whoami")).await.ok();
    irc.until_told("waiting").await;
}

#[tokio::test]
async fn one_that_hangs_or_is_dead_holds_up_nobody() {
    let (slow, irc) = (TestService::start("slow").await, TestService::start("irc").await);
    let mut dead = TestService::start("dead").await;
    let all = "namespaces: {rooms: [{exclusive: false, regex: '.*'}]}";
    let registrations = [slow.registration(all), dead.registration(all), irc.registration(IRC)];
    dead.go_away().await;
    slow.set(Manner::Holds);
    let world = World::new(&registrations).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    slow.until(|sent| !sent.is_empty()).await;
    for n in numbers(0..20) {
        world.say(&room, &n).await;
    }
    irc.until_told("19").await;
    assert_eq!(irc.texts(), numbers(0..20));
    assert_eq!(slow.transactions().len(), 1, "one transaction at a time");
    let status = world.server.services.status().await.unwrap();
    assert!(status[0].waiting >= 20 && status[1].waiting >= 20, "{status:?}");
    slow.set(Manner::Up);
    slow.until_told("19").await;
    assert_eq!(slow.texts(), numbers(0..20));
}

#[tokio::test]
async fn a_service_is_told_of_what_it_is_interested_in_and_of_nothing_else() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let other = world.room(json!({ "preset": "public_chat" })).await;
    world.say(&other, "nobody of yours").await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.say(&room, "while in the room").await;
    let bot = world.client(&irc);
    bot.post(&format!("{V3}/rooms/{room}/leave?user_id=@irc_a:test"), json!({})).await.ok();
    world.say(&room, "after leaving").await;
    let alias = format!("{V3}/directory/room/%23irc_chan:test?user_id=@irc_a:test");
    bot.put(&alias, json!({ "room_id": other })).await.refused(403, "M_FORBIDDEN");
    world.join(&irc, "@irc_a:test", &other).await;
    bot.put(&alias, json!({ "room_id": other })).await.ok();
    bot.post(&format!("{V3}/rooms/{other}/leave?user_id=@irc_a:test"), json!({})).await.ok();
    world.say(&other, "the alias is yours").await;
    irc.until_told("the alias is yours").await;
    assert_eq!(irc.texts(), ["while in the room", "the alias is yours"]);
    let memberships: Vec<_> = irc
        .events()
        .iter()
        .filter(|event| event["state_key"] == "@irc_a:test")
        .map(|event| event["content"]["membership"].clone())
        .collect();
    assert_eq!(memberships, ["join", "leave", "join", "leave"]);
}

#[tokio::test]
async fn an_invitation_is_told_with_all_that_a_service_needs() {
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.room(json!({ "preset": "private_chat" })).await;
    let path = format!("{V3}/rooms/{room}/invite");
    world.alice.post(&path, json!({ "user_id": "@irc-bot:test" })).await.ok();
    irc.until(|sent| !sent.is_empty()).await;
    let events = irc.events();
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(event["content"]["membership"], "invite");
    assert_eq!((&event["room_id"], &event["sender"]), (&json!(room), &json!("@alice:test")));
    assert!(event["event_id"].is_string() && event["origin_server_ts"].is_u64());
    assert!(event["unsigned"]["age"].is_u64());
}

#[tokio::test]
async fn too_much_drops_the_oldest() {
    let mut irc = TestService::start("irc").await;
    let mut config = TestServer::config();
    config.appservices.appservice_queue_max = 5;
    let world = World::with(&[irc.registration(IRC)], config).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    irc.until(|sent| !sent.is_empty()).await;
    irc.go_away().await;
    let queued = async || {
        let snapshot = world.server.env.store.snapshot();
        let head = snapshot.get(&SERVICE_QUEUE_HEAD, "irc", ()).await.unwrap();
        head.unwrap_or_default().last
    };
    let before = queued().await;
    for n in numbers(0..20) {
        world.say(&room, &n).await;
    }
    while queued().await < before + 20 {
        tokio::task::yield_now().await;
    }
    irc.come_back().await;
    // More than once: an attempt that failed just now waits from the new time on.
    for _ in 0..200 {
        world.server.clock.advance(Duration::from_mins(10));
        world.server.services.wake();
        if irc.texts().iter().any(|text| text == "19") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    irc.until_told("19").await;
    let told = irc.texts();
    // And what was on its way before, which stays as it was.
    assert!(told.len() < 15 && told.ends_with(&numbers(16..20)), "{told:?}");
}

#[tokio::test]
async fn what_waited_too_long_is_dropped_but_not_what_was_on_its_way() {
    let mut irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.say(&room, "before").await;
    irc.until_told("before").await;
    irc.go_away().await;
    let status = async || world.server.services.status().await.unwrap().remove(0);
    world.say(&room, "begun").await;
    while status().await.failures == 0 {
        tokio::task::yield_now().await;
    }
    for n in numbers(0..5) {
        world.say(&room, &n).await;
    }
    while status().await.waiting < 6 {
        tokio::task::yield_now().await;
    }
    let days = world.config().appservices.appservice_queue_lifetime_days;
    world.server.clock.advance(Duration::from_hours(24 * u64::from(days + 1)));
    world.say(&room, "new").await;
    // The one that is new waits; what is on its way is not counted any more, and was tried once more.
    loop {
        let now = status().await;
        if (now.waiting, now.failures) == (1, 2) {
            break;
        }
        world.server.services.wake();
        tokio::task::yield_now().await;
    }
    irc.come_back().await;
    world.server.clock.advance(Duration::from_mins(10));
    world.server.services.wake();
    irc.until_told("new").await;
    assert_eq!(irc.texts(), ["before", "begun", "new"]);
}

#[tokio::test]
async fn rows_that_were_dropped_long_ago_are_not_deleted_once_more() {
    const DROPPED: u64 = 1_000_000;
    let irc = TestService::start("irc").await;
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.say(&room, "before").await;
    irc.until_told("before").await;
    let store = &world.server.env.store;
    let dropped = |tx: Tx| {
        let head = ServiceQueue { first: DROPPED + 1, last: DROPPED, ..ServiceQueue::default() };
        tx.put(&SERVICE_QUEUE_HEAD, "irc", (), &head);
        std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
    };
    store.transact(dropped).await.unwrap();
    for text in ["after", "more"] {
        world.say(&room, text).await;
        irc.until_told(text).await;
    }
    // Deleting a million rows would not have fitted into one transaction.
    loop {
        let progress = store.snapshot().get(&SERVICE_PROGRESS, "irc", ()).await.unwrap().unwrap();
        if progress.sent > DROPPED + 1 && progress.batch.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_older_service_is_served_at_its_paths() {
    let irc = TestService::start("irc").await;
    irc.be_old();
    let world = World::new(&[irc.registration(IRC)]).await;
    let room = world.bridged_room(&irc, "@irc_a:test").await;
    world.say(&room, "hello").await;
    irc.until_told("hello").await;
    let old = |asked: &String| asked.starts_with("PUT /transactions/");
    assert!(irc.asked().iter().any(old), "{:?}", irc.asked());
    let token = |asked: &&String| asked.contains("access_token=hs-token-of-irc");
    assert!(irc.asked().iter().filter(|asked| old(asked)).all(|asked| token(&asked)));
}

#[tokio::test]
async fn an_invitation_by_another_server_is_told_though_the_room_is_not_here() {
    let irc = TestService::start("irc").await;
    let (network, files) = (Network::default(), tempfile::tempdir().unwrap());
    let path = files.path().join("irc.yaml");
    std::fs::write(&path, irc.registration(IRC)).unwrap();
    let mut config = TestServer::config();
    config.appservices.appservice_files = vec![path];
    let one = TestServer::start_in_with(&network, "one", config).await;
    let two = TestServer::start_in(&network, "two").await;
    let alice = two.register("alice").await;
    let body = json!({ "preset": "private_chat", "name": "Far", "invite": ["@irc-bot:one"] });
    let room = alice.post(&format!("{V3}/createRoom"), body).await.ok()["room_id"].clone();
    irc.until(|sent| !sent.is_empty()).await;
    let events = irc.events();
    let event = &events[0];
    assert_eq!((&event["room_id"], &event["sender"]), (&room, &json!("@alice:two")));
    assert_eq!(event["content"]["membership"], "invite");
    assert!(event["event_id"].is_string() && event["origin_server_ts"].is_u64(), "{event}");
    let shown = event["unsigned"]["invite_room_state"].as_array().unwrap();
    assert!(shown.iter().any(|state| state["content"]["name"] == "Far"), "{event}");
    let session = json!({ "user_id": "@x:one", "device_id": "X", "access_token": irc.token() });
    let bot = one.client().with_session(&session);
    let join = format!("{V3}/rooms/{}/join", room.as_str().unwrap());
    bot.post(&join, json!({})).await.ok();
    let said = format!("{V3}/rooms/{}/send/m.room.message/1", room.as_str().unwrap());
    alice.put(&said, json!({ "msgtype": "m.text", "body": "welcome" })).await.ok();
    irc.until_told("welcome").await;
}
