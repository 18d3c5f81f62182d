//! What clients are told when an identity server does not do what it is asked.

use http::StatusCode;
use millrace_federation::identity_servers::IdentityError;
use ruma::api::error::ErrorKind;

use super::error::ApiError;

impl From<IdentityError> for ApiError {
    /// The identity server's own refusals are passed on (spec: `/account/3pid/bind`).
    fn from(error: IdentityError) -> Self {
        match &error {
            IdentityError::NotTrusted(_) => Self::bad_request(ErrorKind::ServerNotTrusted, error),
            IdentityError::NotConfigured => {
                Self::bad_request(ErrorKind::ThreepidMediumNotSupported, error)
            }
            IdentityError::Refused { status, kind, .. } if status.is_client_error() => {
                let (status, kind) = (*status, kind.clone().unwrap_or(ErrorKind::Unknown));
                // Our client's session is good, whatever the identity server says of its own.
                let status =
                    if status == StatusCode::UNAUTHORIZED { StatusCode::FORBIDDEN } else { status };
                Self::new(status, kind, error)
            }
            IdentityError::Request(_)
            | IdentityError::Transport { .. }
            | IdentityError::Refused { .. }
            | IdentityError::Unreadable { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error)
            }
        }
    }
}
