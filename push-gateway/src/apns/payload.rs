//! What Apple's devices are sent: the same as Sygnal sends them, so that apps need no change.

use serde_json::{Map, Value, json};

use crate::{
    config::{ApnsOptions, Common, PushType},
    notification::{Counts, Device, Notification},
    shorten,
    vendor::Unsent,
};

/// Largest payload, in bytes; calls may have more.
const PAYLOAD_BYTES_MAX: usize = 4096;
const VOIP_PAYLOAD_BYTES_MAX: usize = 5120;
/// Names longer than this are shortened whatever the size of the rest.
const NAME_BYTES_MAX: usize = 1024;

/// The payload, as JSON.
pub(super) fn build(
    notification: &Notification,
    device: &Device,
    options: &ApnsOptions,
    common: &Common,
) -> Result<Vec<u8>, Unsent> {
    let mut payload = common.default_payload.clone();
    payload.extend(device.default_payload().cloned().unwrap_or_default());
    let counts = if common.badge { notification.counts } else { Counts::default() };
    let ids_only = common.event_id_only || device.wants_event_id_only();
    if ids_only {
        ids(&mut payload, notification, counts);
    } else {
        full(&mut payload, notification, device, (options, counts))?;
    }
    if options.push_type == PushType::Background
        && let Some(aps) = aps(&mut payload)
    {
        for shown in ["alert", "badge", "sound"] {
            aps.remove(shown);
        }
        aps.insert("content-available".to_owned(), 1.into());
    }
    let bytes_max = match options.push_type {
        PushType::Voip => VOIP_PAYLOAD_BYTES_MAX,
        PushType::Alert | PushType::Background => PAYLOAD_BYTES_MAX,
    };
    let mut payload = Value::Object(payload);
    let size = |payload: &Value| payload.to_string().len();
    if !shorten::until(&mut payload, bytes_max, size, shown_texts) {
        return Err(Unsent::Undeliverable(format!("it is larger than {bytes_max} bytes")));
    }
    Ok(payload.to_string().into_bytes())
}

/// What the app fetches by itself.
fn ids(payload: &mut Map<String, Value>, notification: &Notification, counts: Counts) {
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            payload.insert(key.to_owned(), value);
        }
    };
    put("room_id", notification.room_id.clone().map(Value::from));
    put("event_id", notification.event_id.clone().map(Value::from));
    put("unread_count", counts.unread.map(Value::from));
    put("missed_calls", counts.missed_calls.map(Value::from));
}

/// A sentence by its key in the app's translations, and its parts.
fn full(
    payload: &mut Map<String, Value>,
    notification: &Notification,
    device: &Device,
    (options, counts): (&ApnsOptions, Counts),
) -> Result<(), Unsent> {
    let sentence = sentence(notification);
    let badge = match (counts.unread, counts.missed_calls) {
        (None, None) => None,
        (unread, calls) => Some(unread.unwrap_or(0).saturating_add(calls.unwrap_or(0))),
    };
    if sentence.is_none() && badge.is_none() {
        return Err(Unsent::Nothing);
    }
    if notification.kind.is_none() {
        // Counts alone change the badge and show nothing, whatever the default says.
        payload.clear();
    }
    let sound = device.sound().or(options.sound.as_deref());
    let Some(aps) = aps(payload) else {
        return Err(Unsent::Undeliverable("default_payload.aps is no object".to_owned()));
    };
    if let Some((key, parts)) = &sentence {
        let alert = aps.entry("alert").or_insert_with(|| json!({}));
        if !alert.is_object() {
            *alert = json!({});
        }
        alert["loc-key"] = (*key).into();
        alert["loc-args"] = parts.clone().into();
        if let Some(sound) = sound {
            aps.insert("sound".to_owned(), sound.into());
        }
    }
    if let Some(badge) = badge {
        aps.insert("badge".to_owned(), badge.into());
    }
    if sentence.is_some() {
        let ids = [("room_id", &notification.room_id), ("event_id", &notification.event_id)];
        for (key, id) in ids {
            if let Some(id) = id {
                payload.insert(key.to_owned(), id.as_str().into());
            }
        }
    }
    Ok(())
}

fn aps(payload: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    payload.entry("aps").or_insert_with(|| json!({})).as_object_mut()
}

/// The key of a sentence and its parts, as Sygnal chooses them.
fn sentence(notification: &Notification) -> Option<(&'static str, Vec<String>)> {
    let name = |text: &str| shorten::to_bytes(text, NAME_BYTES_MAX);
    let from = name(notification.from_display().unwrap_or_default());
    let content = &notification.content;
    let text = |key: &str| content.get(key).and_then(Value::as_str);
    Some(match notification.kind.as_deref()? {
        "m.room.message" | "m.room.encrypted" => {
            let room = notification.room_display().map(name);
            message(from, room, text("msgtype"), text("body").map(name))
        }
        "m.call.invite" => {
            let sdp = content.get("offer").and_then(|offer| offer.get("sdp"));
            let video = sdp.and_then(Value::as_str).is_some_and(|sdp| sdp.contains("m=video"));
            (if video { "VIDEO_CALL_FROM_USER" } else { "VOICE_CALL_FROM_USER" }, vec![from])
        }
        "m.room.member" => {
            let membership = notification.membership.as_deref().or(text("membership"));
            if !notification.user_is_target || membership != Some("invite") {
                return None;
            }
            match notification.room_display().map(name) {
                Some(room) => ("USER_INVITE_TO_NAMED_ROOM", vec![from, room]),
                None => ("USER_INVITE_TO_CHAT", vec![from]),
            }
        }
        _ => ("MSG_FROM_USER", vec![from]),
    })
}

fn message(
    from: String,
    room: Option<String>,
    msgtype: Option<&str>,
    body: Option<String>,
) -> (&'static str, Vec<String>) {
    let kind = msgtype.unwrap_or_default();
    match (room, body) {
        (Some(room), Some(body)) => match kind {
            "m.image" => ("IMAGE_FROM_USER_IN_ROOM", vec![from, body, room]),
            "m.emote" => ("ACTION_FROM_USER_IN_ROOM", vec![room, from, body]),
            _ => ("MSG_FROM_USER_IN_ROOM_WITH_CONTENT", vec![from, room, body]),
        },
        (Some(room), None) => ("MSG_FROM_USER_IN_ROOM", vec![from, room]),
        (None, Some(body)) => match kind {
            "m.image" => ("IMAGE_FROM_USER", vec![from, body]),
            "m.emote" => ("ACTION_FROM_USER", vec![from, body]),
            _ => ("MSG_FROM_USER_WITH_CONTENT", vec![from, body]),
        },
        (None, None) => ("MSG_FROM_USER", vec![from]),
    }
}

/// The texts that people see.
fn shown_texts(payload: &mut Value) -> Vec<&mut String> {
    let Some(alert) = payload.pointer_mut("/aps/alert") else { return Vec::new() };
    let Some(alert) = alert.as_object_mut() else { return Vec::new() };
    let mut texts = Vec::new();
    for (key, value) in alert {
        match value {
            Value::Array(parts) if key == "loc-args" => {
                texts.extend(parts.iter_mut().filter_map(|part| match part {
                    Value::String(text) => Some(text),
                    _ => None,
                }));
            }
            Value::String(text) if matches!(key.as_str(), "body" | "title" | "subtitle") => {
                texts.push(text);
            }
            _ => {}
        }
    }
    texts
}
