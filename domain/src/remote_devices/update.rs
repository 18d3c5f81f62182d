//! Applying what servers say of their users' devices.

use futures::FutureExt;
use millrace_store::{
    Error, Node, Read, Tx,
    rows::inbound::RemoteDevice,
    tables::{REMOTE_DEVICES, REMOTE_DEVICES_HEAD, STALE_DEVICES},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::shared::shared_rooms;
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

impl DeviceUpdate {
    /// Whether it says that it follows itself: a server of our kind introduces a device so when its
    /// user joins a room. That is no news to who learns of the user by the joining.
    fn introduces(&self) -> bool {
        self.prev_ids == [self.stream_id]
    }
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
    let user = &*update.user;
    let write = |tx: Tx| {
        async move {
            let mut head = tx.get(&REMOTE_DEVICES_HEAD, user, ()).await?.unwrap_or_default();
            let heard = head.heard.max(update.stream_id);
            let Some(known) = head.stream_id else {
                // Noted, as the list may be on its way to us, without this.
                if heard > head.heard {
                    head.heard = heard;
                    tx.put(&REMOTE_DEVICES_HEAD, user, (), &head);
                }
                if !update.introduces() {
                    announce(&tx, env, user).await?;
                }
                return Ok(false);
            };
            if update.stream_id <= known {
                return Ok(head.stale);
            }
            if update.prev_ids.iter().any(|prev| *prev > known) {
                head.stale = true;
                tx.put(&STALE_DEVICES, Node, user, &());
            }
            match &update.now {
                Some(now) => tx.put(&REMOTE_DEVICES, user, &update.device, now),
                None => tx.delete(&REMOTE_DEVICES, user, &update.device),
            }
            if !head.stale {
                head.stream_id = Some(update.stream_id);
            }
            head.heard = heard;
            tx.put(&REMOTE_DEVICES_HEAD, user, (), &head);
            announce(&tx, env, user).await?;
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
            let head = tx.get(&REMOTE_DEVICES_HEAD, &update.user, ()).await?;
            if let Some(mut head) = head.filter(|head| head.stream_id.is_some()) {
                let KeysUpdate { master_key, self_signing_key, .. } = update.clone();
                head.master_key = master_key.or(head.master_key);
                head.self_signing_key = self_signing_key.or(head.self_signing_key);
                tx.put(&REMOTE_DEVICES_HEAD, &update.user, (), &head);
            }
            announce(&tx, env, &update.user).await
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Tells clients of the change.
pub(super) async fn announce(tx: &Tx, env: &Env, user: &UserId) -> Result<(), Error> {
    let rooms = shared_rooms(tx.unprotected(), env, user).await?;
    device_list_changed(tx, user, rooms.iter().map(|room| &**room));
    Ok(())
}
