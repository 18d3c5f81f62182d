//! Messages from device to device (spec: Client-Server API, Send-to-Device messaging). Each device
//! has a queue; a sync shows it, and the next sync of the device acknowledges what the last showed.

mod deliver;
mod send;

pub use self::{
    deliver::{Pending, acknowledge, covered, forget, pending},
    send::{Messages, Target, ToDeviceError, send},
};
