//! The log of users whose devices have changed, which device-list tracking follows.
//!
//! A change is one row in the log, however many rooms the user is in. Those who share a room learn
//! that there is something in the log by their rooms being announced, which writes nothing.

use millrace_store::{
    Read, Result, Scan, Tx,
    rows::outbox::DeviceChange,
    tables::{
        DEVICE_CHANGES, DEVICE_LIST, DEVICE_LISTS, DEVICE_STREAM, SIGNING_KEYS_CHANGED, USER_ROOMS,
    },
};
use ruma::{DeviceId, OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};

/// The rooms of one user are announced up to so many.
const ROOMS_MAX: usize = 10_000;

/// Notes that `user` got, lost or renamed a device, or that keys changed, and lets those know who
/// look at `rooms`, the rooms that the user is in.
pub fn device_list_changed<'a>(
    tx: &Tx,
    user: &UserId,
    rooms: impl IntoIterator<Item = &'a RoomId>,
) {
    tx.put(&DEVICE_LIST, DEVICE_LISTS, user, &());
    for room in rooms {
        tx.touch::<OwnedRoomId>(room);
    }
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
) -> Result<()> {
    // Read as of before this transaction, which may have other changes: they share one number.
    tx.get(&DEVICE_STREAM, user, ()).await?;
    let before = tx.unprotected().get_stamped(&DEVICE_STREAM, user, ()).await?;
    let previous = before.map_or(0, |(position, ())| position.seq);
    let change = DeviceChange { previous, deleted: fate == DeviceFate::Deleted };
    for device in devices {
        tx.put(&DEVICE_CHANGES, user, device, &change);
    }
    tx.put(&DEVICE_STREAM, user, (), &());
    announce(tx, user).await
}

/// As [`device_list_changed`] for a user of ours whose keys for cross-signing have changed.
///
/// # Errors
/// Where the store cannot be read.
pub async fn signing_keys_changed(tx: &Tx, user: &UserId) -> Result<()> {
    tx.put(&SIGNING_KEYS_CHANGED, user, (), &());
    announce(tx, user).await
}

async fn announce(tx: &Tx, user: &UserId) -> Result<()> {
    // A room that the user joins meanwhile has news of its own.
    let scan = Scan::all().limit(ROOMS_MAX);
    let rooms = tx.unprotected().scan(&USER_ROOMS, user, scan).await?;
    let joined = rooms.iter().filter(|(_, row)| row.membership == MembershipState::Join);
    device_list_changed(tx, user, joined.map(|(room, _)| &**room));
    Ok(())
}
