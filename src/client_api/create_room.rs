//! Creating rooms: client-server API, "Creation".

use std::sync::Arc;

use axum::{Router, extract::State};
use millrace_appservices::AppServices;
use millrace_domain::{
    accounts::Requester,
    rooms::{
        create::{self, InitialState, Listing, NewRoom, Preset},
        membership::Direct,
        upgrade::{self, Upgrade},
    },
    threepids::Address,
};
use millrace_federation::{Federation, identity_servers::IdentityServers, membership::invite};
use millrace_model::json::canonical_object;
use ruma::{
    CanonicalJsonObject, RoomAliasId, RoomVersionId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, Response, RoomPreset},
        upgrade_room,
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    appservices::check_alias, error::ApiError, extract::Matrix, limits::EndpointClass,
    partial_rooms, router::MatrixRouter, third_party_invites, user_limits::UserLimits,
};
use crate::app::{App, RoomsPart};

/// What users may make of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPolicy {
    /// The version of rooms whose creator asks for none.
    pub default_version: RoomVersionId,
    /// Whether users may list rooms in the directory.
    pub publication: bool,
    /// Whether the directory may be read without an account.
    pub directory_without_account: bool,
    /// Whether other servers may read the directory.
    pub directory_for_servers: bool,
}

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(create_room).matrix(upgrade_room)
}

/// `POST /_matrix/client/v3/createRoom`
#[tracing::instrument(name = "client.rooms.create", skip_all)]
async fn create_room(
    (State(federation), State(identity_servers)): (State<Federation>, State<IdentityServers>),
    (State(policy), State(services)): (State<Arc<RoomPolicy>>, State<Arc<AppServices>>),
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<Request>,
) -> Result<Matrix<Response>, ApiError> {
    limits.check(EndpointClass::CreateRoom, &requester.user)?;
    let by_address = request.invite_3pid.clone();
    for invited in &by_address {
        identity_servers.trusted(&invited.id_server)?;
        Address::of(&invited.medium, &invited.address)?;
    }
    if let Some(name) = &request.room_alias_name
        && let Ok(alias) = RoomAliasId::parse(format!("#{name}:{}", federation.env.identity.name))
    {
        check_alias(&services, &requester, &alias)?;
    }
    for invited in &request.invite {
        services.ask_for_user(invited).await.map_err(ApiError::internal)?;
    }
    let new = new_room(request, requester, &policy)?;
    let room_id = create::create(&federation.rooms, &new).await?;
    let direct = new.direct;
    invite::invite_others(&federation, &room_id, &new.creator, (new.invite, direct)).await;
    let servers = (&federation, &identity_servers);
    for invited in &by_address {
        // As with users of other servers: that somebody cannot be invited does not undo the room.
        let invited = third_party_invites::invite(servers, &room_id, &new.creator, invited).await;
        if let Err(error) = invited {
            tracing::warn!(room = %room_id, ?error, "an address could not be invited to a new room");
        }
    }
    Ok(Matrix(Response::new(room_id)))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
#[tracing::instrument(name = "client.rooms.upgrade", skip_all, fields(room = %request.room_id))]
async fn upgrade_room(
    State(rooms): State<RoomsPart>,
    limits: UserLimits,
    requester: Requester,
    Matrix(request): Matrix<upgrade_room::v3::Request>,
) -> Result<Matrix<upgrade_room::v3::Response>, ApiError> {
    limits.check(EndpointClass::CreateRoom, &requester.user)?;
    // Whoever is banned stays banned.
    partial_rooms::all_members(&rooms, &request.room_id, &requester.user).await?;
    let upgrade = Upgrade {
        sender: requester.user,
        version: request.new_version,
        additional_creators: request.additional_creators,
    };
    let replacement = upgrade::upgrade(&rooms, &request.room_id, &upgrade).await?;
    Ok(Matrix(upgrade_room::v3::Response::new(replacement)))
}

fn new_room(
    request: Request,
    requester: Requester,
    policy: &RoomPolicy,
) -> Result<NewRoom, ApiError> {
    let listing = match request.visibility {
        Visibility::Public if !policy.publication => {
            return Err(ApiError::forbidden("Rooms cannot be listed in this server's directory"));
        }
        Visibility::Public => Listing::Published,
        _ => Listing::Unlisted,
    };
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::Private,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivate,
        Some(RoomPreset::PublicChat) => Preset::Public,
        Some(other) => return Err(ApiError::bad_json(format_args!("No such preset: {other}"))),
        None if listing == Listing::Published => Preset::Public,
        None => Preset::Private,
    };
    let initial_state = request.initial_state.iter().map(|raw| initial_state(raw.json()));
    Ok(NewRoom {
        creator: requester.user,
        version: request.room_version.unwrap_or_else(|| policy.default_version.clone()),
        preset,
        creation_content: object(request.creation_content.as_ref())?,
        power_levels: object(request.power_level_content_override.as_ref())?,
        initial_state: initial_state.collect::<Result<_, _>>()?,
        name: request.name,
        topic: request.topic,
        invite: request.invite,
        direct: if request.is_direct { Direct::Yes } else { Direct::No },
        alias_name: request.room_alias_name,
        listing,
    })
}

fn object<T>(raw: Option<&Raw<T>>) -> Result<CanonicalJsonObject, ApiError> {
    let Some(raw) = raw else { return Ok(CanonicalJsonObject::new()) };
    Ok(canonical_object(raw.json().get())?)
}

#[derive(Deserialize)]
struct StateEvent<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    state_key: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

fn initial_state(raw: &RawValue) -> Result<InitialState, ApiError> {
    let event: StateEvent<'_> = serde_json::from_str(raw.get()).map_err(ApiError::bad_json)?;
    let content = canonical_object(event.content.get())?;
    Ok(InitialState { kind: event.kind.into(), state_key: event.state_key, content })
}
