//! What clients are told when another server did not do what it was asked.

use http::StatusCode;
use millrace_federation::PeerError;
use ruma::api::error::ErrorKind;

use super::error::ApiError;

impl From<PeerError> for ApiError {
    /// What the other server says of the thing that was asked for is passed on; that it cannot be
    /// reached, or fails, is 502.
    fn from(error: PeerError) -> Self {
        match &error {
            PeerError::Refused { status, error: refusal, .. }
                if matches!(*status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) =>
            {
                let kind = refusal.error_kind().cloned();
                let default = match *status {
                    StatusCode::FORBIDDEN => ErrorKind::Forbidden,
                    _ => ErrorKind::NotFound,
                };
                Self::new(*status, kind.unwrap_or(default), error)
            }
            PeerError::Closed => Self::forbidden(error),
            PeerError::Ourselves | PeerError::Request(_) => Self::internal(error),
            _ => Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error),
        }
    }
}
