//! Canonical JSON: what events are signed and hashed as.

use millrace_model::json::{DEPTH_MAX, canonical_object, check_depth};
use ruma::signatures;

/// Objects of every kind of value.
pub fn samples() -> Vec<Vec<u8>> {
    [
        r#"{"b":1,"a":[true,false,null,"x",-9007199254740991,9007199254740991]}"#,
        r#"{"\u0001\t\n\"\\/":"\u00e9\ud83d\ude00","日本":{"":{"":[[],{}]}},"":0}"#,
        r#"{"hashes":{"sha256":"x"},"signatures":{"a":{"ed25519:1":"x"}},"unsigned":{"age":1}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Whatever is accepted has one canonical text, which is accepted, and hashes.
pub fn run(input: &[u8]) -> bool {
    let depth = check_depth(input, DEPTH_MAX);
    let Some(text) = super::as_text(input) else { return false };
    let Ok(object) = canonical_object(text) else { return false };
    assert!(depth.is_ok());
    let canonical = serde_json::to_string(&object).expect("an object has a text");
    let again = canonical_object(&canonical).expect("canonical JSON is canonical");
    assert_eq!(again, object);
    assert_eq!(serde_json::to_string(&again).ok().as_ref(), Some(&canonical));
    let hash = signatures::content_hash(&object).map(|hash| hash.encode()).ok();
    let same = signatures::content_hash(&again).map(|hash| hash.encode()).ok();
    assert_eq!(hash, same);
    true
}
