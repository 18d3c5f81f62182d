//! What belongs to the keys when devices are renamed or gone, and what other servers are told of
//! them.

use millrace_model::encryption::{KeyObject, cross_signing_key};
use millrace_store::{
    Read, Result, Scan, Snapshot, Tx,
    tables::{DEVICE_STREAM, DEVICES, USER_KEYS},
};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::one_time::{self, Owner};

/// Deletes the keys of devices that are gone.
///
/// # Errors
/// Where the store fails.
pub async fn forget_devices(tx: &Tx, user: &UserId, devices: &[&DeviceId]) -> Result<()> {
    for device in devices {
        one_time::forget(tx, Owner { user, device }).await?;
    }
    let Some(mut keys) = tx.get(&USER_KEYS, user, ()).await? else { return Ok(()) };
    let before = keys.devices.len();
    keys.devices.retain(|device, _| !devices.contains(&&**device));
    if keys.devices.len() < before {
        tx.put(&USER_KEYS, user, (), &keys);
    }
    Ok(())
}

/// Whether a key for cross-signing of a user is named so (spec: Cross-signing; devices and these keys
/// share their names).
///
/// # Errors
/// Where the store fails.
pub async fn is_signing_key(tx: &Tx, user: &UserId, name: &DeviceId) -> Result<bool> {
    let keys = tx.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
    let known = [keys.master, keys.self_signing, keys.user_signing];
    let known = known.iter().flatten().filter_map(|json| KeyObject::parse(json).ok());
    let mut known = known.filter_map(|object| cross_signing_key(&object));
    Ok(known.any(|key| key.name() == name.as_str()))
}

/// Deletes the keys of a user who has given up the account, those for cross-signing too.
pub fn forget_user(tx: &Tx, user: &UserId) {
    tx.delete(&USER_KEYS, user, ());
}

/// Shows a device under another name to who asks for its keys.
///
/// # Errors
/// Where the store fails.
pub async fn rename(tx: &Tx, user: &UserId, device: &DeviceId, name: Option<&str>) -> Result<()> {
    let Some(mut keys) = tx.get(&USER_KEYS, user, ()).await? else { return Ok(()) };
    if let Some(published) = keys.devices.get_mut(device) {
        published.name = name.map(str::to_owned);
        tx.put(&USER_KEYS, user, (), &keys);
    }
    Ok(())
}

/// A device as other servers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldDevice {
    /// Its ID.
    pub id: OwnedDeviceId,
    /// Its keys, JSON text; none where it has published none.
    pub keys: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// All that another server is told of a user's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDevices {
    /// Number of the newest change.
    pub stream_id: u64,
    /// The devices, those without keys too.
    pub devices: Vec<ToldDevice>,
    /// The master key, JSON text.
    pub master: Option<String>,
    /// The self-signing key, JSON text.
    pub self_signing: Option<String>,
}

/// The devices of a user of ours; none where there is no such user, or none has a device.
///
/// # Errors
/// Where the store cannot be read.
pub async fn user_devices(snapshot: &Snapshot, user: &UserId) -> Result<UserDevices> {
    let changed = snapshot.get_stamped(&DEVICE_STREAM, user, ()).await?;
    let mut keys = snapshot.get(&USER_KEYS, user, ()).await?.unwrap_or_default();
    let rows = snapshot.scan(&DEVICES, user, Scan::all()).await?;
    let devices = rows.into_iter().map(|(id, row)| {
        let keys = keys.devices.remove(&id).map(|published| published.keys);
        ToldDevice { id, keys, name: row.display_name }
    });
    Ok(UserDevices {
        stream_id: changed.map_or(0, |(position, ())| position.seq),
        devices: devices.collect(),
        master: keys.master,
        self_signing: keys.self_signing,
    })
}
