use base64::prelude::BASE64_STANDARD_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use ruma::{device_id, user_id};
use serde_json::{Value, json};

use super::*;

fn alice() -> &'static UserId {
    user_id!("@alice:x")
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD_NO_PAD.encode(bytes)
}

/// `object` with the signature of device `D`.
fn signed(mut object: Value) -> Value {
    let parsed = KeyObject::parse(&object.to_string()).unwrap();
    let text = to_canonical_json_string_for_signing(&parsed.0).unwrap();
    let signature = base64(&signer().sign(text.as_bytes()).to_bytes());
    object["signatures"]["@alice:x"]["ed25519:D"] = signature.into();
    object
}

fn device_keys() -> Value {
    json!({
        "user_id": "@alice:x",
        "device_id": "D",
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {
            "ed25519:D": base64(signer().verifying_key().as_bytes()),
            "curve25519:D": base64(&[3; 32]),
        },
        "signatures": {},
    })
}

fn check(object: &Value) -> Result<[u8; 32], InvalidKey> {
    check_device_keys(&KeyObject::parse(&object.to_string())?, alice(), device_id!("D"))
}

#[test]
fn device_keys_may_be_unsigned_but_not_signed_wrongly() {
    let key = signer().verifying_key().to_bytes();
    assert_eq!(check(&device_keys()), Ok(key));
    let mut keys = signed(device_keys());
    keys["unsigned"] = json!({ "device_display_name": "not signed" });
    assert_eq!(check(&keys), Ok(key));
    keys["algorithms"] = json!([]);
    assert!(matches!(check(&keys), Err(InvalidKey::Signature(_))));
    keys["signatures"]["@alice:x"]["ed25519:D"] = "short".into();
    assert!(matches!(check(&keys), Err(InvalidKey::Signature(_))));
}

#[test]
fn device_keys_of_another_form_or_owner_are_refused() {
    for field in ["algorithms", "keys", "signatures", "user_id", "device_id"] {
        let mut keys = device_keys();
        keys.as_object_mut().unwrap().remove(field);
        assert!(matches!(check(&keys), Err(InvalidKey::Form(_))), "without {field}");
    }
    for id in ["ed25519:D", "curve25519:D"] {
        for wrong in [json!("AAAA"), json!("?"), json!(1), Value::Null] {
            let mut keys = device_keys();
            keys["keys"][id] = wrong;
            assert!(matches!(check(&keys), Err(InvalidKey::Form(_))), "{keys}");
        }
    }
    for (field, other) in [("user_id", "@bob:x"), ("device_id", "E")] {
        let mut keys = device_keys();
        keys[field] = other.into();
        assert!(matches!(check(&keys), Err(InvalidKey::Owner(_))));
    }
    let mut keys = device_keys();
    keys["more"] = "x".repeat(KEY_BYTES_MAX).into();
    assert!(matches!(check(&keys), Err(InvalidKey::Form(_))));
}

#[test]
fn one_time_keys_are_signed_by_their_device_and_of_one_algorithm() {
    let check = |id: &'static str, object: &Value| {
        let object = KeyObject::parse(&object.to_string())?;
        let key = signer().verifying_key().to_bytes();
        check_one_time_key(&object, id, (alice(), device_id!("D"), &key)).map(str::to_owned)
    };
    let good = signed(json!({ "key": base64(&[9; 32]) }));
    assert_eq!(check("signed_curve25519:A", &good), Ok("signed_curve25519".to_owned()));
    assert_eq!(check("ed25519:A", &good), Err(InvalidKey::Algorithm("ed25519".to_owned())));
    for id in ["signed_curve25519:", "signed_curve25519"] {
        assert!(matches!(check(id, &good), Err(InvalidKey::Form(_))));
    }
    let mut other = good.clone();
    other["key"] = base64(&[8; 32]).into();
    assert!(matches!(check("signed_curve25519:A", &other), Err(InvalidKey::Signature(_))));
    let unsigned = json!({ "key": base64(&[9; 32]), "signatures": {} });
    assert!(matches!(check("signed_curve25519:A", &unsigned), Err(InvalidKey::Signature(_))));
    let short = signed(json!({ "key": "AAAA" }));
    assert!(matches!(check("signed_curve25519:A", &short), Err(InvalidKey::Form(_))));
}

#[test]
fn a_key_for_cross_signing_is_named_by_itself() {
    let check = |object: Value| {
        let object = KeyObject::parse(&object.to_string())?;
        check_cross_signing_key(&object, alice(), Usage::Master).map(|key| key.name().to_owned())
    };
    let name = base64(&[5; 32]);
    let object = |id: String, key: &str| json!({ "user_id": "@alice:x", "usage": ["master"], "keys": { id: key } });
    assert_eq!(check(object(format!("ed25519:{name}"), &name)), Ok(name.clone()));
    let other = check(object("ed25519:other".to_owned(), &name));
    assert!(matches!(other, Err(InvalidKey::Form(_))));
    let curve = check(object(format!("curve25519:{name}"), &name));
    assert_eq!(curve, Err(InvalidKey::Algorithm("curve25519".to_owned())));
    let mut wrong = object(format!("ed25519:{name}"), &name);
    wrong["usage"] = json!(["self_signing"]);
    assert!(matches!(check(wrong.clone()), Err(InvalidKey::Form(_))));
    wrong["user_id"] = "@bob:x".into();
    assert!(matches!(check(wrong), Err(InvalidKey::Owner(_))));
}

#[test]
fn signatures_are_added_beside_those_that_are_there() {
    let mut object = KeyObject::parse(&signed(device_keys()).to_string()).unwrap();
    let before = object.clone();
    object.add_signatures(alice(), [("ed25519:S", "text")]);
    object.add_signatures(user_id!("@bob:x"), [("ed25519:B", "other")]);
    assert!(object.is_same_key(&before));
    assert_eq!(object.signatures_of(alice()).len(), 2);
    assert_eq!(object.signatures_of(user_id!("@bob:x"))["ed25519:B"], "other");
    assert_eq!(KeyObject::parse(&object.to_json()), Ok(object));
}
