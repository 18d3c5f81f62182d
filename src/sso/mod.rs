//! Single sign-on by OpenID Connect: this server is a relying party of the configured providers
//! (OpenID Connect Core 1.0, Authorization Code Flow, with PKCE).
//!
//! [`SignOns::begin`] sends a browser to a provider, [`SignOns::finish`] takes it back. Who that is
//! to us is decided in `millrace_domain::accounts`.

mod claims;
mod client;
mod jwt;
mod provider;
mod sign_on;
mod template;

pub(crate) use self::client::{client_builder, encoded};
pub use self::{
    client::{ProviderError, WebClient},
    jwt::JwtError,
    provider::Provider,
    sign_on::{Begun, FinishError, Finished, Purpose, SignOnSettings, SignOns},
};
