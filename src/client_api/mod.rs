//! The client-server API: a file per endpoint family, and what all of them stand on.
//!
//! A family has `pub(crate) fn routes() -> Router<App>`, which [`router::router`] merges. A handler
//! takes the parts it needs, the authenticated user, and last the typed request
//! ([`extract::Matrix`]); it returns a typed response or an [`error::ApiError`]. It only translates.

pub mod client_ip;
pub mod discovery;
pub mod error;
pub mod extract;
mod json;
pub mod limits;
pub mod router;
#[cfg(test)]
mod tests;
