//! Identity servers, which know whose an e-mail address or phone number is (spec: Identity Service
//! API). Only those that are configured as trusted are asked, over the same addresses as servers.

mod ask;
mod bind;
mod invite;
mod phone;

use std::sync::Arc;

use http::StatusCode;
use millrace_domain::Env;
use ruma::{OwnedServerName, api::error::ErrorKind};

pub use self::{
    bind::{Association, Unbound},
    invite::{PublicKey, RoomShown, StoreInvite, StoredInvite},
    phone::{PhoneRequest, PhoneSession},
};
use crate::transport::{Transport, TransportError};

/// The identity servers that may be asked. Clones are cheap.
#[derive(Clone)]
pub struct IdentityServers {
    env: Env,
    transport: Arc<dyn Transport>,
    settings: Arc<Settings>,
}

/// Which identity servers there are.
#[derive(Clone, Default)]
pub struct Settings {
    /// Those that users may name.
    pub trusted: Vec<OwnedServerName>,
    /// The one that sends text messages for us: its base URL, and an access token if it wants one.
    pub phones: Option<(String, Option<String>)>,
}

/// Why an identity server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is not one that this server trusts.
    #[error("the identity server {0} is not trusted by this server")]
    NotTrusted(String),
    /// None is configured for this.
    #[error("no identity server is configured that sends text messages")]
    NotConfigured,
    /// The request cannot be made.
    #[error("the request to the identity server cannot be made: {0}")]
    Request(String),
    /// It cannot be reached.
    #[error("the identity server {server}: {source}")]
    Transport {
        /// Who was asked.
        server: String,
        /// Why there is no answer.
        source: TransportError,
    },
    /// It refused.
    #[error("the identity server answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The errcode, where it gave one.
        kind: Option<ErrorKind>,
        /// Its sentence.
        message: String,
    },
    /// What it answered is not of the right form.
    #[error("the identity server {server} sent an answer that cannot be read: {reason}")]
    Unreadable {
        /// Who was asked.
        server: String,
        /// What is wrong.
        reason: String,
    },
}

impl IdentityServers {
    /// Asks over `transport`, in the name of `env`'s identity.
    #[must_use]
    pub fn new(env: Env, transport: Arc<dyn Transport>, settings: Settings) -> Self {
        Self { env, transport, settings: Arc::new(settings) }
    }

    /// The identity server of this name, if it is trusted. Old clients put `https://` before it.
    ///
    /// # Errors
    /// [`IdentityError::NotTrusted`] where it is not.
    pub fn trusted(&self, name: &str) -> Result<OwnedServerName, IdentityError> {
        let bare = name.strip_prefix("https://").unwrap_or(name).trim_end_matches('/');
        let found = self.settings.trusted.iter().find(|trusted| trusted.as_str() == bare);
        found.cloned().ok_or_else(|| IdentityError::NotTrusted(name.to_owned()))
    }
}
