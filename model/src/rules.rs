//! The rules of rooms, each a plain function over values: nothing here reads, writes or waits.

pub mod auth;
pub mod build;
pub mod join;
pub mod owned_state;
pub mod power_levels;
pub mod push;
pub mod redaction;
pub mod room_version;
pub mod signing_key;
pub mod state_res;
pub mod visibility;

#[cfg(test)]
pub(crate) mod test_room;
