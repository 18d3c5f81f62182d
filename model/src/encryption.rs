//! Public keys of end-to-end encryption: what form they have, and who signed them (spec:
//! Client-Server API, End-to-End Encryption, Key algorithms; Cross-signing).
//!
//! What is checked here is what a server can know: that a key is one, that it is whose it says, and
//! that signatures are by whom they say. Whether to trust anybody is left to clients.

use std::collections::BTreeMap;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, DeviceId, OwnedDeviceId, OwnedUserId, UserId,
    signatures::to_canonical_json_string_for_signing,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::json::canonical_object;

/// The largest key object, in bytes of JSON.
pub const KEY_BYTES_MAX: usize = 65_536;
/// The longest name of a key, in bytes.
const KEY_NAME_BYTES_MAX: usize = 255;
/// The only algorithm of one-time and fallback keys (spec: Key algorithms).
pub const SIGNED_CURVE25519: &str = "signed_curve25519";
/// What names keys that sign.
const ED25519: &str = "ed25519:";

/// Reads keys as leniently as clients write them.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is not of the form that the specification gives it.
    #[error("a key is malformed: {0}")]
    Form(String),
    /// It says that it is of somebody or something else.
    #[error("a key does not belong to who uploads it: {0}")]
    Owner(&'static str),
    /// An algorithm that nobody uses for this.
    #[error("`{0}` is not an algorithm for such keys")]
    Algorithm(String),
    /// A signature is wrong, or one that must be there is not.
    #[error("a signature is invalid: {0}")]
    Signature(String),
}

/// A key object: canonical JSON, with its signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyObject(CanonicalJsonObject);

/// Public keys by ID, signatures by key ID.
type ByKeyId = BTreeMap<String, String>;

#[derive(Deserialize)]
struct DeviceForm {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    #[expect(dead_code, reason = "it has to be there, and is the clients' affair")]
    algorithms: Vec<String>,
    keys: ByKeyId,
    #[expect(dead_code, reason = "it has to be there; what it holds is read from the object")]
    signatures: BTreeMap<String, ByKeyId>,
}

#[derive(Deserialize)]
struct OneTimeForm {
    key: String,
    #[expect(dead_code, reason = "it has to be there; what it holds is read from the object")]
    signatures: BTreeMap<String, ByKeyId>,
}

#[derive(Deserialize)]
struct CrossSigningForm {
    user_id: OwnedUserId,
    usage: Vec<String>,
    keys: ByKeyId,
}

impl KeyObject {
    /// Reads a key object. What servers add (`unsigned`) is left out.
    ///
    /// # Errors
    /// [`InvalidKey::Form`] where it is too large or has no canonical form.
    pub fn parse(json: &str) -> Result<Self, InvalidKey> {
        if json.len() > KEY_BYTES_MAX {
            return Err(InvalidKey::Form(format!("it has more than {KEY_BYTES_MAX} bytes")));
        }
        let mut object =
            canonical_object(json).map_err(|error| InvalidKey::Form(error.to_string()))?;
        object.remove("unsigned");
        Ok(Self(object))
    }

    /// The text that is stored and shown.
    #[must_use]
    pub fn to_json(&self) -> String {
        CanonicalJsonValue::Object(self.0.clone()).to_string()
    }

    /// The key without any signatures.
    #[must_use]
    pub fn without_signatures(&self) -> Self {
        let mut object = self.0.clone();
        object.remove("signatures");
        Self(object)
    }

    /// Whether two objects are the same but for their signatures.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        let unsigned = |object: &Self| to_canonical_json_string_for_signing(&object.0).ok();
        unsigned(self).is_some() && unsigned(self) == unsigned(other)
    }

    /// The signatures in the name of `user`, by key ID.
    #[must_use]
    pub fn signatures_of(&self, user: &UserId) -> BTreeMap<&str, &str> {
        let all = self.0.get("signatures").and_then(CanonicalJsonValue::as_object);
        let own = all.and_then(|all| all.get(user.as_str())?.as_object());
        let texts = own.into_iter().flatten();
        texts.filter_map(|(id, text)| Some((id.as_str(), text.as_str()?))).collect()
    }

    /// Adds signatures; those that are there under the same key IDs are replaced.
    pub fn add_signatures<'s>(
        &mut self,
        user: &UserId,
        signatures: impl IntoIterator<Item = (&'s str, &'s str)>,
    ) {
        let mut signatures = signatures.into_iter().peekable();
        if signatures.peek().is_none() {
            return;
        }
        let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
        let all = self.0.entry("signatures".to_owned()).or_insert_with(empty);
        let CanonicalJsonValue::Object(all) = all else { return };
        let own = all.entry(user.to_string()).or_insert_with(empty);
        let CanonicalJsonValue::Object(own) = own else { return };
        for (id, text) in signatures {
            own.insert(id.to_owned(), CanonicalJsonValue::String(text.to_owned()));
        }
    }

    /// Checks the signature that `user` made with `key`, which must be there (spec: Appendices,
    /// Checking for a Signature).
    ///
    /// # Errors
    /// [`InvalidKey::Signature`] where it is absent or wrong.
    pub fn verify(&self, user: &UserId, key_id: &str, key: &[u8; 32]) -> Result<(), InvalidKey> {
        let wrong = |why: &str| InvalidKey::Signature(format!("{key_id} of {user}: {why}"));
        let signatures = self.signatures_of(user);
        let signature = signatures.get(key_id).ok_or_else(|| wrong("it is not there"))?;
        let bytes = LENIENT.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature: [u8; 64] = bytes.ok_or_else(|| wrong("it is not 64 bytes of base64"))?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| wrong("the key is none"))?;
        let signed = to_canonical_json_string_for_signing(&self.0)
            .map_err(|error| InvalidKey::Form(error.to_string()))?;
        key.verify(signed.as_bytes(), &Signature::from_bytes(&signature))
            .map_err(|_| wrong("it does not fit"))
    }

    fn form<T: DeserializeOwned>(&self) -> Result<T, InvalidKey> {
        let value = serde_json::to_value(&self.0);
        let form = value.and_then(serde_json::from_value);
        form.map_err(|error: serde_json::Error| InvalidKey::Form(error.to_string()))
    }
}

/// Checks what a device publishes as its `DeviceKeys`, and returns its signing key. Where the device
/// has signed them, the signature must be right; without one they are of no use to other clients,
/// and no harm.
///
/// # Errors
/// As [`InvalidKey`] says.
pub fn check_device_keys(
    object: &KeyObject,
    user: &UserId,
    device: &DeviceId,
) -> Result<[u8; 32], InvalidKey> {
    let form: DeviceForm = object.form()?;
    if form.user_id != user {
        return Err(InvalidKey::Owner("the user_id is another user's"));
    }
    if form.device_id != device {
        return Err(InvalidKey::Owner("the device_id is another device's"));
    }
    let known = |id: &str| public_key(form.keys.get(id), id);
    known(&format!("curve25519:{device}"))?;
    let id = format!("{ED25519}{device}");
    let key = known(&id)?;
    if object.signatures_of(user).contains_key(id.as_str()) {
        object.verify(user, &id, &key)?;
    }
    Ok(key)
}

/// The signing key in the `DeviceKeys` of a device; none where they have none.
#[must_use]
pub fn device_signing_key(object: &KeyObject, device: &DeviceId) -> Option<[u8; 32]> {
    let keys = object.0.get("keys")?.as_object()?;
    decode_key(keys.get(&format!("{ED25519}{device}"))?.as_str()?)
}

/// Checks a one-time or fallback key that is published under the ID `id` (`ALGORITHM:NAME`) by a
/// device that signs with `key`. Returns its algorithm.
///
/// # Errors
/// As [`InvalidKey`] says.
pub fn check_one_time_key<'a>(
    object: &KeyObject,
    id: &'a str,
    (user, device, key): (&UserId, &DeviceId, &[u8; 32]),
) -> Result<&'a str, InvalidKey> {
    let malformed = || InvalidKey::Form(format!("`{id}` is not the ID of a one-time key"));
    let (algorithm, name) = id.split_once(':').ok_or_else(malformed)?;
    if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX {
        return Err(malformed());
    }
    if algorithm != SIGNED_CURVE25519 {
        return Err(InvalidKey::Algorithm(algorithm.to_owned()));
    }
    let form: OneTimeForm = object.form()?;
    public_key(Some(&form.key), id)?;
    object.verify(user, &format!("{ED25519}{device}"), key)?;
    Ok(algorithm)
}

/// What a key for cross-signing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Stands for the user, and signs the other two.
    Master,
    /// Signs the user's devices.
    SelfSigning,
    /// Signs the master keys of other users.
    UserSigning,
}

impl Usage {
    /// As it is written in `usage`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// A key that signs: its ID (`ed25519:` and the key in base64), and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyOf {
    /// The ID.
    pub id: String,
    /// The public key.
    pub key: [u8; 32],
}

impl SigningKeyOf {
    /// The ID without the algorithm: the public key in base64.
    #[must_use]
    pub fn name(&self) -> &str {
        self.id.strip_prefix(ED25519).unwrap_or(&self.id)
    }
}

/// Checks the form of a key for cross-signing of `user`, and returns the key.
///
/// # Errors
/// As [`InvalidKey`] says; signatures are not looked at.
pub fn check_cross_signing_key(
    object: &KeyObject,
    user: &UserId,
    usage: Usage,
) -> Result<SigningKeyOf, InvalidKey> {
    let form: CrossSigningForm = object.form()?;
    if form.user_id != user {
        return Err(InvalidKey::Owner("the user_id is another user's"));
    }
    if !form.usage.iter().any(|known| known == usage.as_str()) {
        return Err(InvalidKey::Form(format!("`usage` lacks `{}`", usage.as_str())));
    }
    let mut keys = form.keys.iter();
    let (Some((id, text)), None) = (keys.next(), keys.next()) else {
        return Err(InvalidKey::Form("`keys` must hold one key".to_owned()));
    };
    let Some(name) = id.strip_prefix(ED25519) else {
        let algorithm = id.split(':').next().unwrap_or_default();
        return Err(InvalidKey::Algorithm(algorithm.to_owned()));
    };
    if name != text {
        return Err(InvalidKey::Form(format!("`{id}` does not name the key that it holds")));
    }
    Ok(SigningKeyOf { id: id.clone(), key: public_key(Some(text), id)? })
}

/// The key in a key object for cross-signing; none where it is not of that form.
#[must_use]
pub fn cross_signing_key(object: &KeyObject) -> Option<SigningKeyOf> {
    let keys = object.0.get("keys")?.as_object()?;
    let (id, text) = keys.iter().find(|(id, _)| id.starts_with(ED25519))?;
    Some(SigningKeyOf { id: id.clone(), key: decode_key(text.as_str()?)? })
}

fn public_key(text: Option<&String>, id: &str) -> Result<[u8; 32], InvalidKey> {
    let text = text.ok_or_else(|| InvalidKey::Form(format!("the key {id} is missing")))?;
    decode_key(text).ok_or_else(|| InvalidKey::Form(format!("{id} is not 32 bytes of base64")))
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    LENIENT.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
