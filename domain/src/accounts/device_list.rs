//! The log of users whose devices have changed, which device-list tracking follows.

use millrace_store::{
    Tx,
    tables::{DEVICE_LIST, DEVICE_LISTS},
};
use ruma::UserId;

/// Notes that `user` got, lost or renamed a device, or that a device's keys changed.
pub fn device_list_changed(tx: &Tx, user: &UserId) {
    tx.put(&DEVICE_LIST, DEVICE_LISTS, user, &());
}
