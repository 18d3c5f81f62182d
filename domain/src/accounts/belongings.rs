//! What ends with a device, beside its tokens: its keys, its pushers, the messages that wait for it,
//! and what the account data says of its notifications.

use millrace_store::{Read, Result, Tx, tables::ACCOUNT_DATA};
use ruma::{DeviceId, UserId};

use super::dehydrated_device;
use crate::{keys, pushers, to_device};

/// Types of account data that end in the ID of the device that they are about (MSC3890).
const OF_DEVICES: [&str; 2] =
    ["m.local_notification_settings.", "org.matrix.msc3890.local_notification_settings."];

/// Deletes what belongs to these devices of `user`.
pub(super) async fn forget(tx: &Tx, user: &UserId, devices: &[&DeviceId]) -> Result<()> {
    keys::forget_devices(tx, user, devices).await?;
    dehydrated_device::forget(tx, user, devices).await?;
    for device in devices {
        pushers::remove_of_device(tx, user, device).await?;
        to_device::forget(tx, user, device).await?;
        for kind in OF_DEVICES {
            let kind = format!("{kind}{device}");
            if tx.get(&ACCOUNT_DATA, user, ("", &*kind)).await?.is_some() {
                tx.delete(&ACCOUNT_DATA, user, ("", &*kind));
            }
        }
    }
    Ok(())
}
