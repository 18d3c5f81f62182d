//! What ends with a device, beside its tokens: its pushers, and the messages that wait for it.

use millrace_store::{Result, Tx};
use ruma::{DeviceId, UserId};

use crate::{pushers, to_device};

/// Deletes what belongs to these devices of `user`.
pub(super) async fn forget(tx: &Tx, user: &UserId, devices: &[&DeviceId]) -> Result<()> {
    for device in devices {
        pushers::remove_of_device(tx, user, device).await?;
        to_device::forget(tx, user, device).await?;
    }
    Ok(())
}
