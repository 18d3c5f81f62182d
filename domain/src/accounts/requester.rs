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
    /// Whether the user may only read and leave.
    pub suspended: bool,
    /// Whether the account cannot be used, but for logging out.
    pub locked: bool,
    /// Which token it was, for [`super::confirm`].
    pub token: TokenHash,
    /// The application service that asks in the user's name; none where the user does.
    pub service: Option<ByService>,
}

/// What of a request is an application service's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByService {
    /// The service's ID.
    pub id: String,
    /// Whether it asks in the name of one of the user's devices. If not, [`Requester::device`] names
    /// none, and only tells this service's requests from those of devices.
    pub has_device: bool,
}

impl Requester {
    /// Whether the request is a device's.
    #[must_use]
    pub fn has_device(&self) -> bool {
        self.service.as_ref().is_none_or(|service| service.has_device)
    }
}
