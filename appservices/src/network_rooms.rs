//! Rooms that services list in the directories of their networks (spec: Application Service API,
//! Published room directories).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    tables::{NETWORK_ROOMS, ROOM_HEAD},
};
use ruma::{OwnedRoomId, RoomId};

use crate::{AppServices, Service, third_party::instance_id};

/// Whether a room is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Why a network's directory was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

impl AppServices {
    /// Lists a room in the directory of a service's network, or takes it off.
    ///
    /// # Errors
    /// Where there is no such room.
    pub async fn list_room(
        &self,
        service: &Service,
        network: &str,
        (room, listed): (&RoomId, Listed),
    ) -> Result<(), ListError> {
        let key = (&instance_id(&service.id, network), room);
        let body = |tx: Tx| {
            async move {
                if listed == Listed::No {
                    tx.delete(&NETWORK_ROOMS, millrace_store::Node, key);
                    return Ok(());
                }
                if tx.get(&ROOM_HEAD, room, ()).await?.is_none() {
                    return Err(ListError::UnknownRoom(room.to_owned()));
                }
                tx.put(&NETWORK_ROOMS, millrace_store::Node, key, &());
                Ok(())
            }
            .boxed()
        };
        self.rooms.env.store.transact(body).await
    }
}
