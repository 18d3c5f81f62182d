//! The sub-commands of the binary. Each returns a sentence when it fails.

pub mod appservice;
pub mod config_check;
pub mod export_user_data;
pub mod generate_key;
pub mod register_user;
pub mod serve;
