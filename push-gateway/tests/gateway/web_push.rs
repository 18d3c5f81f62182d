//! Browsers: content that only they can read, and addresses that we do not go to.

use serde_json::json;

use crate::{
    under_test::{World, device},
    web_push_server::Browser,
};

#[tokio::test]
async fn a_browser_reads_what_arrives() {
    let world = World::start().await;
    let browser = Browser::new(3);
    let answer = world.notify("$1", &[world.browser(&browser)]).await;
    assert_eq!(answer.rejected(), &json!([]));
    let taken = world.web.state.lock().taken.clone();
    let [(path, urgency, topic, sealed)] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((path.as_str(), urgency.as_str()), ("/inbox", "high"));
    assert!(topic.as_ref().is_some_and(|topic| topic.len() == 32));
    let expected = json!({
        "event_id": "$1", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
        "sender_display_name": "Ann", "room_name": "Kitchen", "unread": 2,
        "content": { "msgtype": "m.text", "body": "Tea?" },
    });
    assert_eq!(browser.open(sealed), expected);
}

#[tokio::test]
async fn subscriptions_that_cannot_be_are_rejected() {
    let world = World::start().await;
    let browsers: Vec<Browser> = (1..=7).map(Browser::new).collect();
    let mut no_point = world.browser(&browsers[5]);
    no_point["pushkey"] = "AAAA".into();
    let mut not_listed = world.browser(&browsers[6]);
    not_listed["app_id"] = "web.listed".into();
    let devices = [
        world.browser(&browsers[0]),
        world.browser_at(&browsers[1], &world.web.endpoint("gone")),
        world.browser_at(&browsers[2], "http://localhost/plain"),
        world.browser_at(&browsers[3], "https://10.0.0.1/private"),
        world.browser_at(&browsers[4], "https://[::ffff:169.254.169.254]/metadata"),
        no_point,
        not_listed,
        device("web", "no endpoint"),
    ];
    let answer = world.notify("$1", &devices).await;
    let mut expected: Vec<String> = browsers[1..5].iter().map(Browser::pushkey).collect();
    expected.extend(["AAAA".to_owned(), browsers[6].pushkey(), "no endpoint".to_owned()]);
    assert_eq!(answer.rejected(), &json!(expected));
    assert_eq!(world.web.state.lock().taken.len(), 1);
}

#[tokio::test]
async fn a_name_with_no_public_address_is_not_connected_to() {
    let world = World::private_refused().await;
    let browser = Browser::new(3);
    let answer = world.notify("$1", &[world.browser(&browser)]).await;
    assert_eq!(answer.rejected(), &json!([browser.pushkey()]));
    assert_eq!(world.web.server.connections(), 0);
}

#[tokio::test]
async fn a_push_service_that_wants_less_is_obeyed() {
    let world = World::start().await;
    world.web.state.lock().failure = Some((429, Some("30")));
    let answer = world.notify("$1", &[world.browser(&Browser::new(3))]).await;
    assert_eq!((answer.status, answer.retry_after), (502, Some(30)));
    // Only this device is to wait.
    world.web.state.lock().failure = None;
    assert_eq!(world.notify("$1", &[world.browser(&Browser::new(4))]).await.status, 200);
}
