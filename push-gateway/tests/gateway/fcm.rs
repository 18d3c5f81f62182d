//! Google: access tokens, messages, errors.

use serde_json::json;

use crate::under_test::{World, device};

#[tokio::test]
async fn a_message_arrives_with_an_access_token_that_is_used_again() {
    let world = World::start().await;
    for event in ["$1", "$2"] {
        let answer = world.notify(event, &[device("android.beta", "good")]).await;
        assert_eq!(answer.rejected(), &json!([]));
    }
    let expected = json!({
        "token": "good",
        "android": { "priority": "high" },
        "data": {
            "event_id": "$1", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
            "sender_display_name": "Ann", "room_name": "Kitchen", "prio": "high", "unread": "2",
            "content_msgtype": "m.text", "content_body": "Tea?",
        },
    });
    assert_eq!(world.fcm.taken("good")[0], expected);
    assert_eq!(world.fcm.state.lock().tokens, 1);
}

#[tokio::test]
async fn an_access_token_that_google_no_longer_takes_is_renewed_at_once() {
    let world = World::start().await;
    world.notify("$1", &[device("android", "good")]).await.rejected();
    world.fcm.state.lock().access_token = Some("another".to_owned());
    assert_eq!(world.notify("$2", &[device("android", "good")]).await.rejected(), &json!([]));
    assert_eq!(world.fcm.taken("good").len(), 2);
    assert_eq!(world.fcm.state.lock().tokens, 2);
}

#[tokio::test]
async fn only_what_says_that_the_key_is_dead_rejects_it() {
    let world = World::start().await;
    world.fcm.script("unregistered", 404, "UNREGISTERED", None);
    world.fcm.script("other", 403, "SENDER_ID_MISMATCH", None);
    world.fcm.script("argument", 400, "INVALID_ARGUMENT", None);
    world.fcm.script("apns", 401, "THIRD_PARTY_AUTH_ERROR", None);
    let devices: Vec<_> = ["good", "unregistered", "other", "argument", "apns", "not a token"]
        .map(|key| device("android", key))
        .into();
    let answer = world.notify("$1", &devices).await;
    assert_eq!(answer.rejected(), &json!(["unregistered", "other", "not a token"]));
    assert_eq!(world.fcm.taken("good").len(), 1);
}

#[tokio::test]
async fn without_an_access_token_the_homeserver_is_to_come_again() {
    let world = World::with("answer_within_s = 2\nrequest_timeout_s = 1").await;
    world.fcm.state.lock().token_failure = Some(503);
    assert_eq!(world.notify("$1", &[device("android", "good")]).await.status, 502);
    world.fcm.state.lock().token_failure = None;
    // The failure of a moment ago is not asked about again at once.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.notify("$1", &[device("android", "good")]).await.rejected(), &json!([]));
}

#[tokio::test]
async fn a_quota_that_is_used_up_makes_the_app_wait() {
    let world = World::start().await;
    world.fcm.script("good", 429, "QUOTA_EXCEEDED", None);
    let answer = world.notify("$1", &[device("android", "good")]).await;
    assert_eq!((answer.status, answer.retry_after), (502, Some(60)), "a minute, as Google asks");
}
