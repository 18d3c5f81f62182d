use ece_native::decrypt;
use hkdf::Hkdf;
use p256::{PublicKey, SecretKey, ecdh::diffie_hellman, elliptic_curve::sec1::ToEncodedPoint};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use sha2::Sha256;

use super::*;

/// What a browser does (RFC 8291, 3.4), with none of the gateway's libraries.
fn opened(sealed: Vec<u8>, secret: &SecretKey, auth: &[u8]) -> Option<Vec<u8>> {
    let theirs = PublicKey::from_sec1_bytes(&sealed[21..86]).unwrap();
    let shared = diffie_hellman(secret.to_nonzero_scalar(), theirs.as_affine());
    let ours = secret.public_key().to_encoded_point(false);
    let info = [b"WebPush: info\0", ours.as_bytes(), &sealed[21..86]].concat();
    let mut ikm = [0; 32];
    let hkdf = Hkdf::<Sha256>::new(Some(auth), shared.raw_secret_bytes());
    hkdf.expand(&info, &mut ikm).unwrap();
    decrypt(ikm, sealed).ok()
}

#[test]
fn content_is_read_by_another_library_with_the_browsers_key() {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).unwrap();
    let secret = SecretKey::from_slice(&secret).unwrap();
    let public = secret.public_key().to_encoded_point(false);
    let auth = [7; 16];
    for plain in [b"hello".to_vec(), vec![b'x'; encrypt::PLAIN_BYTES_MAX]] {
        let sealed = encrypt::aes128gcm(&plain, public.as_bytes(), &auth).unwrap();
        assert!(sealed.len() <= 4096);
        assert_eq!(opened(sealed.clone(), &secret, &auth).unwrap(), plain);
        assert_eq!(opened(sealed, &secret, &[8; 16]), None);
    }
    assert_eq!(encrypt::aes128gcm(b"x", &[4; 65], &auth), Err(encrypt::InvalidKey));
    assert_eq!(encrypt::aes128gcm(b"x", b"", &auth), Err(encrypt::InvalidKey));
}

fn plain(data: Value, notification: Value) -> Result<Value, Unsent> {
    let device = json!({ "app_id": "a", "pushkey": "key", "data": data });
    let device = serde_json::from_value(device).unwrap();
    let notification = serde_json::from_value(notification).unwrap();
    payload::build(&notification, &device, &Common::default())
        .map(|plain| serde_json::from_slice(&plain).unwrap())
}

#[test]
fn browsers_get_the_content_or_only_ids() {
    let message = json!({
        "event_id": "$e", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
        "content": { "msgtype": "m.text", "body": "Tea?", "formatted_body": "<b>Tea?</b>" },
        "counts": { "unread": 2 },
    });
    let expected = json!({
        "event_id": "$e", "room_id": "!r:x", "type": "m.room.message", "sender": "@a:x",
        "content": { "msgtype": "m.text", "body": "Tea?" }, "unread": 2, "a": 1,
    });
    let data = json!({ "default_payload": { "a": 1 } });
    assert_eq!(plain(data, message.clone()).unwrap(), expected);
    let expected = json!({ "event_id": "$e", "room_id": "!r:x", "unread": 2 });
    assert_eq!(plain(json!({ "format": "event_id_only" }), message).unwrap(), expected);
    let counts = json!({ "counts": { "unread": 1 } });
    assert_eq!(plain(json!({}), counts.clone()).unwrap(), json!({ "unread": 1 }));
    assert_eq!(plain(json!({ "events_only": true }), counts), Err(Unsent::Nothing));
}

#[test]
fn long_content_is_shortened_to_one_record() {
    let message = json!({
        "event_id": "$e", "type": "m.room.message",
        "content": { "body": "\"".repeat(9000), "other": "y".repeat(9000), "list": vec![1; 5000] },
    });
    let long = plain(json!({}), message).unwrap();
    let length = long.to_string().len();
    assert!(length <= encrypt::PLAIN_BYTES_MAX && length > 2000, "{length}");
    assert!(long["content"].get("list").is_none(), "what is no text is left out when it is long");
}
