//! Names of rooms: client-server API, "Room aliases".

use axum::{Router, extract::State};
use http::StatusCode;
use millrace_domain::{
    accounts::Requester,
    rooms::aliases::{self, AliasError, ListAliasesError},
};
use millrace_federation::{
    Federation,
    directory::{self, ResolveAliasError},
};
use ruma::api::{
    client::{
        alias::{create_alias, delete_alias, get_alias},
        room::aliases as room_aliases,
    },
    error::ErrorKind,
};

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, room_state::viewer,
    router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(create).matrix(delete).matrix(list)
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.read", skip_all)]
async fn read(
    State(federation): State<Federation>,
    Matrix(request): Matrix<get_alias::v3::Request>,
) -> Result<Matrix<get_alias::v3::Response>, ApiError> {
    let alias = request.room_alias;
    let unknown = || ApiError::not_found(format_args!("There is no alias {alias}"));
    let found = directory::resolve_alias(&federation, &alias).await?.ok_or_else(unknown)?;
    Ok(Matrix(get_alias::v3::Response::new(found.room, found.servers)))
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.create", skip_all)]
async fn create(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<create_alias::v3::Request>,
) -> Result<Matrix<create_alias::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (alias, room) = (&request.room_alias, &request.room_id);
    aliases::create_alias(&rooms, alias, room, &requester.user).await?;
    Ok(Matrix(create_alias::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.delete", skip_all)]
async fn delete(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_alias::v3::Request>,
) -> Result<Matrix<delete_alias::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    aliases::delete_alias(&rooms, &request.room_alias, &requester.user).await?;
    Ok(Matrix(delete_alias::v3::Response::new()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
#[tracing::instrument(name = "client.aliases.list", skip_all, fields(room = %request.room_id))]
async fn list(
    State(rooms): State<RoomsPart>,
    requester: Requester,
    Matrix(request): Matrix<room_aliases::v3::Request>,
) -> Result<Matrix<room_aliases::v3::Response>, ApiError> {
    let aliases = aliases::list_aliases(&rooms, &viewer(&requester), &request.room_id).await?;
    Ok(Matrix(room_aliases::v3::Response::new(aliases)))
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Name(_) => Self::invalid_param(error),
            AliasError::Exists(_) => Self::new(StatusCode::CONFLICT, ErrorKind::Unknown, error),
            AliasError::Unknown(_) | AliasError::UnknownRoom(_) => Self::not_found(error),
            AliasError::NotJoined(_) | AliasError::NotAllowed => Self::forbidden(error),
            AliasError::Append(error) => error.into(),
        }
    }
}

impl From<ResolveAliasError> for ApiError {
    fn from(error: ResolveAliasError) -> Self {
        match error {
            ResolveAliasError::Peer(error) => error.into(),
            ResolveAliasError::Store(error) => Self::internal(error),
        }
    }
}

impl From<ListAliasesError> for ApiError {
    fn from(error: ListAliasesError) -> Self {
        match error {
            ListAliasesError::NotReadable(_) => Self::forbidden(error),
            ListAliasesError::Read(error) => Self::internal(error),
        }
    }
}
