//! The rules of rooms, each a plain function over values: nothing here reads, writes or waits.

pub mod auth;
pub mod room_version;
