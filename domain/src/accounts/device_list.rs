//! The log of users whose devices have changed, which device-list tracking follows.

use millrace_store::{
    Read, Tx,
    rows::outbox::DeviceChange,
    tables::{DEVICE_CHANGES, DEVICE_LIST, DEVICE_LISTS},
};
use ruma::{DeviceId, UserId};

/// Notes that `user` got, lost or renamed a device, or that a device's keys changed.
pub fn device_list_changed(tx: &Tx, user: &UserId) {
    tx.put(&DEVICE_LIST, DEVICE_LISTS, user, &());
}

/// What became of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFate {
    /// It is new, renamed, or has other keys.
    Changed,
    /// It is gone.
    Deleted,
}

/// As [`device_list_changed`] for a user of ours, and notes for other servers which devices it was.
/// The stream ID of the change (spec: Server-Server API, `m.device_list_update`) is the position of
/// its commit.
///
/// # Errors
/// Where the store cannot be read.
pub async fn devices_changed(
    tx: &Tx,
    user: &UserId,
    devices: impl IntoIterator<Item = &DeviceId>,
    fate: DeviceFate,
) -> millrace_store::Result<()> {
    let before = tx.get_stamped(&DEVICE_LIST, DEVICE_LISTS, user).await?;
    let previous = before.map_or(0, |(position, ())| position.seq);
    let change = DeviceChange { previous, deleted: fate == DeviceFate::Deleted };
    for device in devices {
        tx.put(&DEVICE_CHANGES, user, device, &change);
    }
    device_list_changed(tx, user);
    Ok(())
}
