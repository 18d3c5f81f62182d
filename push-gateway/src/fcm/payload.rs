//! What Google's devices are sent: data, with the keys that Sygnal gives them.

use serde_json::{Map, Value, json};

use crate::{
    config::{Common, SentPriority},
    notification::{Device, Notification, Priority},
    shorten,
    vendor::Unsent,
};

/// Longest value of one key, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Largest data of a message, in bytes.
const DATA_BYTES_MAX: usize = 4096;

/// The request's body, as JSON.
pub(super) fn build(
    notification: &Notification,
    device: &Device,
    fcm_options: &Map<String, Value>,
    common: &Common,
) -> Result<Vec<u8>, Unsent> {
    if notification.event_id.is_none() && notification.kind.is_none() && !common.badge {
        return Err(Unsent::Nothing);
    }
    let priority = match (common.priority, notification.prio) {
        (SentPriority::High, _) | (SentPriority::Given, Priority::High) => "high",
        (SentPriority::Low, _) | (SentPriority::Given, Priority::Low) => "normal",
    };
    let mut data = data(notification, device, common);
    data.insert("prio".to_owned(), priority.into());
    let size = |data: &Map<String, Value>| {
        data.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum()
    };
    if !shorten::until(&mut data, DATA_BYTES_MAX, size, shown_texts) {
        return Err(Unsent::Undeliverable(format!(
            "its data is larger than {DATA_BYTES_MAX} bytes"
        )));
    }
    let mut message = fcm_options.clone();
    let android = message.entry("android").or_insert_with(|| json!({}));
    if let Some(android) = android.as_object_mut() {
        android.entry("priority").or_insert_with(|| priority.into());
    }
    message.insert("token".to_owned(), device.pushkey.as_str().into());
    message.insert("data".to_owned(), data.into());
    Ok(json!({ "message": message }).to_string().into_bytes())
}

/// Keys and texts; Google takes nothing else.
fn data(notification: &Notification, device: &Device, common: &Common) -> Map<String, Value> {
    let mut data = Map::new();
    let mut put = |key: &str, text: &str| {
        data.insert(key.to_owned(), shorten::to_bytes(text, VALUE_BYTES_MAX).into());
    };
    let defaults =
        common.default_payload.iter().chain(device.default_payload().into_iter().flatten());
    for (key, value) in defaults {
        match value {
            Value::String(text) => put(key, text),
            other => put(key, &other.to_string()),
        }
    }
    let ids_only = common.event_id_only || device.wants_event_id_only();
    let ids = [("event_id", &notification.event_id), ("room_id", &notification.room_id)];
    let more = [
        ("type", &notification.kind),
        ("sender", &notification.sender),
        ("room_name", &notification.room_name),
        ("room_alias", &notification.room_alias),
        ("membership", &notification.membership),
        ("sender_display_name", &notification.sender_display_name),
    ];
    for (key, text) in ids.iter().chain(more.iter().filter(|_| !ids_only)) {
        if let Some(text) = text {
            put(key, text);
        }
    }
    if !ids_only {
        for (key, value) in &notification.content {
            if let Some(text) = value.as_str() {
                put(&format!("content_{key}"), text);
            }
        }
    }
    if common.badge {
        let counts = notification.counts;
        for (key, count) in [("unread", counts.unread), ("missed_calls", counts.missed_calls)] {
            if let Some(count) = count {
                put(key, &count.to_string());
            }
        }
    }
    data
}

/// What may be shortened: texts of people, no IDs.
fn shown_texts(data: &mut Map<String, Value>) -> Vec<&mut String> {
    data.iter_mut()
        .filter(|(key, _)| key.starts_with("content_") || key.ends_with("_name"))
        .filter_map(|(_, value)| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
        .collect()
}
