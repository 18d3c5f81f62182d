//! Aliases and published rooms of other servers.

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, ServerName,
    api::federation::{
        directory::get_public_rooms_filtered::v1 as get_public_rooms,
        query::get_room_information::v1 as get_room_information,
    },
};

use crate::{Federation, PeerError};
use millrace_domain::rooms::{aliases, servers};

/// The most servers that an answer names, so that a hostile one does not send us around the world.
const SERVERS_MAX: usize = 50;

/// Where an alias leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasTarget {
    /// The room.
    pub room: OwnedRoomId,
    /// Servers that can help to join it.
    pub servers: Vec<OwnedServerName>,
}

/// Why it is not known where an alias leads.
#[derive(Debug, thiserror::Error)]
pub enum ResolveAliasError {
    /// Its server cannot be asked, or answers something else.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// Where an alias leads, of this server or of another; `None` where there is no such alias.
///
/// # Errors
/// Where its server cannot be asked.
pub async fn resolve_alias(
    federation: &Federation,
    alias: &RoomAliasId,
) -> Result<Option<AliasTarget>, ResolveAliasError> {
    let us = &federation.env.identity.name;
    if alias.server_name() == us {
        let Some(found) = aliases::resolve(&federation.rooms, alias).await? else {
            return Ok(None);
        };
        let snapshot = federation.env.store.snapshot();
        let mut servers = servers::servers_of(&snapshot, &found.room).await?;
        // We are the nearest, whether or not we are in the room.
        servers.retain(|server| server != us);
        servers.insert(0, us.clone());
        servers.truncate(SERVERS_MAX);
        return Ok(Some(AliasTarget { room: found.room, servers }));
    }
    let request = get_room_information::Request::new(alias.to_owned());
    match federation.peers.insisting().ask(alias.server_name(), request).await {
        Ok(answer) => {
            let mut servers = answer.servers;
            servers.retain(|server| server != us);
            servers.truncate(SERVERS_MAX);
            // Whoever knows the alias is worth asking for the room.
            if !servers.iter().any(|server| server == alias.server_name()) {
                servers.push(alias.server_name().to_owned());
            }
            Ok(Some(AliasTarget { room: answer.room_id, servers }))
        }
        Err(PeerError::Refused { status, .. }) if status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A page of another server's published rooms.
///
/// # Errors
/// Where the server cannot be asked.
pub async fn public_rooms(
    federation: &Federation,
    server: &ServerName,
    request: get_public_rooms::Request,
) -> Result<get_public_rooms::Response, PeerError> {
    federation.peers.insisting().ask(server, request).await
}
