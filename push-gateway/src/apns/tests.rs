use serde_json::json;

use super::*;
use crate::config;

fn app(extra: &str) -> App {
    // A certificate is read by the connection, so that none is needed here.
    let text = format!("[apps.a]\ntype = \"apns\"\ncertfile = \"unused\"\n{extra}");
    config::parse(&text).unwrap().apps.remove("a").unwrap()
}

fn apns(extra: &str) -> Apns {
    let app = app(extra);
    let config::VendorOptions::Apns(options) = &app.vendor else { panic!("an app of Apple's") };
    Apns::new(options, &app).unwrap()
}

fn notification(value: Value) -> Notification {
    serde_json::from_value(value).unwrap()
}

fn device(data: Value) -> Device {
    serde_json::from_value(json!({
        "app_id": "com.example.app", "pushkey": "q83vEjRW", "pushkey_ts": 1_000, "data": data,
        "tweaks": { "sound": "bing" },
    }))
    .unwrap()
}

fn message() -> Notification {
    notification(json!({
        "event_id": "$e", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
        "sender_display_name": "Ann", "room_name": "Kitchen", "prio": "low",
        "content": { "msgtype": "m.text", "body": "Tea?" },
        "counts": { "unread": 2, "missed_calls": 1 }, "devices": [],
    }))
}

fn body(push: &Push) -> Value {
    serde_json::from_slice(&push.body).unwrap()
}

#[test]
fn a_message_is_a_sentence_with_badge_and_sound() {
    let push = apns("").push(&message(), &device(json!({}))).unwrap();
    assert_eq!(push.url.as_str(), "https://api.push.apple.com/3/device/abcdef123456");
    assert_eq!(push.headers["apns-priority"], "5");
    assert_eq!(push.headers["apns-push-type"], "alert");
    assert_eq!(push.headers["apns-topic"], "com.example.app");
    let expected = json!({
        "aps": {
            "alert": {
                "loc-key": "MSG_FROM_USER_IN_ROOM_WITH_CONTENT",
                "loc-args": ["Ann", "Kitchen", "Tea?"],
            },
            "badge": 3,
            "sound": "bing",
        },
        "room_id": "!r:x",
        "event_id": "$e",
    });
    assert_eq!(body(&push), expected);
}

#[test]
fn a_device_that_wants_ids_gets_them_on_top_of_its_payload() {
    let data = json!({
        "format": "event_id_only",
        "default_payload": { "aps": { "mutable-content": 1, "alert": { "loc-key": "NEW" } } },
    });
    let push = apns("").push(&message(), &device(data)).unwrap();
    let expected = json!({
        "aps": { "mutable-content": 1, "alert": { "loc-key": "NEW" } },
        "room_id": "!r:x", "event_id": "$e", "unread_count": 2, "missed_calls": 1,
    });
    assert_eq!(body(&push), expected);
}

#[test]
fn counts_alone_change_the_badge_and_nothing_alone_is_not_sent() {
    let data = json!({ "default_payload": { "aps": { "alert": { "loc-key": "NEW" } } } });
    let counts = notification(json!({ "counts": { "unread": 0 }, "type": null, "event_id": "" }));
    let push = apns("").push(&counts, &device(data)).unwrap();
    assert_eq!(body(&push), json!({ "aps": { "badge": 0 } }));

    let nothing = notification(json!({ "counts": {} }));
    assert_eq!(apns("").push(&nothing, &device(json!({}))).unwrap_err(), Unsent::Nothing);
    assert_eq!(
        apns("badge = false").push(&counts, &device(json!({}))).unwrap_err(),
        Unsent::Nothing
    );
}

#[test]
fn a_data_push_shows_nothing_and_has_the_priority_that_apple_demands() {
    let apns = apns("push_type = \"background\"\npriority = \"high\"");
    let push = apns.push(&message(), &device(json!({}))).unwrap();
    assert_eq!(push.headers["apns-push-type"], "background");
    assert_eq!(push.headers["apns-priority"], "5");
    assert_eq!(body(&push)["aps"], json!({ "content-available": 1 }));
}

#[test]
fn a_long_message_is_shortened_to_what_apple_takes() {
    let mut long = message();
    long.content.insert("body".to_owned(), "\"é\"".repeat(2000).into());
    long.room_name = Some("r".repeat(1500));
    let push = apns("").push(&long, &device(json!({}))).unwrap();
    assert!(push.body.len() <= 4096 && push.body.len() > 1500, "{}", push.body.len());

    let data = json!({ "default_payload": { "custom": "c".repeat(5000) } });
    let refused = apns("").push(&long, &device(data)).unwrap_err();
    assert!(matches!(refused, Unsent::Undeliverable(_)), "{refused:?}");
}

#[test]
fn keys_that_are_no_tokens_are_invalid() {
    let mut device = device(json!({}));
    device.pushkey = "not base64!".to_owned();
    assert!(matches!(apns("").push(&message(), &device), Err(Unsent::InvalidKey(_))));
    let plain = apns("convert_device_token_to_hex = false");
    device.pushkey = "../../x".to_owned();
    assert!(matches!(plain.push(&message(), &device), Err(Unsent::InvalidKey(_))));
    device.pushkey = "ABCD12".to_owned();
    assert!(plain.push(&message(), &device).unwrap().url.path().ends_with("/ABCD12"));
}

#[test]
fn answers_mean_what_apple_documents() {
    let apns = apns("");
    let push = apns.push(&message(), &device(json!({}))).unwrap();
    let verdict = |status: u16, body: Value, retry_after: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(after) = retry_after {
            headers.insert("retry-after", HeaderValue::from_static(after));
        }
        let body = body.to_string().into();
        let status = http::StatusCode::from_u16(status).unwrap();
        apns.judge(&push, &Answer { status, headers, body })
    };
    let reason = |word: &str| json!({ "reason": word });
    assert_eq!(verdict(200, json!({}), None), Verdict::Delivered);
    for word in ["BadDeviceToken", "DeviceTokenNotForTopic"] {
        assert_eq!(verdict(400, reason(word), None), Verdict::Rejected(word.to_owned()));
    }
    // An app that is configured wrongly must not cost anybody a pusher.
    for (status, word) in [
        (400, "BadTopic"),
        (400, "TopicDisallowed"),
        (403, "InvalidProviderToken"),
        (403, "BadCertificate"),
    ] {
        assert_eq!(verdict(status, reason(word), None), Verdict::Refused(word.to_owned()));
    }
    assert_eq!(
        verdict(403, reason("ExpiredProviderToken"), None),
        Verdict::Expired("ExpiredProviderToken".to_owned())
    );
    for (status, word) in
        [(413, "PayloadTooLarge"), (400, "PayloadEmpty"), (405, "MethodNotAllowed")]
    {
        assert_eq!(verdict(status, reason(word), None), Verdict::Dropped(word.to_owned()));
    }
    // Dead for longer than it is known, and confirmed again since.
    let gone = |timestamp: u64| json!({ "reason": "Unregistered", "timestamp": timestamp });
    assert!(matches!(verdict(410, gone(2_000_000), None), Verdict::Rejected(_)));
    assert!(matches!(verdict(410, gone(900_000), None), Verdict::Dropped(_)));
    let later = |after, pause, word: &str| Verdict::Later { after, pause, reason: word.to_owned() };
    assert_eq!(
        verdict(429, reason("TooManyRequests"), None),
        later(None, Pause::Device, "TooManyRequests")
    );
    assert_eq!(
        verdict(503, reason("Shutdown"), Some("7")),
        later(Some(std::time::Duration::from_secs(7)), Pause::App, "Shutdown")
    );
}
