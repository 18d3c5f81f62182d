//! Names of rooms: client-server API, "Room aliases".

use std::sync::Arc;

use axum::{Router, extract::State};
use http::StatusCode;
use millrace_appservices::AppServices;
use millrace_domain::{
    accounts::Requester,
    rooms::aliases::{self, AliasError, ListAliasesError, Remover},
};
use millrace_federation::{
    Federation,
    directory::{self, AliasTarget, ResolveAliasError},
};
use ruma::{
    RoomAliasId,
    api::{
        client::{
            alias::{create_alias, delete_alias, get_alias},
            room::aliases as room_aliases,
        },
        error::ErrorKind,
    },
};

use super::{
    appservices::check_alias, error::ApiError, extract::Matrix, limits::EndpointClass,
    room_state::viewer, router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(create).matrix(delete).matrix(list)
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.read", skip_all)]
async fn read(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    Matrix(request): Matrix<get_alias::v3::Request>,
) -> Result<Matrix<get_alias::v3::Response>, ApiError> {
    let alias = request.room_alias;
    let unknown = || ApiError::not_found(format_args!("There is no alias {alias}"));
    let found = resolve_alias(&federation, &services, &alias).await?.ok_or_else(unknown)?;
    Ok(Matrix(get_alias::v3::Response::new(found.room, found.servers)))
}

/// Where an alias leads, once the application services in whose namespace it is had the opportunity to
/// make it.
pub(super) async fn resolve_alias(
    federation: &Federation,
    services: &AppServices,
    alias: &RoomAliasId,
) -> Result<Option<AliasTarget>, ApiError> {
    services.ask_for_alias(alias).await.map_err(ApiError::internal)?;
    Ok(directory::resolve_alias(federation, alias).await?)
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.create", skip_all)]
async fn create(
    (State(rooms), State(services)): (State<RoomsPart>, State<Arc<AppServices>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<create_alias::v3::Request>,
) -> Result<Matrix<create_alias::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (alias, room) = (&request.room_alias, &request.room_id);
    check_alias(&services, &requester, alias)?;
    aliases::create_alias(&rooms, alias, room, &requester.user).await?;
    Ok(Matrix(create_alias::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
#[tracing::instrument(name = "client.aliases.delete", skip_all)]
async fn delete(
    (State(rooms), State(services)): (State<RoomsPart>, State<Arc<AppServices>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<delete_alias::v3::Request>,
) -> Result<Matrix<delete_alias::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let alias = &request.room_alias;
    check_alias(&services, &requester, alias)?;
    // What is in its namespace is the service's, whoever made it.
    let by = if requester.service.is_some() { Remover::Keeper } else { Remover::User };
    aliases::delete_alias(&rooms, alias, &requester.user, by).await?;
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
