//! Publishing whose an address is, and no longer (spec: Identity Service API, Associations).

use http::{Method, StatusCode};
use millrace_domain::threepids::Address;
use ruma::{ServerName, UserId, thirdparty::Medium};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{IdentityError, IdentityServers, ask::Credentials};

/// What an identity server publishes.
#[derive(Debug, Clone, Deserialize)]
pub struct Association {
    /// `email` or `msisdn`.
    pub medium: Medium,
    /// The address.
    pub address: String,
}

/// Whether an address is unbound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbound {
    /// It is.
    Yes,
    /// The identity server does not do that.
    NotSupported,
}

impl IdentityServers {
    /// Publishes the address that was proved to the identity server in a session there.
    ///
    /// # Errors
    /// Where the identity server refuses.
    pub async fn bind(
        &self,
        server: &ServerName,
        access_token: &str,
        (sid, client_secret): (&str, &str),
        user: &UserId,
    ) -> Result<Association, IdentityError> {
        let body = json!({ "sid": sid, "client_secret": client_secret, "mxid": user });
        let path = (Method::POST, "/_matrix/identity/v2/3pid/bind");
        self.ask(server, path, Credentials::Token(access_token), Some(&body)).await
    }

    /// Takes an association back, on this server's signature.
    ///
    /// # Errors
    /// Where the identity server cannot be reached, or fails.
    pub async fn unbind(
        &self,
        server: &ServerName,
        address: &Address,
        user: &UserId,
    ) -> Result<Unbound, IdentityError> {
        let threepid = json!({ "medium": address.medium().as_str(), "address": address.text() });
        let body = json!({ "mxid": user, "threepid": threepid });
        let path = (Method::POST, "/_matrix/identity/v2/3pid/unbind");
        match self.ask::<Value>(server, path, Credentials::Signature, Some(&body)).await {
            Ok(_) => Ok(Unbound::Yes),
            Err(IdentityError::Refused { status, .. }) if does_not_support(status) => {
                Ok(Unbound::NotSupported)
            }
            Err(error) => Err(error),
        }
    }
}

/// Spec: servers that do not unbind answer 400, 404 or 501.
fn does_not_support(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED)
}
