//! The homeserver around its core: configuration, HTTP server, client-server API.
//!
//! The binary in `main.rs` is a thin command line over this library, so that tests can run a whole
//! server in their own process. Start at [`app`], the only place that builds concrete things, or at
//! [`client_api`] for an endpoint. Never here: the rules of rooms and accounts (`domain`), keys and
//! tables (`store`).

pub mod app;
mod captcha;
pub mod client_api;
pub mod commands;
pub mod config;
mod departures;
pub(crate) mod federation_api;
pub mod identity;
pub mod mail;
mod media_sources;
mod push_gateways;
mod request_body;
pub mod serve;
pub mod shutdown;
pub mod sso;
pub mod system;
pub mod tls;
pub mod tls_files;
pub mod tracing_setup;
