//! What browsers are sent, before it is encrypted: JSON with the keys that Sygnal gives it.

use serde_json::{Map, Value};

use super::encrypt::PLAIN_BYTES_MAX;
use crate::{
    config::Common,
    notification::{Device, Notification},
    shorten,
    vendor::Unsent,
};

/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// The content, as JSON.
pub(super) fn build(
    notification: &Notification,
    device: &Device,
    common: &Common,
) -> Result<Vec<u8>, Unsent> {
    let events_only = device.data.get("events_only") == Some(&Value::Bool(true));
    if notification.event_id.is_none() && (events_only || !common.badge) {
        return Err(Unsent::Nothing);
    }
    let mut payload = common.default_payload.clone();
    payload.extend(device.default_payload().cloned().unwrap_or_default());
    fields(&mut payload, notification, common.event_id_only || device.wants_event_id_only());
    if common.badge {
        let counts = notification.counts;
        for (key, count) in [("unread", counts.unread), ("missed_calls", counts.missed_calls)] {
            if let Some(count) = count {
                payload.insert(key.to_owned(), count.into());
            }
        }
    }
    let mut payload = Value::Object(payload);
    let size = |payload: &Value| payload.to_string().len();
    if !shorten::until(&mut payload, PLAIN_BYTES_MAX, size, shown_texts) {
        return Err(Unsent::Undeliverable(format!("it is larger than {PLAIN_BYTES_MAX} bytes")));
    }
    Ok(payload.to_string().into_bytes())
}

fn fields(payload: &mut Map<String, Value>, notification: &Notification, ids_only: bool) {
    let mut put = |key: &str, text: &Option<String>| {
        if let Some(text) = text {
            payload.insert(key.to_owned(), shorten::to_bytes(text, VALUE_BYTES_MAX).into());
        }
    };
    put("room_id", &notification.room_id);
    put("event_id", &notification.event_id);
    if ids_only {
        return;
    }
    put("room_name", &notification.room_name);
    put("room_alias", &notification.room_alias);
    put("membership", &notification.membership);
    put("sender", &notification.sender);
    put("sender_display_name", &notification.sender_display_name);
    put("type", &notification.kind);
    if notification.user_is_target {
        payload.insert("user_is_target".to_owned(), true.into());
    }
    let mut content = notification.content.clone();
    // Says the same as the body again, at length; ciphertext is of no use in part.
    content.remove("formatted_body");
    content.retain(|_, value| value.is_string() || value.to_string().len() <= VALUE_BYTES_MAX);
    if content.get("ciphertext").is_some_and(|text| text.to_string().len() > VALUE_BYTES_MAX) {
        content.remove("ciphertext");
    }
    if !content.is_empty() {
        payload.insert("content".to_owned(), content.into());
    }
}

/// The texts that people see.
fn shown_texts(payload: &mut Value) -> Vec<&mut String> {
    let Some(payload) = payload.as_object_mut() else { return Vec::new() };
    let mut texts = Vec::new();
    for (key, value) in payload {
        match value {
            Value::Object(content) if key == "content" => {
                texts.extend(content.values_mut().filter_map(|value| match value {
                    Value::String(text) => Some(text),
                    _ => None,
                }));
            }
            Value::String(text) if key.ends_with("_name") => texts.push(text),
            _ => {}
        }
    }
    texts
}
