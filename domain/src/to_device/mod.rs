//! Messages from device to device (spec: Client-Server API, Send-to-Device messaging). Each device
//! has a queue; a sync shows its beginning and says in its token how far, and with that token the
//! device acknowledges what it was shown.

mod deliver;
mod expire;
mod receive;
mod remote;
mod send;

pub use self::{
    deliver::{Pending, acknowledge, forget, pending},
    expire::{Lifetimes, expire},
    receive::receive,
    remote::{REMOTE_QUEUE_MAX, forget_sent},
    send::{Messages, Target, ToDeviceError, send},
};
