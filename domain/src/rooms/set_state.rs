//! Setting state (spec: Client-Server API, `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`).

use futures::FutureExt;
use millrace_model::rules::{auth::Refused, owned_state, power_levels::Level, room_version};
use millrace_store::{Read, Tx, tables::ALIASES};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId,
    RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms, guests,
    membership::{Action, Change, Direct, Guest, MembershipError},
    policy,
};

/// State to be set.
#[derive(Debug, Clone)]
pub struct NewState {
    /// Who sets it.
    pub sender: OwnedUserId,
    /// Whether that is a guest.
    pub guest: Guest,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key.
    pub state_key: String,
    /// The content.
    pub content: CanonicalJsonObject,
}

/// Why state was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetStateError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// A canonical alias that is no alias.
    #[error("{0:?} is not a room alias")]
    NoAlias(String),
    /// A canonical alias that does not lead to the room.
    #[error("the alias {0} does not lead to this room")]
    BadAlias(OwnedRoomAliasId),
    /// Power levels that name a creator, who stands above all levels.
    #[error("{0} is a creator of the room and cannot have a power level")]
    CreatorLevel(OwnedUserId),
    /// A state key that begins as one that has an owner, and names nobody.
    #[error(transparent)]
    NoOwner(Refused),
    /// A second create event.
    #[error("a room is created once")]
    Create,
    /// A member event without a known membership, or of nobody.
    #[error("not a membership of anybody")]
    NoMembership,
    /// A membership that cannot be changed like this.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<millrace_store::Error> for SetStateError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// Sets state and returns the event's ID. Where the state is the same already, set by the same user,
/// it is left as it is, and its event returned.
///
/// # Errors
/// Where the room's rules or the content's own do not allow it.
pub async fn set_state(
    rooms: &Rooms,
    room_id: &RoomId,
    new: &NewState,
) -> Result<OwnedEventId, SetStateError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| SetStateError::UnknownRoom(room_id.to_owned()))?;
            let old = room.state_event(&new.kind.to_string(), &new.state_key).await?;
            if let Some(old) = &old
                && old.pdu.sender == new.sender
                && old.pdu.content_as::<CanonicalJsonObject>().is_ok_and(|old| old == new.content)
                && room.membership(&new.sender).await? == MembershipState::Join
            {
                return Ok(old.pdu.event_id.clone());
            }
            let event = match &new.kind {
                TimelineEventType::RoomMember => set_member(&mut room, new).await?.or(old),
                _ => Some(append(&mut room, new).await?),
            };
            room.finish();
            event.map(|event| event.pdu.event_id.clone()).ok_or(SetStateError::NoMembership)
        }
        .boxed()
    };
    let event = policy::transact(rooms, room_id, numbers, body).await?;
    if new.kind == TimelineEventType::RoomGuestAccess && !admits_guests(&new.content) {
        guests::leave_as_not_admitted(rooms, room_id).await?;
    }
    Ok(event)
}

fn admits_guests(content: &CanonicalJsonObject) -> bool {
    content.get("guest_access").and_then(|value| value.as_str()) == Some("can_join")
}

async fn append(
    room: &mut RoomTx<'_>,
    new: &NewState,
) -> Result<std::sync::Arc<super::Event>, SetStateError> {
    match &new.kind {
        TimelineEventType::RoomCanonicalAlias => check_aliases(room, new).await?,
        TimelineEventType::RoomPowerLevels => check_levels(room, new).await?,
        TimelineEventType::RoomCreate => return Err(SetStateError::Create),
        _ => {}
    }
    if room_version::owns_state(room.rules) && new.state_key.starts_with('@') {
        // The auth rules refuse this too; said here, it is a malformed request, not a forbidden one.
        owned_state::owner(&new.state_key).map_err(SetStateError::NoOwner)?;
    }
    let draft = Draft::state(&new.sender, new.kind.clone(), &new.state_key, new.content.clone());
    Ok(room.append(draft).await?)
}

/// A member event that is set by hand is the same as joining, inviting and so on, with a content of
/// the client's choice.
async fn set_member(
    room: &mut RoomTx<'_>,
    new: &NewState,
) -> Result<Option<std::sync::Arc<super::Event>>, SetStateError> {
    let target = UserId::parse(&new.state_key).map_err(|_| SetStateError::NoMembership)?;
    let membership = new.content.get("membership").and_then(|value| value.as_str());
    let own = target == new.sender;
    let action = match membership.ok_or(SetStateError::NoMembership)? {
        "join" if own => Action::Join(new.guest),
        "invite" => Action::Invite(Direct::No),
        "knock" if own => Action::Knock,
        "leave" if own => Action::Leave,
        "leave" if room.membership(&target).await? == MembershipState::Ban => Action::Unban,
        "leave" => Action::Kick,
        "ban" => Action::Ban,
        // Nobody joins or knocks for another; the auth rules say so.
        "join" | "knock" => return Ok(Some(append(room, new).await?)),
        _ => return Err(SetStateError::NoMembership),
    };
    let content = Some(&new.content);
    let change = Change { content, ..Change::of(&new.sender, &target, action, None) };
    Ok(change.apply(room).await?)
}

#[derive(Deserialize, Default)]
struct CanonicalAlias {
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl CanonicalAlias {
    fn all(self) -> impl Iterator<Item = String> {
        self.alias.into_iter().filter(|alias| !alias.is_empty()).chain(self.alt_aliases)
    }
}

/// Every alias that is new must lead to this room.
async fn check_aliases(room: &RoomTx<'_>, new: &NewState) -> Result<(), SetStateError> {
    let old = room.state_event("m.room.canonical_alias", &new.state_key).await?;
    let old: CanonicalAlias = old.and_then(|event| event.pdu.content_as().ok()).unwrap_or_default();
    let old: Vec<String> = old.all().collect();
    let text = serde_json::to_string(&new.content).map_err(|_| no_alias("alias"))?;
    let aliases: CanonicalAlias =
        serde_json::from_str(&text).map_err(|_| no_alias("alias or alt_aliases"))?;
    for alias in aliases.all().filter(|alias| !old.contains(alias)) {
        let alias = RoomAliasId::parse(&*alias).map_err(|_| no_alias(&alias))?;
        let row = room.tx.get(&ALIASES, &alias, ()).await?;
        if row.is_none_or(|row| row.room != room.room_id) {
            return Err(SetStateError::BadAlias(alias));
        }
    }
    Ok(())
}

fn no_alias(what: &str) -> SetStateError {
    SetStateError::NoAlias(what.to_owned())
}

/// The auth rules refuse this too; said here, it is a malformed request and not a forbidden one.
async fn check_levels(room: &RoomTx<'_>, new: &NewState) -> Result<(), SetStateError> {
    let Some(users) = new.content.get("users").and_then(|users| users.as_object()) else {
        return Ok(());
    };
    let levels = room.power_levels().await?;
    for user in users.keys().filter_map(|user| UserId::parse(user.as_str()).ok()) {
        if levels.user(&user) == Level::Infinite {
            return Err(SetStateError::CreatorLevel(user));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
