//! Calls: devices that do not hinder each other, duplicates, limits, the end.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    under_test::{World, device, eventually, token},
    web_push_server::Browser,
};

#[tokio::test]
async fn a_hanging_device_delays_no_other_and_is_tried_again_after_the_answer() {
    let world = World::with("answer_within_s = 3\nrequest_timeout_s = 1").await;
    world.apns.state.lock().hanging.push(token('a'));
    let devices = [
        device("ios", &token('a')),
        device("ios", &token('b')),
        device("android", "good"),
        world.browser(&Browser::new(3)),
    ];
    let call = world.notify("$1", &devices);
    let others = eventually("the others have it", || {
        world.apns.taken(&token('b')).len() == 1
            && world.fcm.taken("good").len() == 1
            && world.web.state.lock().taken.len() == 1
    });
    let started = Instant::now();
    let timed = async {
        others.await;
        started.elapsed()
    };
    let (answer, took) = tokio::join!(call, timed);
    assert_eq!(answer.rejected(), &json!([]));
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.apns.state.lock().hanging.clear();
    eventually("the device has it", || world.apns.taken(&token('a')).len() == 1).await;
}

#[tokio::test]
async fn a_key_that_turns_out_dead_after_the_answer_is_reported_by_the_next_call_once() {
    let world = World::with("answer_within_s = 2\nrequest_timeout_s = 1").await;
    world.apns.script(&token('a'), 503, "ServiceUnavailable", Some("3"));
    world.apns.script(&token('a'), 410, "Unregistered", None);
    let devices = [device("ios", &token('a')), device("android", "good")];
    assert_eq!(world.notify("$1", &devices).await.rejected(), &json!([]));
    let asked = |metrics: String| metrics.contains("outcome=\"rejected\"");
    eventually("it is dead", || asked(world.gateway.metrics_text())).await;
    let again = [device("ios", &token('a'))];
    assert_eq!(world.notify("$2", &again).await.rejected(), &json!([token('a')]));
    assert_eq!(world.notify("$3", &again).await.rejected(), &json!([]), "it may be new");
}

#[tokio::test]
async fn the_same_event_is_sent_once_and_counts_as_often_as_they_come() {
    let world = World::start().await;
    for _ in 0..3 {
        world.notify("$1", &[device("ios", &token('a'))]).await.rejected();
    }
    assert_eq!(world.apns.taken(&token('a')).len(), 1);
    let counts = json!({ "notification": {
        "counts": { "unread": 0 }, "devices": [device("ios", &token('a'))],
    } });
    for _ in 0..2 {
        world.post(counts.to_string()).await.rejected();
    }
    let taken = world.apns.taken(&token('a'));
    assert_eq!(taken.len(), 3);
    assert_eq!(taken[2], json!({ "aps": { "badge": 0 } }));
}

#[tokio::test]
async fn a_full_queue_is_told_and_holds_up_nobody_else() {
    let world = World::with("answer_within_s = 3\nrequest_timeout_s = 3").await;
    world.apns.state.lock().hanging.push(token('a'));
    // 64 places, as the test's configuration has it.
    let many = vec![device("ios", &token('a')); 64];
    let (full, ()) = tokio::join!(world.notify("$1", &many), async {
        eventually("the queue is full", || {
            world.gateway.metrics_text().contains("push_gateway_waiting{app=\"ios\"} 64")
        })
        .await;
        let answer = world.notify("$2", &[device("ios", &token('b'))]).await;
        assert_eq!((answer.status, answer.retry_after), (503, Some(5)));
        assert_eq!(world.notify("$2", &[device("android", "good")]).await.status, 200);
    });
    assert_eq!(full.status, 502);
    assert_eq!(world.notify("$3", &[device("ios", &token('b'))]).await.status, 200);
}

#[tokio::test]
async fn too_many_calls_are_told_to_slow_down() {
    let world = World::with("calls_max = 1\nanswer_within_s = 2\nrequest_timeout_s = 2").await;
    world.apns.state.lock().hanging.push(token('a'));
    let hanging = [device("ios", &token('a'))];
    let (_, ()) = tokio::join!(world.notify("$1", &hanging), async {
        eventually("a call is under way", || world.gateway.call().is_none()).await;
        let answer = world.notify("$2", &[device("ios", &token('b'))]).await;
        assert_eq!((answer.status, answer.retry_after), (429, Some(1)));
        assert_eq!(answer.body["errcode"], "M_LIMIT_EXCEEDED");
    });
}

#[tokio::test]
async fn bad_calls_are_refused_in_matrix_words() {
    let world = World::start().await;
    for (body, status, errcode) in [
        ("{", 400, "M_NOT_JSON"),
        ("{}", 400, "M_BAD_JSON"),
        (r#"{"notification":{"devices":[{"app_id":1}]}}"#, 400, "M_BAD_JSON"),
    ] {
        let answer = world.post(body).await;
        assert_eq!(
            (answer.status, answer.body["errcode"].as_str()),
            (status, Some(errcode)),
            "{body}"
        );
    }
    let many = vec![device("ios", &token('a')); 257];
    assert_eq!(world.notify("$1", &many).await.status, 413);
    assert_eq!(world.post("x".repeat(300 * 1024)).await.status, 413);
    let nobody = world.post(r#"{"notification":{"devices":null,"counts":null}}"#).await;
    assert_eq!(nobody.rejected(), &json!([]));
}

#[tokio::test]
async fn whoever_stops_takes_no_calls_and_finishes_what_was_accepted() {
    let world = World::with("answer_within_s = 1\nrequest_timeout_s = 1").await;
    world.apns.script(&token('a'), 503, "ServiceUnavailable", Some("2"));
    let devices = [device("ios", &token('a')), device("android", "good")];
    assert_eq!(world.notify("$1", &devices).await.rejected(), &json!([]));
    world.gateway.stop();
    assert_eq!(world.notify("$2", &devices).await.status, 503);
    assert_eq!(world.apns.taken(&token('a')).len(), 0);
    assert!(world.gateway.drained(Duration::from_secs(20)).await);
    assert_eq!(world.apns.taken(&token('a')).len(), 1);
}
