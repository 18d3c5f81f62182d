//! Rows of end-to-end encryption: public keys of devices and users, and encrypted backups.

use std::collections::BTreeMap;

use ruma::OwnedDeviceId;
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// All keys that a user of ours has published, but for one-time and fallback keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKeys {
    /// The devices that have keys.
    pub devices: BTreeMap<OwnedDeviceId, PublishedDevice>,
    /// The master key, canonical JSON, with the signatures that everybody may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The self-signing key, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signing: Option<String>,
    /// The user-signing key, likewise; it is shown to its user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_signing: Option<String>,
}

/// What a device has published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedDevice {
    /// Its `DeviceKeys`, canonical JSON, with all signatures and without `unsigned`.
    pub keys: String,
    /// The device's name, as in its own row, so that one read answers who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The one-time and fallback keys of a device at one glance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKeysHead {
    /// By algorithm, which one-time keys there are.
    pub algorithms: BTreeMap<String, OneTimeKeyRange>,
    /// By algorithm, the fallback key.
    #[serde(default)]
    pub fallback: BTreeMap<String, FallbackKey>,
    /// Digests (8 bytes each) of the keys given away last, the oldest first: a client that did not
    /// hear that it uploaded them does so again.
    #[serde(default, with = "serde_bytes_vec")]
    pub given: Vec<u8>,
}

/// The one-time keys of one algorithm: some of those from `first` up to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKeyRange {
    /// None before this is left.
    pub first: u64,
    /// The newest; the first ever is 1.
    pub last: u64,
    /// How many are left.
    pub count: u64,
}

impl Default for OneTimeKeyRange {
    fn default() -> Self {
        Self { first: 1, last: 0, count: 0 }
    }
}

/// A one-time key that waits to be claimed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKey {
    /// Its ID, with the algorithm.
    pub id: String,
    /// The key, JSON text.
    pub json: String,
}

/// What is given where no one-time key is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackKey {
    /// The key.
    pub key: OneTimeKey,
    /// Whether it has been given to anybody.
    pub used: bool,
}

/// A user's backups at one glance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsHead {
    /// The newest version that there ever was; the first is 1.
    pub last: u64,
    /// The newest that was not deleted.
    pub current: Option<u64>,
}

/// One version of a user's backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, the text of a JSON object.
    pub auth_data: String,
    /// How many keys it holds.
    pub count: u64,
    /// Counts the changes of its keys.
    pub etag: u64,
    /// Whether it was deleted; its keys may not be gone yet.
    #[serde(default)]
    pub deleted: bool,
}

/// A key in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpKey {
    /// Index of the first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was passed on.
    pub forwarded_count: u64,
    /// Whether the device that backed it up trusts the one it is from.
    pub is_verified: bool,
    /// The encrypted key, the text of a JSON object.
    pub session_data: String,
}

/// The device that waits for its user to log in anew (MSC3814).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// Its ID.
    pub device: OwnedDeviceId,
    /// The encrypted device, the text of a JSON object.
    pub data: String,
}

/// Bytes as MessagePack's binary form, not as an array of numbers.
mod serde_bytes_vec {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

serde_value!(
    UserKeys,
    OneTimeKeysHead,
    OneTimeKey,
    BackupsHead,
    Backup,
    BackedUpKey,
    DehydratedDevice
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn a_head_with_digests_survives_its_bytes() {
        let head = OneTimeKeysHead { given: vec![0, 255, 7, 128], ..OneTimeKeysHead::default() };
        let mut bytes = Vec::new();
        head.encode(&mut bytes);
        assert_eq!(OneTimeKeysHead::decode(&bytes), Ok(head));
    }
}
