//! What only application services ask (Application Service API, Client-Server API Extensions), and
//! what is different where they ask what others do too.

use std::{fmt::Display, sync::Arc};

use axum::{Router, extract::State};
use http::StatusCode;
use millrace_appservices::{
    AppServices, CallError,
    network_rooms::{ListError, Listed},
};
use millrace_domain::accounts::{
    Requester,
    uiaa::{Challenge, authorise},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomAliasId,
    api::{
        client::{
            appservice::{request_ping, set_room_visibility},
            room::Visibility,
            uiaa::AuthData,
        },
        error::{BadStatusErrorData, ErrorKind},
    },
};

use super::{
    error::ApiError, extract::Matrix, requester::ByToken, room_errors::unknown_room,
    router::MatrixRouter,
};
use crate::app::{AccountsPart, App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(ping).matrix(list_room)
}

/// `POST /_matrix/client/v1/appservice/{appserviceId}/ping`
#[tracing::instrument(name = "client.appservices.ping", skip_all)]
async fn ping(
    State(services): State<Arc<AppServices>>,
    ByToken(service): ByToken,
    Matrix(request): Matrix<request_ping::v1::Request>,
) -> Result<Matrix<request_ping::v1::Response>, ApiError> {
    if request.appservice_id != service.id {
        return Err(ApiError::forbidden("The token is that of another application service"));
    }
    let transaction = request.transaction_id.as_ref().map(|id| id.as_str());
    let took = services.ping(&service, transaction).await?;
    Ok(Matrix(request_ping::v1::Response::new(took)))
}

/// `PUT /_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}`
#[tracing::instrument(name = "client.appservices.list_room", skip_all)]
async fn list_room(
    State(services): State<Arc<AppServices>>,
    ByToken(service): ByToken,
    Matrix(request): Matrix<set_room_visibility::v3::Request>,
) -> Result<Matrix<set_room_visibility::v3::Response>, ApiError> {
    let listed = match request.visibility {
        Visibility::Public => Listed::Yes,
        Visibility::Private => Listed::No,
        _ => return Err(ApiError::invalid_param("visibility must be public or private")),
    };
    let room = (&*request.room_id, listed);
    services.list_room(&service, &request.network_id, room).await?;
    Ok(Matrix(set_room_visibility::v3::Response::new()))
}

/// 400 `M_EXCLUSIVE`.
pub(super) fn exclusive(message: impl Display) -> ApiError {
    ApiError::bad_request(ErrorKind::Exclusive, message)
}

/// Refuses with `M_EXCLUSIVE` an alias that only another service may make or remove, and a service
/// one that is in none of its namespaces.
pub(super) fn check_alias(
    services: &AppServices,
    requester: &Requester,
    alias: &RoomAliasId,
) -> Result<(), ApiError> {
    let registry = services.registry();
    let own = match &requester.service {
        Some(by) => registry.by_id(&by.id).is_some_and(|service| service.has_alias(alias)),
        None => registry.keeper_of(alias).is_none(),
    };
    if own { Ok(()) } else { Err(exclusive(format_args!("The alias {alias} is not yours"))) }
}

/// As [`authorise`]; application services, whose users have no passwords, need no more than a token.
pub(super) async fn authorise_unless_service(
    accounts: &AccountsPart,
    requester: &Requester,
    challenge: &Challenge,
    auth: Option<&AuthData>,
) -> Result<(), ApiError> {
    if requester.service.is_none() {
        authorise(accounts, challenge, auth).await?;
    }
    Ok(())
}

/// The rooms, for an event that was sent at `at`: application services say when (Timestamp massaging),
/// others do not.
pub(super) fn sending_at(
    rooms: &millrace_domain::rooms::Rooms,
    requester: &Requester,
    at: Option<MilliSecondsSinceUnixEpoch>,
) -> RoomsPart {
    let rooms = rooms.clone();
    Arc::new(match at.filter(|_| requester.service.is_some()) {
        Some(at) => rooms.sending_at(at),
        None => rooms,
    })
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::NoUrl => Self::bad_request(ErrorKind::UrlNotSet, error),
            CallError::Timeout => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::ConnectionTimeout, error)
            }
            CallError::Unreachable(_) | CallError::TooLarge => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::ConnectionFailed, error)
            }
            CallError::Status { status, body } => {
                let mut data = BadStatusErrorData::new();
                (data.status, data.body) = (Some(*status), Some(body.clone()));
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::BadStatus(data), &error)
            }
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::UnknownRoom(_) => unknown_room(error),
            ListError::Store(_) => Self::internal(error),
        }
    }
}
