//! Reporting rooms, events and users: client-server API, "Reporting Content".

use axum::{Router, extract::State};
use millrace_domain::{
    accounts::Requester,
    rooms::report::{self, ReportError, Subject},
};
use ruma::api::client::{
    reporting::report_user,
    room::{report_content, report_room},
};

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(report_event).matrix(report_room).matrix(report_user)
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
#[tracing::instrument(name = "client.reports.event", skip_all)]
async fn report_event(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<report_content::v3::Request>,
) -> Result<Matrix<report_content::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let subject = Subject::Event { room: request.room_id, event: request.event_id };
    let reason = request.reason.unwrap_or_default();
    report::report(&rooms, &requester.user, &subject, &reason).await?;
    Ok(Matrix(report_content::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
#[tracing::instrument(name = "client.reports.room", skip_all)]
async fn report_room(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<report_room::v3::Request>,
) -> Result<Matrix<report_room::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let subject = Subject::Room { room: request.room_id };
    report::report(&rooms, &requester.user, &subject, &request.reason).await?;
    Ok(Matrix(report_room::v3::Response::new()))
}

/// `POST /_matrix/client/v3/users/{userId}/report`
#[tracing::instrument(name = "client.reports.user", skip_all)]
async fn report_user(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<report_user::v3::Request>,
) -> Result<Matrix<report_user::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let subject = Subject::User { user: request.user_id };
    report::report(&rooms, &requester.user, &subject, &request.reason).await?;
    Ok(Matrix(report_user::v3::Response::new()))
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::UnknownEvent(_)
            | ReportError::UnknownRoom(_)
            | ReportError::UnknownUser(_) => Self::not_found(error),
            ReportError::ReasonTooLong => Self::too_large(error),
            ReportError::Store(error) => Self::internal(error),
        }
    }
}
