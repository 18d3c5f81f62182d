//! Joining, inviting, knocking, leaving, kicking, banning, forgetting: client-server API, "Room
//! membership".

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_appservices::AppServices;
use millrace_domain::{
    accounts::Requester,
    rooms::{
        ban, forget,
        invite::Invitation,
        kick,
        membership::{Direct, Guest},
    },
    typing::Typing,
};
use millrace_federation::{
    Federation,
    identity_servers::IdentityServers,
    membership::{
        invite,
        join::{self, Join},
        knock, leave,
    },
};
use ruma::{
    OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName,
    api::client::{
        knock::knock_room,
        membership::{
            ban_user, forget_room,
            invite_user::{self, v3::InvitationRecipient},
            join_room_by_id, join_room_by_id_or_alias, kick_user, leave_room, unban_user,
        },
    },
};

use super::{
    aliases::resolve_alias, error::ApiError, extract::Matrix, limits::EndpointClass,
    requests::WithBody, room_errors::unknown_room, router::MatrixRouter, third_party_invites,
    user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(join_by_id)
        .matrix(join_by_id_or_alias)
        .matrix(knock_on)
        .matrix(leave_room)
        .matrix(forget_room)
        .matrix(invite_user)
        .matrix(kick_user)
        .matrix(ban_user)
        .matrix(unban_user)
}

/// Whether the requester is a guest, as the operations want it.
pub(super) fn guest(requester: &Requester) -> Guest {
    if requester.is_guest { Guest::Yes } else { Guest::No }
}

/// The room that an ID or alias names, and servers that may be in it: those that the client names,
/// and those that the alias's server does.
async fn resolve(
    (federation, services): (&Federation, &AppServices),
    name: OwnedRoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    let alias = match OwnedRoomId::try_from(name) {
        Ok(room) => return Ok((room, via)),
        Err(alias) => alias,
    };
    let found = resolve_alias(federation, services, &alias).await?;
    let found = found.ok_or_else(|| unknown_room(format_args!("No room is named {alias}")))?;
    via.extend(found.servers);
    Ok((found.room, via))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
#[tracing::instrument(name = "client.rooms.join", skip_all, fields(room = %request.room_id))]
async fn join_by_id(
    (State(federation), State(identity_servers)): (State<Federation>, State<IdentityServers>),
    limits: UserLimits,
    requester: Requester,
    Matrix(WithBody { request, body }): Matrix<WithBody<join_room_by_id::v3::Request>>,
) -> Result<Matrix<join_room_by_id::v3::Response>, ApiError> {
    limits.check(EndpointClass::Join, &requester.user)?;
    let (room, guest) = (request.room_id, guest(&requester));
    let servers = (&federation, &identity_servers);
    third_party_invites::redeem(servers, &requester, (&room, &[]), &body).await?;
    let join =
        Join { room: room.clone(), user: requester.user, guest, via: Vec::new(), content: body };
    join::join(&federation, join).await?;
    Ok(Matrix(join_room_by_id::v3::Response::new(room)))
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
#[tracing::instrument(name = "client.rooms.join_named", skip_all)]
async fn join_by_id_or_alias(
    (State(federation), State(identity_servers)): (State<Federation>, State<IdentityServers>),
    State(services): State<Arc<AppServices>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(WithBody { request, body }): Matrix<WithBody<join_room_by_id_or_alias::v3::Request>>,
) -> Result<Matrix<join_room_by_id_or_alias::v3::Response>, ApiError> {
    limits.check(EndpointClass::Join, &requester.user)?;
    let name = request.room_id_or_alias;
    let (room, via) = resolve((&federation, &*services), name, request.via).await?;
    let servers = (&federation, &identity_servers);
    third_party_invites::redeem(servers, &requester, (&room, &via), &body).await?;
    let guest = guest(&requester);
    let join = Join { room: room.clone(), user: requester.user, guest, via, content: body };
    join::join(&federation, join).await?;
    Ok(Matrix(join_room_by_id_or_alias::v3::Response::new(room)))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
#[tracing::instrument(name = "client.rooms.knock", skip_all)]
async fn knock_on(
    (State(federation), State(services)): (State<Federation>, State<Arc<AppServices>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<knock_room::v3::Request>,
) -> Result<Matrix<knock_room::v3::Response>, ApiError> {
    limits.check(EndpointClass::Join, &requester.user)?;
    let name = request.room_id_or_alias;
    let (room, via) = resolve((&federation, &*services), name, request.via).await?;
    let reason = request.reason.as_deref();
    knock::knock(&federation, (&room, &requester.user), reason, &via).await?;
    Ok(Matrix(knock_room::v3::Response::new(room)))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
#[tracing::instrument(name = "client.rooms.leave", skip_all, fields(room = %request.room_id))]
async fn leave_room(
    (State(federation), State(typing)): (State<Federation>, State<Arc<Typing>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<leave_room::v3::Request>,
) -> Result<Matrix<leave_room::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (user, reason) = (&requester.user, request.reason.as_deref());
    leave::leave(&federation, &request.room_id, user, reason).await?;
    typing.stop_absent(&request.room_id).await.map_err(ApiError::internal)?;
    Ok(Matrix(leave_room::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
#[tracing::instrument(name = "client.rooms.forget", skip_all, fields(room = %request.room_id))]
async fn forget_room(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<forget_room::v3::Request>,
) -> Result<Matrix<forget_room::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    forget::forget(&rooms, &request.room_id, &requester.user).await?;
    Ok(Matrix(forget_room::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
#[tracing::instrument(name = "client.rooms.invite", skip_all, fields(room = %request.room_id))]
async fn invite_user(
    (State(federation), State(identity_servers)): (State<Federation>, State<IdentityServers>),
    State(services): State<Arc<AppServices>>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<invite_user::v3::Request>,
) -> Result<Matrix<invite_user::v3::Response>, ApiError> {
    limits.check(EndpointClass::Invite, &requester.user)?;
    let invited = match request.recipient {
        InvitationRecipient::UserId(invited) => invited,
        InvitationRecipient::ThirdPartyId(invited) => {
            let (servers, room) = ((&federation, &identity_servers), &*request.room_id);
            third_party_invites::invite(servers, room, &requester.user, &invited).await?;
            return Ok(Matrix(invite_user::v3::Response::new()));
        }
        _ => return Err(ApiError::bad_json("Neither a user nor an address is invited")),
    };
    services.ask_for_user(&invited.user_id).await.map_err(ApiError::internal)?;
    let (user, reason) = (&requester.user, invited.reason.as_deref());
    let invitation = Invitation {
        room: &request.room_id,
        sender: user,
        invited: &invited.user_id,
        direct: Direct::No,
        reason,
        content: None,
    };
    invite::invite(&federation, &invitation).await?;
    Ok(Matrix(invite_user::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
#[tracing::instrument(name = "client.rooms.kick", skip_all, fields(room = %request.room_id))]
async fn kick_user(
    (State(rooms), State(typing)): (State<RoomsPart>, State<Arc<Typing>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<kick_user::v3::Request>,
) -> Result<Matrix<kick_user::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (user, reason) = (&requester.user, request.reason.as_deref());
    kick::kick(&rooms, &request.room_id, user, &request.user_id, reason).await?;
    typing.stop_absent(&request.room_id).await.map_err(ApiError::internal)?;
    Ok(Matrix(kick_user::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
#[tracing::instrument(name = "client.rooms.ban", skip_all, fields(room = %request.room_id))]
async fn ban_user(
    (State(rooms), State(typing)): (State<RoomsPart>, State<Arc<Typing>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<ban_user::v3::Request>,
) -> Result<Matrix<ban_user::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (user, reason) = (&requester.user, request.reason.as_deref());
    ban::ban(&rooms, &request.room_id, user, &request.user_id, reason).await?;
    typing.stop_absent(&request.room_id).await.map_err(ApiError::internal)?;
    Ok(Matrix(ban_user::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
#[tracing::instrument(name = "client.rooms.unban", skip_all, fields(room = %request.room_id))]
async fn unban_user(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<unban_user::v3::Request>,
) -> Result<Matrix<unban_user::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let (user, reason) = (&requester.user, request.reason.as_deref());
    ban::unban(&rooms, &request.room_id, user, &request.user_id, reason).await?;
    Ok(Matrix(unban_user::v3::Response::new()))
}
