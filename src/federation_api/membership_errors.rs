//! What other servers are told when a join, a knock, a leaving or an invitation is not taken.

use http::StatusCode;
use millrace_domain::rooms::{RelayError, membership::MembershipError, receive::ReceiveError};
use millrace_federation::membership::{
    serve_invite::InviteRefusal, serve_join::TemplateRefusal, submit::SubmitError,
};
use ruma::api::error::{ErrorKind, IncompatibleRoomVersionErrorData};

use crate::client_api::error::ApiError;

fn incompatible(version: ruma::RoomVersionId, message: impl std::fmt::Display) -> ApiError {
    let data = IncompatibleRoomVersionErrorData::new(version);
    ApiError::bad_request(ErrorKind::IncompatibleRoomVersion(data), message)
}

impl From<TemplateRefusal> for ApiError {
    fn from(error: TemplateRefusal) -> Self {
        match error {
            TemplateRefusal::NotYours => Self::forbidden(error),
            TemplateRefusal::Incompatible(ref version) => incompatible(version.clone(), &error),
            TemplateRefusal::Submit(error) => error.into(),
            TemplateRefusal::Membership(error) => membership(error),
        }
    }
}

/// As the specification has it for servers; clients are told the same with other statuses.
fn membership(error: MembershipError) -> ApiError {
    match error {
        MembershipError::CannotTell => {
            ApiError::bad_request(ErrorKind::UnableToAuthorizeJoin, error)
        }
        MembershipError::NobodyAuthorises => {
            ApiError::bad_request(ErrorKind::UnableToGrantJoin, error)
        }
        error => error.into(),
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::UnknownRoom(_) | SubmitError::Partial(_) => Self::not_found(error),
            SubmitError::Excluded | SubmitError::NotAllowed => Self::forbidden(error),
            SubmitError::Json(_) => Self::bad_json(error),
            SubmitError::Field(_) | SubmitError::Check(_) => Self::invalid_param(error),
            SubmitError::Membership(error) => membership(error),
            SubmitError::Receive(error) => receive(error),
            SubmitError::Relay(RelayError::UnknownRoom(_) | RelayError::UnknownEvent(_)) => {
                Self::not_found(error)
            }
            SubmitError::Relay(RelayError::Store(_))
            | SubmitError::Sign(_)
            | SubmitError::Read(_)
            | SubmitError::Store(_) => Self::internal(error),
        }
    }
}

/// A server that puts an event where we cannot follow has not used our template.
fn receive(error: ReceiveError) -> ApiError {
    match error {
        ReceiveError::UnknownRoom(_) => ApiError::not_found(error),
        ReceiveError::MissingPrevEvents(_) | ReceiveError::MissingAuthEvents(_) => {
            ApiError::invalid_param(error)
        }
        error => ApiError::internal(error),
    }
}

impl From<InviteRefusal> for ApiError {
    fn from(error: InviteRefusal) -> Self {
        match error {
            InviteRefusal::Version(ref version) => incompatible(version.clone(), &error),
            InviteRefusal::Json(_) => Self::bad_json(error),
            InviteRefusal::Field(_) | InviteRefusal::Check(_) | InviteRefusal::Shown(_) => {
                Self::invalid_param(error)
            }
            InviteRefusal::NoUser(_) => Self::not_found(error),
            InviteRefusal::Blocked(_) => {
                Self::new(StatusCode::FORBIDDEN, ErrorKind::InviteBlocked, error)
            }
            InviteRefusal::Excluded => Self::forbidden(error),
            InviteRefusal::Sign(_)
            | InviteRefusal::Invalid(_)
            | InviteRefusal::Read(_)
            | InviteRefusal::Store(_) => Self::internal(error),
        }
    }
}
