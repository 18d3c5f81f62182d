//! Errors of room operations as clients are told them.

use http::StatusCode;
use millrace_domain::rooms::{
    AppendError, create::CreateError, forget::ForgetError, membership::MembershipError,
    policy::NotVouched, redact::RedactError, send::SendError, set_state::SetStateError,
    upgrade::UpgradeError,
};
use millrace_model::{json::NotCanonical, rules::build::BuildError};
use ruma::api::error::ErrorKind;

use super::error::ApiError;

/// What a client is told of a room that is not here. Rooms of other servers look the same.
pub(super) fn unknown_room(message: impl std::fmt::Display) -> ApiError {
    ApiError::not_found(message)
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(refused) => Self::forbidden(refused),
            AppendError::Build(BuildError::TooLarge { .. })
            | AppendError::Store(millrace_store::Error::TooLarge { .. }) => Self::too_large(error),
            AppendError::Build(BuildError::Invalid(error)) => Self::bad_json(error),
            AppendError::DuplicateAnnotation => {
                Self::bad_request(ErrorKind::DuplicateAnnotation, error)
            }
            AppendError::NotVouched(error) => error.into(),
            AppendError::Version(_) => Self::bad_request(ErrorKind::UnsupportedRoomVersion, error),
            AppendError::Build(_)
            | AppendError::Unvouched
            | AppendError::Load(_)
            | AppendError::State(_)
            | AppendError::Resolve(_)
            | AppendError::Invalid(_)
            | AppendError::Store(_) => Self::internal(error),
        }
    }
}

impl From<NotVouched> for ApiError {
    /// What the policy server says is passed on word for word.
    fn from(error: NotVouched) -> Self {
        match error {
            NotVouched::Refused { kind, message } => {
                let status = match kind {
                    ErrorKind::LimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
                    ErrorKind::Forbidden => StatusCode::FORBIDDEN,
                    _ => StatusCode::BAD_REQUEST,
                };
                Self::new(status, kind, message)
            }
            NotVouched::Unreachable(_) | NotVouched::Unsigned => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error)
            }
            NotVouched::Restless => Self::internal(error),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Version(_) => Self::bad_request(ErrorKind::UnsupportedRoomVersion, error),
            CreateError::AliasName(_) => Self::invalid_param(error),
            CreateError::AliasInUse(_) => Self::bad_request(ErrorKind::RoomInUse, error),
            CreateError::Malformed(_) => Self::bad_json(error),
            CreateError::State(AppendError::Refused(_)) => {
                Self::bad_request(ErrorKind::InvalidRoomState, error)
            }
            CreateError::State(error) => error.into(),
            CreateError::Invite(error) => error.into(),
            CreateError::Store(error) => AppendError::Store(error).into(),
            CreateError::Collision => Self::internal(error),
        }
    }
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::UnknownRoom(_) => unknown_room(error),
            UpgradeError::NotAllowed => Self::forbidden(error),
            UpgradeError::Create(error) => error.into(),
            UpgradeError::Old(error) => error.into(),
            UpgradeError::Busy => Self::internal(error),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let forbidden = |kind| Self::new(StatusCode::FORBIDDEN, kind, &error);
        match error {
            MembershipError::UnknownRoom(_) => unknown_room(error),
            MembershipError::Refused(_)
            | MembershipError::NotInRoom(_)
            | MembershipError::AlreadyInRoom(_)
            | MembershipError::OtherServer(_) => Self::forbidden(error),
            MembershipError::ServerNotices => forbidden(ErrorKind::CannotLeaveServerNoticeRoom),
            MembershipError::InviteBlocked(_) => forbidden(ErrorKind::InviteBlocked),
            MembershipError::NobodyAuthorises => forbidden(ErrorKind::UnableToGrantJoin),
            MembershipError::CannotTell => forbidden(ErrorKind::UnableToAuthorizeJoin),
            MembershipError::NotBanned(_) => forbidden(ErrorKind::BadState),
            MembershipError::Append(error) => error.into(),
        }
    }
}

impl From<ForgetError> for ApiError {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::StillIn(_) => Self::bad_request(ErrorKind::Unknown, error),
            ForgetError::Store(_) => Self::internal(error),
        }
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            // Who is not in a room is not told whether it exists.
            SendError::UnknownRoom(_) | SendError::NotJoined { .. } => Self::forbidden(error),
            SendError::Append(error) => error.into(),
        }
    }
}

impl From<RedactError> for ApiError {
    fn from(error: RedactError) -> Self {
        match error {
            RedactError::UnknownRoom(_)
            | RedactError::NotJoined(_)
            | RedactError::NotAllowed
            | RedactError::Protected(_) => Self::forbidden(error),
            RedactError::Suspended => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::UserSuspended, error)
            }
            RedactError::UnknownEvent(_) => Self::not_found(error),
            RedactError::Append(error) => error.into(),
        }
    }
}

impl From<SetStateError> for ApiError {
    fn from(error: SetStateError) -> Self {
        match error {
            SetStateError::UnknownRoom(_) => Self::forbidden(error),
            SetStateError::NoAlias(_) => Self::invalid_param(error),
            SetStateError::BadAlias(_) => Self::bad_request(ErrorKind::BadAlias, error),
            SetStateError::CreatorLevel(_)
            | SetStateError::NoMembership
            | SetStateError::NoOwner(_)
            | SetStateError::Create => Self::bad_json(error),
            SetStateError::Membership(error) => error.into(),
            SetStateError::Append(error) => error.into(),
        }
    }
}

impl From<NotCanonical> for ApiError {
    fn from(error: NotCanonical) -> Self {
        Self::bad_json(error)
    }
}
