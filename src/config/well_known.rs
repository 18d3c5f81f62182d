//! What the files below `/.well-known/matrix` say.

use ruma::{OwnedUserId, serde::Base64};
use serde::{Deserialize, Serialize};

use super::Problems;

const ED25519_KEY_BYTES: usize = 32;

/// The table `well_known`. What is absent is not served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WellKnown {
    /// Base URL of the client-server API, as clients reach it.
    pub client: Option<String>,
    /// Where other servers reach this one: `host:port`.
    pub server: Option<String>,
    /// A page that helps users of this server.
    pub support_page: Option<String>,
    /// Role of the contact: `m.role.admin` or `m.role.security`.
    pub support_role: Option<String>,
    /// Mail address of the contact.
    pub support_email: Option<String>,
    /// Matrix user ID of the contact.
    pub support_mxid: Option<OwnedUserId>,
    /// The public Ed25519 key of the policy server of this server name: unpadded base64.
    pub policy_server_key: Option<String>,
}

impl WellKnown {
    /// The policy server's key.
    #[must_use]
    pub fn policy_key(&self) -> Option<Base64> {
        self.policy_server_key.as_deref().and_then(|key| Base64::parse(key).ok())
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        for (key, url) in
            [("well_known.client", &self.client), ("well_known.support_page", &self.support_page)]
        {
            let is_url = url
                .as_ref()
                .is_none_or(|url| url.starts_with("https://") || url.starts_with("http://"));
            problems.require(is_url, key, "must start with https:// or http://");
        }
        let is_name = self
            .server
            .as_ref()
            .is_none_or(|server| <&ruma::ServerName>::try_from(server.as_str()).is_ok());
        problems.require(is_name, "well_known.server", "must be a host, with a port if any");
        let is_key = self.policy_server_key.is_none()
            || self.policy_key().is_some_and(|key| key.as_bytes().len() == ED25519_KEY_BYTES);
        let form = "must be an Ed25519 key in base64";
        problems.require(is_key, "well_known.policy_server_key", form);
    }
}
