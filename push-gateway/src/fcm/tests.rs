use serde_json::{Map, json};

use super::*;
use crate::config;

fn body(extra: &str, options: Value, device: Value, notification: Value) -> Result<Value, Unsent> {
    let text = format!(
        "[apps.a]\ntype = \"fcm\"\nservice_account_file = \"unused\"\nproject_id = \"p\"\n{extra}"
    );
    let app = config::parse(&text).unwrap().apps.remove("a").unwrap();
    let device: Device = serde_json::from_value(json!({
        "app_id": "a", "pushkey": "key", "data": device,
    }))
    .unwrap();
    let notification = serde_json::from_value(notification).unwrap();
    let options = options.as_object().unwrap();
    payload::build(&notification, &device, options, &app.common)
        .map(|body| serde_json::from_slice(&body).unwrap())
}

fn message() -> Value {
    json!({
        "event_id": "$e", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
        "sender_display_name": "Ann", "room_name": "Kitchen", "prio": "high",
        "content": { "msgtype": "m.text", "body": "Tea?", "m.mentions": {} },
        "counts": { "unread": 2 },
    })
}

#[test]
fn a_message_is_data_with_texts_only() {
    let options = json!({ "android": { "ttl": "60s" }, "notification": { "title": "New" } });
    let data = json!({ "default_payload": { "a": "b", "n": 1 }, "url": "x" });
    let expected = json!({ "message": {
        "token": "key",
        "android": { "ttl": "60s", "priority": "high" },
        "notification": { "title": "New" },
        "data": {
            "a": "b", "n": "1", "event_id": "$e", "room_id": "!r:x", "type": "m.room.message",
            "sender": "@a:x", "sender_display_name": "Ann", "room_name": "Kitchen",
            "content_msgtype": "m.text", "content_body": "Tea?", "prio": "high", "unread": "2",
        },
    } });
    assert_eq!(body("", options, data, message()).unwrap(), expected);
}

#[test]
fn ids_are_all_that_is_sent_where_the_app_or_its_options_say_so() {
    let expected = json!({ "event_id": "$e", "room_id": "!r:x", "prio": "normal", "unread": "2" });
    let format = json!({ "format": "event_id_only" });
    let sent = body("priority = \"low\"", json!({}), format, message()).unwrap();
    assert_eq!(sent["message"]["data"], expected);
    assert_eq!(sent["message"]["android"]["priority"], "normal");
    let sent = body("priority = \"low\"\nevent_id_only = true", json!({}), json!({}), message());
    assert_eq!(sent.unwrap()["message"]["data"], expected);
}

#[test]
fn long_texts_are_shortened_and_ids_are_not() {
    let mut long = message();
    for key in ["body", "formatted_body", "a", "b", "c"] {
        long["content"][key] = "é".repeat(3000).into();
    }
    let sent = body("", json!({}), json!({}), long).unwrap();
    let data = sent["message"]["data"].as_object().unwrap();
    let size: usize = data.iter().map(|(key, text)| key.len() + text.as_str().unwrap().len()).sum();
    assert!(size <= 4096 && size > 3000, "{size}");
    assert_eq!(data["room_id"], "!r:x");

    let big: Map<String, Value> =
        (0..6).map(|n| (n.to_string(), Value::from("x".repeat(1000)))).collect();
    let refused = body("", json!({}), json!({ "default_payload": big }), message()).unwrap_err();
    assert!(matches!(refused, Unsent::Undeliverable(_)), "{refused:?}");
}

#[test]
fn counts_alone_are_not_sent_to_apps_without_badge() {
    let counts = json!({ "counts": { "unread": 3 } });
    let sent = body("", json!({}), json!({}), counts.clone()).unwrap();
    assert_eq!(sent["message"]["data"], json!({ "unread": "3", "prio": "high" }));
    assert_eq!(body("badge = false", json!({}), json!({}), counts), Err(Unsent::Nothing));
}
