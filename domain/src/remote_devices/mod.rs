//! Devices of users of other servers, as far as their servers told us (spec: Server-Server API,
//! Device Management).
//!
//! Users are tracked from when somebody first asks for their devices. From then on their server's
//! updates are applied as they come; where one was missed, the list is stale until it was fetched
//! again. Clients are told of every change, tracked or not.

mod list;
mod update;

pub use self::{
    list::{DeviceList, ListedDevice, devices, replace, shares_room, stale},
    update::{DeviceUpdate, KeysUpdate, apply, apply_keys},
};
