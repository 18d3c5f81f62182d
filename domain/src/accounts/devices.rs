//! The devices of a user.

use futures::future::FutureExt;
use millrace_store::{
    Read, Result as StoreResult, Scan, Tx,
    rows::account::{Device, DeviceSeen},
    tables::{DEVICES, DEVICES_SEEN},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::{
    Accounts, AuthenticateError, DeviceFate, Requester, confirm, devices_changed,
    sessions::{self, all_devices},
};
use crate::keys;

/// The longest name of a device, in bytes.
pub const NAME_BYTES_MAX: usize = 512;

/// What a user is shown of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its ID.
    pub id: OwnedDeviceId,
    /// Its name, if it has one.
    pub display_name: Option<String>,
    /// Where and when it was last seen, as far as known.
    pub seen: Option<DeviceSeen>,
}

/// Why a device is not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The user has no such device.
    #[error("no such device")]
    Unknown,
    /// The name is too long.
    #[error("a device's name has at most {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// One of the user's keys has that name, and could be taken for the device.
    #[error("a device cannot be named like a key")]
    NamedLikeKey,
    /// The session has ended meanwhile.
    #[error(transparent)]
    Session(#[from] AuthenticateError),
    /// The store failed.
    #[error("could not read or write the device")]
    Store(#[from] millrace_store::Error),
}

/// All devices of a user.
///
/// # Errors
/// Where the store fails.
pub async fn devices(accounts: &Accounts, user: &UserId) -> StoreResult<Vec<DeviceInfo>> {
    let snapshot = accounts.env.store.snapshot();
    let rows = snapshot.scan(&DEVICES, user, Scan::all()).await?;
    let ids = rows.iter().map(|(id, _)| id);
    let seen = snapshot.get_many(&DEVICES_SEEN, user, ids).await?;
    let shown = rows.into_iter().zip(seen);
    Ok(shown.map(|((id, device), seen)| info(accounts, user, id, device, seen)).collect())
}

/// One device of a user.
///
/// # Errors
/// [`DeviceError::Unknown`] where there is none.
pub async fn device(
    accounts: &Accounts,
    user: &UserId,
    id: &DeviceId,
) -> Result<DeviceInfo, DeviceError> {
    let snapshot = accounts.env.store.snapshot();
    let row = snapshot.get(&DEVICES, user, id).await?.ok_or(DeviceError::Unknown)?;
    let seen = snapshot.get(&DEVICES_SEEN, user, id).await?;
    Ok(info(accounts, user, id.to_owned(), row, seen))
}

fn info(
    accounts: &Accounts,
    user: &UserId,
    id: OwnedDeviceId,
    device: Device,
    stored: Option<DeviceSeen>,
) -> DeviceInfo {
    let seen = accounts.last_seen.find(user, &id).or(stored);
    DeviceInfo { id, display_name: device.display_name, seen }
}

/// Makes a device without a session, as application services do for their users (spec: Application
/// Service API, Creating devices). Returns whether it is new; one that is there gets the name.
///
/// # Errors
/// As [`DeviceError`] says.
pub async fn create_device(
    accounts: &Accounts,
    requester: &Requester,
    id: &DeviceId,
    name: Option<&str>,
) -> Result<bool, DeviceError> {
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(DeviceError::NameTooLong);
    }
    let user = &requester.user;
    let write = |tx: Tx| {
        async move {
            if tx.get(&DEVICES, user, id).await?.is_some() {
                return Ok(false);
            }
            if keys::is_signing_key(&tx, user, id).await? {
                return Err(DeviceError::NamedLikeKey);
            }
            let device = Device {
                display_name: name.map(str::to_owned),
                created_ms: accounts.now_ms(),
                ..Device::default()
            };
            sessions::put_device(&tx, user, id, &device).await?;
            devices_changed(&tx, user, [id], DeviceFate::Changed).await?;
            Ok(true)
        }
        .boxed()
    };
    let created = accounts.env.store.transact(write).await?;
    if !created {
        rename_device(accounts, requester, id, name).await?;
    }
    Ok(created)
}

/// Names a device of the requester; none leaves the name as it is.
///
/// # Errors
/// As [`DeviceError`] says.
pub async fn rename_device(
    accounts: &Accounts,
    requester: &Requester,
    id: &DeviceId,
    name: Option<&str>,
) -> Result<(), DeviceError> {
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(DeviceError::NameTooLong);
    }
    let user = &requester.user;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let device = tx.get(&DEVICES, user, id).await?.ok_or(DeviceError::Unknown)?;
            if name.is_none() || device.display_name.as_deref() == name {
                return Ok(());
            }
            let device = Device { display_name: name.map(str::to_owned), ..device };
            sessions::put_device(&tx, user, id, &device).await?;
            keys::rename(&tx, user, id, name).await?;
            devices_changed(&tx, user, [id], DeviceFate::Changed).await?;
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}

/// Ends the sessions of these devices of the requester. Those that do not exist are no error.
///
/// # Errors
/// As [`DeviceError`] says.
pub async fn delete_devices(
    accounts: &Accounts,
    requester: &Requester,
    ids: &[OwnedDeviceId],
) -> Result<(), DeviceError> {
    let user = &requester.user;
    let write = |tx: Tx| {
        async move {
            confirm(&tx, requester).await?;
            let mut ended = all_devices(&tx, user).await?;
            ended.retain(|(id, _)| ids.contains(id));
            sessions::end(&tx, user, &ended).await?;
            Ok(())
        }
        .boxed()
    };
    accounts.env.store.transact(write).await
}
