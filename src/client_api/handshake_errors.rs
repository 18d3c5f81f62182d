//! What clients are told when another server has a part in a join, a knock, a leaving or an
//! invitation, and it does not come about.

use http::StatusCode;
use millrace_domain::rooms::receive::ReceiveError;
use millrace_federation::{
    PeerError,
    membership::{
        NobodyHelped, invite::InviteError, join::JoinError, knock::KnockError, leave::LeaveError,
    },
};
use ruma::api::error::ErrorKind;

use super::error::ApiError;

impl From<NobodyHelped> for ApiError {
    fn from(error: NobodyHelped) -> Self {
        let unreachable =
            |error: &NobodyHelped| Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error);
        match &error {
            NobodyHelped::NoCandidates => Self::not_found(error),
            NobodyHelped::NotAdmitted { .. } => Self::forbidden(error),
            NobodyHelped::Peer(PeerError::Refused { status, error: refusal, .. })
                if status.is_client_error() =>
            {
                match refusal.error_kind() {
                    // That is between the servers, and no fault of the client's.
                    None | Some(ErrorKind::MissingParam | ErrorKind::InvalidParam) => {
                        unreachable(&error)
                    }
                    Some(kind) => Self::new(*status, kind.clone(), &error),
                }
            }
            NobodyHelped::Peer(_) | NobodyHelped::Unusable { .. } => unreachable(&error),
        }
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Here(error) => error.into(),
            JoinError::Elsewhere(error) => error.into(),
            JoinError::Guest => Self::forbidden(error),
            JoinError::Import(_) | JoinError::Receive(_) | JoinError::Store(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<KnockError> for ApiError {
    fn from(error: KnockError) -> Self {
        match error {
            KnockError::Here(error) => error.into(),
            KnockError::Elsewhere(error) => error.into(),
            KnockError::Store(_) => Self::internal(error),
        }
    }
}

impl From<LeaveError> for ApiError {
    fn from(error: LeaveError) -> Self {
        match error {
            LeaveError::Here(error) => error.into(),
            LeaveError::Store(_) => Self::internal(error),
        }
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        match error {
            InviteError::Here(error) => error.into(),
            InviteError::There(error) => error.into(),
            InviteError::NoLonger => Self::forbidden(error),
            InviteError::Receive(ReceiveError::UnknownRoom(_)) => Self::forbidden(error),
            InviteError::Receive(_) | InviteError::Relay(_) => Self::internal(error),
        }
    }
}
