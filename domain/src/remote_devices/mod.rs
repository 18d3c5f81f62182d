//! Devices of users of other servers, as far as their servers told us (spec: Server-Server API,
//! Device Management).
//!
//! Users are tracked from when somebody first asks for their devices. From then on their server's
//! updates are applied as they come; where one was missed, the list is stale until it was fetched
//! again. What is known counts while we share a room (the list's anchor) with the user: their server
//! need tell us nothing else. Clients are told of every change, tracked or not.

mod early;
mod list;
mod shared;
mod update;

pub use self::{
    early::keep,
    list::{DeviceList, ListedDevice, devices, mark_stale, replace, shares_room, stale},
    update::{DeviceUpdate, KeysUpdate, apply, apply_keys},
};
