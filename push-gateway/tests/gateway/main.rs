//! The gateway against local servers that speak the vendors' protocols, and refuse what the vendors'
//! documentation says they refuse.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod apns;
mod apns_server;
mod calls;
mod fcm;
mod fcm_server;
mod jwt;
mod proxy;
mod server;
mod under_test;
mod web_push;
mod web_push_server;
