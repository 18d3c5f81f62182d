//! What the server does: operations and queries, one file each, free of HTTP.
//!
//! An operation gathers through a transaction, decides in plain functions of `millrace_model`,
//! writes in the same transaction, and lets others hear of it from the store. Never here: HTTP,
//! configuration files, the system's clock.

pub mod account_data;
pub mod accounts;
pub mod deliveries;
mod env;
pub mod ephemeral;
pub mod export;
pub mod filters;
pub mod json;
pub mod key_backup;
pub mod keys;
pub mod outbox;
pub mod presence;
pub mod profiles;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod remote_devices;
pub mod rooms;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod thread_subscriptions;
pub mod threepids;
pub mod to_device;
pub mod typing;
pub mod unread;

pub use env::{Clock, Env, Identity, Random, Rulebook};
