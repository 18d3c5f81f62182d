//! Who makes a request.

use millrace_store::rows::account::TokenHash;
use ruma::{OwnedDeviceId, OwnedUserId};

/// The user and device behind a request, as its access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    /// The user, who belongs to this server.
    pub user: OwnedUserId,
    /// The device that the token was given to.
    pub device: OwnedDeviceId,
    /// Whether the account is a guest's.
    pub is_guest: bool,
    /// Whether the account may use the admin API.
    pub admin: bool,
    /// Which token it was, for [`super::confirm`].
    pub token: TokenHash,
}
