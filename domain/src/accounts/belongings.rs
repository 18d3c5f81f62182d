//! What ends with a device, beside its tokens: its pushers, and the messages that wait for it.

use millrace_store::{
    Read, Result, Scan, Tx,
    rows::user::ToDeviceHead,
    tables::{PUSHERS, PUSHERS_HEAD, PUSHKEY_USERS, TO_DEVICE, TO_DEVICE_HEAD, TO_DEVICE_SENT},
};
use ruma::{DeviceId, UserId};

/// Waiting messages that are deleted with a device. What is beyond is never read again, since the
/// head is past it.
const MESSAGES_MAX: usize = 10_000;

/// Deletes what belongs to these devices of `user`.
pub(super) async fn forget(tx: &Tx, user: &UserId, devices: &[&DeviceId]) -> Result<()> {
    forget_pushers(tx, user, devices).await?;
    for device in devices {
        forget_messages(tx, user, device).await?;
        tx.delete(&TO_DEVICE_SENT, user, *device);
    }
    Ok(())
}

async fn forget_pushers(tx: &Tx, user: &UserId, devices: &[&DeviceId]) -> Result<()> {
    let changes = tx.get(&PUSHERS_HEAD, user, ()).await?.unwrap_or(0);
    let mut pushers = tx.scan(&PUSHERS, user, Scan::all()).await?;
    pushers.retain(|(_, pusher)| devices.contains(&&*pusher.device));
    for ((app, pushkey), _) in &pushers {
        tx.delete(&PUSHERS, user, (app, pushkey));
        if let Some(mut row) = tx.get(&PUSHKEY_USERS, pushkey, app).await? {
            row.users.retain(|other| other != user);
            if row.users.is_empty() {
                tx.delete(&PUSHKEY_USERS, pushkey, app);
            } else {
                tx.put(&PUSHKEY_USERS, pushkey, app, &row);
            }
        }
    }
    if !pushers.is_empty() {
        tx.put(&PUSHERS_HEAD, user, (), &(changes + 1));
    }
    Ok(())
}

async fn forget_messages(tx: &Tx, user: &UserId, device: &DeviceId) -> Result<()> {
    let Some(head) = tx.get(&TO_DEVICE_HEAD, user, device).await? else { return Ok(()) };
    let waiting = Scan::prefix(device).limit(MESSAGES_MAX);
    let waiting = tx.scan(&TO_DEVICE, user, waiting).await?;
    for ((_, n), _) in &waiting {
        tx.delete(&TO_DEVICE, user, (device, *n));
    }
    // A device of the same name that comes later goes on counting.
    let head = ToDeviceHead { first: head.last + 1, last: head.last };
    tx.put(&TO_DEVICE_HEAD, user, device, &head);
    Ok(())
}
