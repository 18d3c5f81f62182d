//! Apple: what arrives, what is refused, and connections that come and go.

use serde_json::json;

use crate::under_test::{World, device, token};

#[tokio::test]
async fn a_message_arrives_over_one_connection_by_token() {
    let world = World::start().await;
    for event in ["$1", "$2", "$3"] {
        let answer = world.notify(event, &[device("ios", &token('a'))]).await;
        assert_eq!(answer.rejected(), &json!([]));
    }
    let taken = world.apns.taken(&token('a'));
    assert_eq!(taken.len(), 3);
    let expected = json!({
        "aps": {
            "alert": {
                "loc-key": "MSG_FROM_USER_IN_ROOM_WITH_CONTENT",
                "loc-args": ["Ann", "Kitchen", "Tea?"],
            },
            "badge": 2,
            "sound": "bing",
        },
        "room_id": "!r:x",
        "event_id": "$1",
    });
    assert_eq!(taken[0], expected);
    assert_eq!(world.apns.server.connections(), 1);
}

#[tokio::test]
async fn a_message_arrives_by_certificate() {
    let world = World::start().await;
    let answer = world.notify("$1", &[device("ios.certificate", &token('a'))]).await;
    assert_eq!(answer.rejected(), &json!([]));
    assert_eq!(world.apns_by_certificate.taken(&token('a')).len(), 1);
}

#[tokio::test]
async fn dead_devices_are_reported_and_others_are_not() {
    let world = World::start().await;
    world.apns.script(&token('b'), 410, "Unregistered", None);
    world.apns.script(&token('c'), 400, "DeviceTokenNotForTopic", None);
    world.apns.script(&token('d'), 400, "PayloadEmpty", None);
    let devices = [
        device("ios", &token('a')),
        device("ios", &token('b')),
        device("ios", &token('c')),
        device("ios", &token('d')),
        device("ios", "abcd"),
        device("unknown", "key"),
    ];
    let answer = world.notify("$1", &devices).await;
    assert_eq!(answer.rejected(), &json!([token('b'), token('c'), "abcd", "key"]));
    assert_eq!(world.apns.taken(&token('a')).len(), 1);
}

#[tokio::test]
async fn a_goaway_costs_no_notification() {
    let world = World::start().await;
    for number in 0..20 {
        let answer = world.notify(&format!("${number}"), &[device("ios", &token('a'))]).await;
        assert_eq!(answer.rejected(), &json!([]), "{number}");
        if number % 5 == 0 {
            world.apns.server.send_away();
        }
    }
    assert_eq!(world.apns.taken(&token('a')).len(), 20, "each arrived, once");
    assert!(world.apns.server.connections() > 1);
}

#[tokio::test]
async fn an_outage_is_told_to_the_homeserver_and_ends_without_a_restart() {
    let world = World::with("answer_within_s = 2\nrequest_timeout_s = 1").await;
    world.notify("$1", &[device("ios", &token('a'))]).await.rejected();
    world.apns.server.stop();
    let answer = world.notify("$2", &[device("ios", &token('a'))]).await;
    assert_eq!(answer.status, 502);
    assert!(answer.retry_after.is_some());
    world.apns.server.restart().await;
    assert_eq!(world.notify("$2", &[device("ios", &token('a'))]).await.rejected(), &json!([]));
    assert_eq!(world.apns.taken(&token('a')).len(), 2);
}

#[tokio::test]
async fn a_short_failure_is_tried_again_within_the_call() {
    let world = World::start().await;
    world.apns.script(&token('a'), 500, "InternalServerError", None);
    world.apns.script(&token('a'), 503, "ServiceUnavailable", Some("1"));
    let started = std::time::Instant::now();
    assert_eq!(world.notify("$1", &[device("ios", &token('a'))]).await.rejected(), &json!([]));
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "Retry-After is obeyed");
    assert_eq!(world.apns.taken(&token('a')).len(), 1);
}

#[tokio::test]
async fn a_long_retry_after_holds_for_the_whole_app_and_is_passed_on() {
    let world = World::start().await;
    world.apns.script(&token('a'), 503, "ServiceUnavailable", Some("120"));
    let answer = world.notify("$1", &[device("ios", &token('a'))]).await;
    assert_eq!((answer.status, answer.retry_after), (502, Some(120)));
    let answer = world.notify("$1", &[device("ios", &token('b'))]).await;
    assert_eq!(answer.status, 502);
    assert!(answer.retry_after.is_some_and(|after| (100..=120).contains(&after)), "{answer:?}");
    assert_eq!(world.apns.taken(&token('b')).len(), 0, "Apple was not asked");
    // Apple's pause is none for Google.
    assert_eq!(world.notify("$1", &[device("android", "good")]).await.status, 200);
}

#[tokio::test]
async fn what_the_administrator_did_wrong_costs_nobody_a_pusher() {
    let world = World::start().await;
    world.apns.script(&token('a'), 403, "InvalidProviderToken", None);
    let answer = world.notify("$1", &[device("ios", &token('a'))]).await;
    assert_eq!(answer.status, 502);
    assert_eq!(world.notify("$1", &[device("ios", &token('a'))]).await.rejected(), &json!([]));
}
