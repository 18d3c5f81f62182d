//! Applying what servers say of their users' devices.

use futures::FutureExt;
use millrace_store::{
    Error, Node, Read, Tx,
    rows::inbound::{RemoteDevice, RemoteDevices},
    tables::{REMOTE_DEVICES, REMOTE_DEVICES_HEAD, STALE_DEVICES},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use crate::{Env, accounts::device_list_changed};

/// A change of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUpdate {
    /// Whose.
    pub user: OwnedUserId,
    /// Which.
    pub device: OwnedDeviceId,
    /// Number of this change, raised with each.
    pub stream_id: u64,
    /// Numbers of the changes before it.
    pub prev_ids: Vec<u64>,
    /// The device as it is now; none where it is gone.
    pub now: Option<RemoteDevice>,
}

/// A change of a user's cross-signing keys, JSON texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysUpdate {
    /// Whose.
    pub user: OwnedUserId,
    /// The master key, where it changed.
    pub master_key: Option<String>,
    /// The self-signing key, where it changed.
    pub self_signing_key: Option<String>,
}

/// Applies a change of a device. Where the user is tracked and a change before it was missed, the
/// list is marked stale; `true` says so.
///
/// # Errors
/// Where the store fails.
pub async fn apply(env: &Env, update: &DeviceUpdate) -> Result<bool, Error> {
    let write = |tx: Tx| {
        async move {
            let Some(mut head) = announce(&tx, &update.user).await? else { return Ok(false) };
            let known = head.stream_id.unwrap_or(0);
            if update.stream_id <= known {
                return Ok(head.stale);
            }
            if update.prev_ids.iter().any(|prev| *prev > known) {
                head.stale = true;
                tx.put(&STALE_DEVICES, Node, &update.user, &());
            }
            match &update.now {
                Some(now) => tx.put(&REMOTE_DEVICES, &update.user, &update.device, now),
                None => tx.delete(&REMOTE_DEVICES, &update.user, &update.device),
            }
            if !head.stale {
                head.stream_id = Some(update.stream_id);
            }
            tx.put(&REMOTE_DEVICES_HEAD, &update.user, (), &head);
            Ok(head.stale)
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Applies a change of cross-signing keys.
///
/// # Errors
/// Where the store fails.
pub async fn apply_keys(env: &Env, update: &KeysUpdate) -> Result<(), Error> {
    let write = |tx: Tx| {
        async move {
            let Some(mut head) = announce(&tx, &update.user).await? else { return Ok(()) };
            let KeysUpdate { master_key, self_signing_key, .. } = update.clone();
            head.master_key = master_key.or(head.master_key);
            head.self_signing_key = self_signing_key.or(head.self_signing_key);
            tx.put(&REMOTE_DEVICES_HEAD, &update.user, (), &head);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Tells clients of the change; returns how far the user is tracked, if they are.
async fn announce(tx: &Tx, user: &UserId) -> Result<Option<RemoteDevices>, Error> {
    device_list_changed(tx, user);
    tx.get(&REMOTE_DEVICES_HEAD, user, ()).await
}
