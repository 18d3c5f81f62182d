//! Content that only the browser can read (RFC 8291, over `aes128gcm` of RFC 8188).

use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand::{SecureRandom, SystemRandom},
};

/// A key that no browser made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidKey;

/// Push services take this much, in bytes: all of it is one record.
const RECORD_BYTES: u32 = 4096;
/// Salt, record size, length of the key, key.
const HEAD_BYTES: usize = 16 + 4 + 1 + 65;
/// How much can be said, in bytes: a delimiter and a tag are in the record as well.
pub(super) const PLAIN_BYTES_MAX: usize = RECORD_BYTES as usize - HEAD_BYTES - 1 - 16;
/// Ends the last record.
const LAST_RECORD: u8 = 2;

/// Lengths of what is derived.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Encrypts `plain`, of at most [`PLAIN_BYTES_MAX`], for who has the private key of `public` and
/// knows `auth`.
pub(super) fn aes128gcm(plain: &[u8], public: &[u8], auth: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let random = SystemRandom::new();
    let broken = |_: ring::error::Unspecified| InvalidKey;
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &random).map_err(broken)?;
    let our_public = ours.compute_public_key().map_err(broken)?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, public);
    let info = [b"WebPush: info\0".as_slice(), public, our_public.as_ref()];
    let secret = agree_ephemeral(ours, &theirs, |shared| derive::<32>(auth, shared, &info))
        .map_err(broken)?;
    let mut salt = [0; 16];
    random.fill(&mut salt).map_err(broken)?;
    let key = derive::<16>(&salt, &secret, &[b"Content-Encoding: aes128gcm\0"]);
    let nonce = derive::<12>(&salt, &secret, &[b"Content-Encoding: nonce\0"]);

    let mut record = plain.to_vec();
    record.push(LAST_RECORD);
    let key = UnboundKey::new(&AES_128_GCM, &key).map_err(broken)?;
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)
        .map_err(broken)?;
    let key_length = u8::try_from(our_public.as_ref().len()).expect("a point has 65 bytes");
    let parts =
        [&salt[..], &RECORD_BYTES.to_be_bytes(), &[key_length], our_public.as_ref(), &record];
    Ok(parts.concat())
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    let mut derived = [0; N];
    Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(info, Length(N))
        .and_then(|key| key.fill(&mut derived))
        .expect("less than 255 blocks are derived");
    derived
}
