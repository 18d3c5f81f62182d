//! Dehydrated devices (MSC3814): a device without a session, to which messages can be sent while its
//! user is logged out, and which the user's next device takes over.

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::{account::Device, keys::DehydratedDevice},
    tables::{DEHYDRATED_DEVICES, DEVICES},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{
    Accounts, AuthenticateError, DEVICE_NAME_BYTES_MAX, DeviceFate, Requester, confirm,
    devices_changed, sessions,
};
use crate::{
    Env,
    keys::{self, KeysUpload, Owner, UploadKeysError},
    to_device::{self, Pending},
};

/// The largest encrypted device, in bytes of JSON.
const DATA_BYTES_MAX: usize = 64 << 10;
/// The longest ID of a device, in bytes.
const ID_BYTES_MAX: usize = 255;
/// So many messages are shown at once.
const MESSAGES_MAX: usize = 100;

/// A device to be kept.
#[derive(Debug, Clone)]
pub struct NewDehydratedDevice {
    /// Its ID.
    pub id: OwnedDeviceId,
    /// Its name.
    pub display_name: Option<String>,
    /// The encrypted device, the text of a JSON object.
    pub data: String,
    /// Its keys; device keys are among them.
    pub keys: KeysUpload,
}

/// Why a dehydrated device is not kept or shown.
#[derive(Debug, thiserror::Error)]
pub enum DehydratedError {
    /// The user has none.
    #[error("there is no dehydrated device")]
    None,
    /// It has another ID than the one that was asked for.
    #[error("the device is not the dehydrated one")]
    OtherDevice,
    /// Another device has this ID.
    #[error("another device has this ID")]
    InUse,
    /// Too much data.
    #[error("{0}")]
    TooLarge(&'static str),
    /// Its keys are not what they should be.
    #[error(transparent)]
    Keys(#[from] UploadKeysError),
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not read or write the dehydrated device")]
    Store(#[from] millrace_store::Error),
}

/// Keeps a device in place of the one that is kept, which is gone with its keys and messages.
///
/// # Errors
/// As [`DehydratedError`] says.
pub async fn dehydrate(
    accounts: &Accounts,
    requester: &Requester,
    new: &NewDehydratedDevice,
) -> Result<(), DehydratedError> {
    let name_len = new.display_name.as_ref().map_or(0, String::len);
    if new.data.len() > DATA_BYTES_MAX || name_len > DEVICE_NAME_BYTES_MAX {
        return Err(DehydratedError::TooLarge("the device is too large"));
    }
    if new.id.as_str().is_empty() || new.id.as_str().len() > ID_BYTES_MAX {
        return Err(DehydratedError::TooLarge("the ID of the device is empty or too long"));
    }
    let (user, created_ms) = (&*requester.user, accounts.now_ms());
    let checked = &keys::check_upload(&new.keys, (user, &new.id), None)?;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            if let Some(old) = tx.get(&DEHYDRATED_DEVICES, user, ()).await? {
                end(&tx, user, &old.device).await?;
            }
            if tx.get(&DEVICES, user, &*new.id).await?.is_some() {
                return Err(DehydratedError::InUse);
            }
            let display_name = new.display_name.clone();
            let device = Device { display_name, created_ms, ..Device::default() };
            sessions::put_device(&tx, user, &new.id, &device).await?;
            devices_changed(&tx, user, [&*new.id], DeviceFate::Changed).await?;
            keys::publish(&tx, Owner { user, device: &new.id }, checked).await?;
            let row = DehydratedDevice { device: new.id.clone(), data: new.data.clone() };
            tx.put(&DEHYDRATED_DEVICES, user, (), &row);
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact_in(user, write).await
}

/// The device that is kept.
///
/// # Errors
/// [`DehydratedError::None`] where there is none.
pub async fn dehydrated(env: &Env, user: &UserId) -> Result<DehydratedDevice, DehydratedError> {
    let row = env.store.snapshot().get(&DEHYDRATED_DEVICES, user, ()).await?;
    row.ok_or(DehydratedError::None)
}

/// Deletes the device that is kept, and returns its ID.
///
/// # Errors
/// As [`DehydratedError`] says.
pub async fn delete_dehydrated(
    env: &Env,
    requester: &Requester,
) -> Result<OwnedDeviceId, DehydratedError> {
    let user = &*requester.user;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let row = tx.get(&DEHYDRATED_DEVICES, user, ()).await?;
            let DehydratedDevice { device, .. } = row.ok_or(DehydratedError::None)?;
            end(&tx, user, &device).await?;
            tx.delete(&DEHYDRATED_DEVICES, user, ());
            Ok(device)
        }
        .boxed()
    };
    env.store.transact_in(user, write).await
}

/// The messages that wait for the device after the `after`th. They stay until the device is deleted,
/// as whoever takes it over may not come to the end.
///
/// # Errors
/// As [`DehydratedError`] says.
pub async fn dehydrated_events(
    env: &Env,
    user: &UserId,
    device: &DeviceId,
    after: u64,
) -> Result<Vec<Pending>, DehydratedError> {
    let snapshot = env.store.snapshot();
    let row = snapshot.get(&DEHYDRATED_DEVICES, user, ()).await?.ok_or(DehydratedError::None)?;
    if row.device != device {
        return Err(DehydratedError::OtherDevice);
    }
    Ok(to_device::pending(&snapshot, user, device, after, MESSAGES_MAX).await?)
}

async fn end(tx: &Tx, user: &UserId, device: &DeviceId) -> millrace_store::Result<()> {
    if let Some(row) = tx.get(&DEVICES, user, device).await? {
        sessions::end(tx, user, &[(device.to_owned(), row)]).await?;
    }
    Ok(())
}

/// Forgets that a device was the dehydrated one, as it is gone.
pub(super) async fn forget(
    tx: &Tx,
    user: &UserId,
    devices: &[&DeviceId],
) -> millrace_store::Result<()> {
    let row = tx.get(&DEHYDRATED_DEVICES, user, ()).await?;
    if row.is_some_and(|row| devices.contains(&&*row.device)) {
        tx.delete(&DEHYDRATED_DEVICES, user, ());
    }
    Ok(())
}
