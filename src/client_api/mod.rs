//! The client-server API: a file per endpoint family, and what all of them stand on.
//!
//! A family has `pub(crate) fn routes() -> Router<App>`, which [`router::router`] merges. A handler
//! takes the parts it needs, the authenticated user, and last the typed request
//! ([`extract::Matrix`]); it returns a typed response or an [`error::ApiError`]. It only translates.

mod account;
mod account_data;
mod account_limits;
mod aliases;
pub mod capabilities;
pub mod client_ip;
pub mod create_room;
mod devices;
pub mod discovery;
pub mod error;
pub mod extract;
mod filters;
mod guest_access;
mod handshake_errors;
mod history;
mod json;
pub mod limits;
mod login;
mod members;
mod membership;
mod peer_errors;
mod profiles;
mod push_rules;
mod pushers;
mod receipts;
mod register;
mod relations;
mod reports;
pub mod requester;
mod requests;
mod room_directory;
mod room_errors;
mod room_state;
pub mod router;
mod send;
mod spaces;
mod synapse_admin;
mod sync;
#[cfg(test)]
mod tests;
mod to_device;
mod typing;
mod user_directory;
mod user_limits;
