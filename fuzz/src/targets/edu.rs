//! Ephemeral messages in the transactions of other servers.

use millrace_model::json::{DEPTH_MAX, check_depth};
use ruma::{api::federation::transactions::edu::Edu, serde::Raw};

/// One of each kind.
pub fn samples() -> Vec<Vec<u8>> {
    [
        r#"{"edu_type":"m.typing","content":{"room_id":"!a:b","user_id":"@a:b","typing":true}}"#,
        r#"{"edu_type":"m.presence","content":{"push":[{"user_id":"@a:b","presence":"online",
            "last_active_ago":5000,"status_msg":"x","currently_active":true}]}}"#,
        r#"{"edu_type":"m.receipt","content":{"!a:b":{"m.read":{"@a:b":{"data":{"ts":1533358,
            "thread_id":"main"},"event_ids":["$read"]}}}}}"#,
        r#"{"edu_type":"m.direct_to_device","content":{"sender":"@a:b","type":"m.room_key",
            "message_id":"x","messages":{"@c:d":{"*":{"a":1},"DEVICE":{"b":[]}}}}}"#,
        r#"{"edu_type":"m.device_list_update","content":{"user_id":"@a:b","device_id":"D",
            "device_display_name":"x","stream_id":6,"prev_id":[5],"deleted":false,"keys":{
            "user_id":"@a:b","device_id":"D","algorithms":["m.olm.v1.curve25519-aes-sha2"],
            "keys":{"ed25519:D":"x"},"signatures":{"@a:b":{"ed25519:D":"x"}}}}}"#,
        r#"{"edu_type":"m.signing_key_update","content":{"user_id":"@a:b","master_key":{
            "user_id":"@a:b","usage":["master"],"keys":{"ed25519:x":"x"}},"self_signing_key":{
            "user_id":"@a:b","usage":["self_signing"],"keys":{"ed25519:y":"y"},
            "signatures":{"@a:b":{"ed25519:x":"x"}}}}}"#,
        r#"{"edu_type":"org.example.own","content":{"a":1}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Whatever is accepted can be written again, and then read.
pub fn run(input: &[u8]) -> bool {
    // As the server does with every body before it parses it.
    if check_depth(input, DEPTH_MAX).is_err() {
        return false;
    }
    let Ok(raw) = serde_json::from_slice::<Raw<Edu>>(input) else { return false };
    let Ok(edu) = raw.deserialize() else { return false };
    let written = serde_json::to_string(&edu).expect("an EDU has a text");
    let again = serde_json::from_str::<Edu>(&written).expect("what is written can be read");
    assert_eq!(serde_json::to_string(&again).ok(), Some(written));
    true
}
