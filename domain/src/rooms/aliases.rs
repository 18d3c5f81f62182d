//! Aliases of rooms: finding, making, removing, listing (spec: Client-Server API, Room aliases).

use millrace_store::{Read, rows::room::Alias, tables::ALIASES};
use ruma::RoomAliasId;

use super::Rooms;

/// What an alias of this server leads to.
///
/// # Errors
/// Where the store cannot be read.
pub async fn resolve(rooms: &Rooms, alias: &RoomAliasId) -> millrace_store::Result<Option<Alias>> {
    rooms.env.store.snapshot().get(&ALIASES, alias, ()).await
}
