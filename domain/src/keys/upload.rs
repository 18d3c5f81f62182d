//! Publishing the keys of a device (spec: `POST /keys/upload`).

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_model::encryption::{
    InvalidKey, KeyObject, check_device_keys, check_one_time_key, device_signing_key,
};
use millrace_store::{
    Read, Tx,
    rows::keys::{OneTimeKey, PublishedDevice, UserKeys},
    tables::{DEVICES, USER_KEYS},
};
use ruma::{DeviceId, UserId};

use super::one_time::{self, KEYS_MAX, KeyCounts, NewKey, Owner};
use crate::{
    Env,
    accounts::{AuthenticateError, DeviceFate, Requester, confirm, devices_changed},
};

/// What a device publishes; keys are JSON texts, one-time and fallback keys by their IDs.
#[derive(Debug, Clone, Default)]
pub struct KeysUpload {
    /// Its identity keys.
    pub device_keys: Option<String>,
    /// One-time keys.
    pub one_time_keys: BTreeMap<String, String>,
    /// Fallback keys, one for each algorithm.
    pub fallback_keys: BTreeMap<String, String>,
}

/// Why keys were not published; then none of them was.
#[derive(Debug, thiserror::Error)]
pub enum UploadKeysError {
    /// A key is not what it should be.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// Another key is known under the same ID. Clients look for these words.
    #[error("One time key {} already exists. Old key: {old}; new key: {}", new.id, new.json)]
    Exists {
        /// The key that was sent.
        new: OneTimeKey,
        /// The key that is known, JSON text.
        old: String,
    },
    /// Too many keys wait to be claimed.
    #[error("a device has at most {KEYS_MAX} one-time keys")]
    TooMany,
    /// More than one fallback key of an algorithm.
    #[error("there is one fallback key for each algorithm")]
    SeveralFallbackKeys,
    /// One-time keys of a device that has published no keys to check them by.
    #[error("the device has no keys that one-time keys could be signed with")]
    NoDeviceKeys,
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not read or write keys")]
    Store(#[from] millrace_store::Error),
}

/// An upload whose signatures have been checked.
pub(crate) struct Checked {
    device_keys: Option<KeyObject>,
    one_time: Vec<NewKey>,
    fallback: Vec<NewKey>,
    /// The key that signed them; none where nothing needed one.
    signed_with: Option<[u8; 32]>,
}

/// Publishes keys of the requester's device, all or none, and returns how many one-time keys wait.
///
/// # Errors
/// As [`UploadKeysError`] says.
pub async fn upload(
    env: &Env,
    requester: &Requester,
    upload: &KeysUpload,
) -> Result<KeyCounts, UploadKeysError> {
    let (user, device) = (&*requester.user, &*requester.device);
    let known = env.store.snapshot().get(&USER_KEYS, user, ()).await?;
    let checked = &check(upload, (user, device), known.as_ref())?;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            publish(&tx, Owner { user, device }, checked).await
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

/// Checks what is uploaded, by the keys of the device that come with it or are known.
pub(crate) fn check(
    upload: &KeysUpload,
    (user, device): (&UserId, &DeviceId),
    known: Option<&UserKeys>,
) -> Result<Checked, UploadKeysError> {
    let device_keys = upload.device_keys.as_deref().map(KeyObject::parse).transpose()?;
    let mut signed_with = match &device_keys {
        Some(object) => Some(check_device_keys(object, user, device)?),
        None => known.and_then(|known| stored_signing_key(known, device)),
    };
    let parse = |(id, json): (&String, &String)| {
        let object = KeyObject::parse(json)?;
        let key = signed_with.ok_or(UploadKeysError::NoDeviceKeys)?;
        let algorithm = check_one_time_key(&object, id, (user, device, &key))?.to_owned();
        let key = OneTimeKey { id: id.clone(), json: object.to_json() };
        Ok::<_, UploadKeysError>(NewKey { algorithm, key })
    };
    let one_time = upload.one_time_keys.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let fallback = upload.fallback_keys.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    // They come in the order of their IDs.
    if fallback.windows(2).any(|pair| pair[0].algorithm == pair[1].algorithm) {
        return Err(UploadKeysError::SeveralFallbackKeys);
    }
    if one_time.is_empty() && fallback.is_empty() {
        signed_with = None;
    }
    Ok(Checked { device_keys, one_time, fallback, signed_with })
}

/// Writes what was checked.
pub(crate) async fn publish(
    tx: &Tx,
    owner: Owner<'_>,
    checked: &Checked,
) -> Result<KeyCounts, UploadKeysError> {
    let Owner { user, device } = owner;
    let mut keys = tx.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
    if let Some(new) = &checked.device_keys {
        publish_device(tx, owner, &mut keys, new).await?;
    }
    if checked.signed_with.is_some() && checked.signed_with != stored_signing_key(&keys, device) {
        let changed = "the device's keys were changed meanwhile".to_owned();
        return Err(InvalidKey::Signature(changed).into());
    }
    one_time::add(tx, owner, (&checked.one_time, &checked.fallback)).await
}

/// Takes over the identity keys of a device. Those that are known keep the signatures they have.
async fn publish_device(
    tx: &Tx,
    Owner { user, device }: Owner<'_>,
    keys: &mut UserKeys,
    new: &KeyObject,
) -> Result<(), UploadKeysError> {
    let known = keys.devices.get(device).and_then(|known| KeyObject::parse(&known.keys).ok());
    let published = match known {
        Some(mut known) if known.is_same_key(new) => {
            let before = known.clone();
            known.add_signatures(user, new.signatures_of(user));
            if known == before {
                return Ok(());
            }
            known
        }
        _ => new.clone(),
    };
    let row = tx.get(&DEVICES, user, device).await?;
    let name = row.and_then(|row| row.display_name);
    let published = PublishedDevice { keys: published.to_json(), name };
    keys.devices.insert(device.to_owned(), published);
    tx.put(&USER_KEYS, user, (), keys);
    devices_changed(tx, user, [device], DeviceFate::Changed).await?;
    Ok(())
}

fn stored_signing_key(keys: &UserKeys, device: &DeviceId) -> Option<[u8; 32]> {
    let object = KeyObject::parse(&keys.devices.get(device)?.keys).ok()?;
    device_signing_key(&object, device)
}
