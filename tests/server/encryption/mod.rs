//! End-to-end encryption through the server: real sessions of vodozemac, keys that are claimed at
//! once, device lists, cross-signing, backups, dehydrated devices.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

mod backup;
mod cross_signing;
mod dehydrated;
mod device;
mod device_lists;
mod exchange;
mod one_time_keys;

use millrace_test_support::Client;
use serde_json::{Value, json};

/// A public room that encrypts.
async fn room(client: &Client) -> String {
    let encryption = json!({
        "type": "m.room.encryption",
        "state_key": "",
        "content": { "algorithm": device::MEGOLM },
    });
    let body = json!({ "preset": "public_chat", "initial_state": [encryption] });
    let room = client.post("/_matrix/client/v3/createRoom", body).await.ok();
    room["room_id"].as_str().unwrap().to_owned()
}

async fn join(client: &Client, room: &str, via: &str) {
    client.post(&format!("/_matrix/client/v3/join/{room}?via={via}"), json!({})).await.ok();
}

async fn leave(client: &Client, room: &str) {
    client.post(&format!("/_matrix/client/v3/rooms/{room}/leave"), json!({})).await.ok();
}

/// Whether a list in a sync's `device_lists` has a user.
fn lists(answer: &Value, list: &str, user: &str) -> bool {
    let users = answer["device_lists"][list].as_array();
    users.is_some_and(|users| users.iter().any(|listed| listed == user))
}
