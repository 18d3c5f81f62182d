//! The sub-commands of the binary. Each returns a sentence when it fails.

pub mod config_check;
pub mod generate_key;
pub mod register_user;
pub mod serve;
