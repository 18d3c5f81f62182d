//! Aliases of rooms: finding, making, removing, listing (spec: Client-Server API, Room aliases).

use futures::FutureExt;
use millrace_model::{
    identifiers::{self, InvalidName},
    rules::{power_levels, visibility::Reach},
};
use millrace_store::{
    Read, Scan, Tx,
    rows::room::Alias,
    tables::{ALIASES, ROOM_ALIASES},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, RoomAliasId, RoomId,
    UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{AppendError, Draft, Numbers, ReadError, RoomTx, RoomView, Rooms, Viewer, policy};

/// Why an alias was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// The alias cannot be made here.
    #[error("the alias cannot be: {0}")]
    Name(#[from] InvalidName),
    /// The alias leads to a room already.
    #[error("the alias {0} exists")]
    Exists(OwnedRoomAliasId),
    /// There is no such alias.
    #[error("there is no alias {0}")]
    Unknown(OwnedRoomAliasId),
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The user is not in the room.
    #[error("you are not in the room {0}")]
    NotJoined(OwnedRoomId),
    /// Somebody else's alias, and the user has not the level for that.
    #[error("you may not remove the aliases of others")]
    NotAllowed,
    /// The room's canonical alias cannot be changed.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<millrace_store::Error> for AliasError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// Why aliases are not listed.
#[derive(Debug, thiserror::Error)]
pub enum ListAliasesError {
    /// The user may not read the room, or there is none.
    #[error("you are not in the room {0}")]
    NotReadable(OwnedRoomId),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What an alias of this server leads to.
///
/// # Errors
/// Where the store cannot be read.
pub async fn resolve(rooms: &Rooms, alias: &RoomAliasId) -> millrace_store::Result<Option<Alias>> {
    rooms.env.store.snapshot().get(&ALIASES, alias, ()).await
}

/// Makes an alias of a room in which `user` is.
///
/// # Errors
/// Where the alias cannot be, exists, or the user is not in the room.
pub async fn create_alias(
    rooms: &Rooms,
    alias: &RoomAliasId,
    room_id: &RoomId,
    user: &UserId,
) -> Result<(), AliasError> {
    identifiers::new_alias(alias, &rooms.env.identity.name)?;
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let room = room.ok_or_else(|| AliasError::UnknownRoom(room_id.to_owned()))?;
            if room.membership(user).await? != MembershipState::Join {
                return Err(AliasError::NotJoined(room_id.to_owned()));
            }
            if tx.get(&ALIASES, alias, ()).await?.is_some() {
                return Err(AliasError::Exists(alias.to_owned()));
            }
            let row = Alias { room: room_id.to_owned(), creator: user.to_owned() };
            tx.put(&ALIASES, alias, (), &row);
            tx.put(&ROOM_ALIASES, room_id, alias, &());
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact(body).await
}

/// Who removes an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remover {
    /// A user.
    User,
    /// The application service in whose namespace the alias is.
    Keeper,
}

/// Removes an alias: its maker may, the service in whose namespace it is, and who may set the room's canonical alias. Where the latter
/// holds, the alias is also taken out of the canonical alias event.
///
/// # Errors
/// Where there is no such alias or the user may not.
pub async fn delete_alias(
    rooms: &Rooms,
    alias: &RoomAliasId,
    user: &UserId,
    by: Remover,
) -> Result<(), AliasError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let unknown = || AliasError::Unknown(alias.to_owned());
            let row = tx.get(&ALIASES, alias, ()).await?.ok_or_else(unknown)?;
            let room = RoomTx::open(&tx, rooms, &row.room, numbers).await?;
            let may_set = match &room {
                Some(room) => may_set_canonical_alias(room, user).await?,
                None => false,
            };
            if row.creator != user && !may_set && by == Remover::User {
                return Err(AliasError::NotAllowed);
            }
            tx.delete(&ALIASES, alias, ());
            tx.delete(&ROOM_ALIASES, &row.room, alias);
            if let Some(mut room) = room
                && may_set
                && let Some(content) = canonical_without(&room, alias).await?
            {
                let kind = TimelineEventType::RoomCanonicalAlias;
                room.append(Draft::state(user, kind, "", content)).await?;
                room.finish();
            }
            Ok(())
        }
        .boxed()
    };
    policy::vouching(rooms, numbers, || rooms.env.store.transact(&body)).await
}

/// Whether `user` is in the room and has the level to set its canonical alias: who does may also
/// decide over its aliases and its place in the directory.
pub(super) async fn may_set_canonical_alias(
    room: &RoomTx<'_>,
    user: &UserId,
) -> Result<bool, AppendError> {
    if room.membership(user).await? != MembershipState::Join {
        return Ok(false);
    }
    let kind = TimelineEventType::RoomCanonicalAlias;
    let levels = room.power_levels().await?;
    Ok(levels.can(user, power_levels::Action::SendState(&kind)))
}

/// The canonical alias event's content without an alias; `None` where it does not name it.
async fn canonical_without(
    room: &RoomTx<'_>,
    alias: &RoomAliasId,
) -> Result<Option<CanonicalJsonObject>, AppendError> {
    let Some(event) = room.state_event("m.room.canonical_alias", "").await? else {
        return Ok(None);
    };
    let Ok(old) = event.pdu.content_as::<CanonicalJsonObject>() else { return Ok(None) };
    let mut content = old.clone();
    let gone = CanonicalJsonValue::from(alias.as_str());
    if content.get("alias") == Some(&gone) {
        content.remove("alias");
    }
    if let Some(CanonicalJsonValue::Array(others)) = content.get_mut("alt_aliases") {
        others.retain(|other| *other != gone);
        if others.is_empty() {
            content.remove("alt_aliases");
        }
    }
    Ok((content != old).then_some(content))
}

/// The aliases that this server has of a room, for who may read the room.
///
/// # Errors
/// Where the user may not read the room.
pub async fn list_aliases(
    rooms: &Rooms,
    viewer: &Viewer,
    room: &RoomId,
) -> Result<Vec<OwnedRoomAliasId>, ListAliasesError> {
    let snapshot = rooms.env.store.snapshot();
    let not_readable = || ListAliasesError::NotReadable(room.to_owned());
    let view = RoomView::open(rooms, &snapshot, room, viewer).await?.ok_or_else(not_readable)?;
    // Who has left reads what the room was, which its aliases are not part of.
    if view.reach != Reach::UpToNow {
        return Err(not_readable());
    }
    let rows = snapshot.scan(&ROOM_ALIASES, room, Scan::all()).await.map_err(ReadError::from)?;
    Ok(rows.into_iter().map(|(alias, ())| alias).collect())
}

#[cfg(test)]
mod tests;
