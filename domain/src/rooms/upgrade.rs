//! Replacing a room by one of another version (spec: Client-Server API, Room Upgrades).

use futures::FutureExt;
use millrace_model::rules::{
    power_levels::{Action, Level},
    room_version,
};
use millrace_store::{
    Node, Read, Scan, Tx,
    rows::room::Alias,
    tables::{ALIASES, CURRENT_STATE, EVENT_HEADERS, MEMBERS, PUBLISHED_ROOMS, ROOM_ALIASES},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    AppendError, Draft, Event, Numbers, RoomTx, Rooms,
    create::{CreateError, InitialState, NewRoom, Plan, creation_time, room_id_for},
    membership::{Action as MemberAction, Change, MembershipError},
    policy,
    upgraded_levels::{restricted_levels, upgraded_levels},
};

/// State with an empty state key that the new room takes over as it is.
const TAKEN_OVER: [TimelineEventType; 9] = [
    TimelineEventType::RoomJoinRules,
    TimelineEventType::RoomHistoryVisibility,
    TimelineEventType::RoomGuestAccess,
    TimelineEventType::RoomEncryption,
    TimelineEventType::RoomServerAcl,
    TimelineEventType::RoomName,
    TimelineEventType::RoomTopic,
    TimelineEventType::RoomAvatar,
    TimelineEventType::RoomCanonicalAlias,
];
/// Events beside those taken over that an upgrade may need in the new room.
const SPARE_EVENTS: usize = 16;
/// Events in the old room: tombstone, canonical alias, power levels.
const OLD_ROOM_EVENTS: usize = 3;
/// Bans that one transaction takes over.
const BANS_AT_ONCE: usize = 100;
/// How often an upgrade begins again because the room has changed meanwhile.
const TRIES_MAX: u32 = 50;

/// An upgrade to be done.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Who upgrades, and creates the new room.
    pub sender: OwnedUserId,
    /// The new room's version.
    pub version: RoomVersionId,
    /// Who else is a creator of the new room, from room version 12 on.
    pub additional_creators: Vec<OwnedUserId>,
}

/// Why a room was not upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The user is not in the room or has not the level for a tombstone.
    #[error("you may not upgrade this room")]
    NotAllowed,
    /// The new room cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The old room cannot be changed.
    #[error(transparent)]
    Old(#[from] AppendError),
    /// The room has changed while its state was counted.
    #[error("the room changes too quickly to be upgraded")]
    Busy,
}

impl From<millrace_store::Error> for UpgradeError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Old(error.into())
    }
}

/// Replaces a room: makes the new one with the state that carries over, sets the tombstone, moves
/// aliases and the listing in the directory, all in one transaction; then takes over the bans.
/// Returns the new room's ID.
///
/// # Errors
/// Where the user may not, or a room cannot be made or changed.
pub async fn upgrade(
    rooms: &Rooms,
    room_id: &RoomId,
    upgrade: &Upgrade,
) -> Result<OwnedRoomId, UpgradeError> {
    let mut tries = 0..TRIES_MAX;
    let new_id = loop {
        let attempt = tries.next().ok_or(UpgradeError::Busy)?;
        match replace(rooms, room_id, upgrade, attempt).await {
            Err(UpgradeError::Busy | UpgradeError::Create(CreateError::Collision)) => {}
            replaced => break replaced?,
        }
    };
    take_over_bans(rooms, room_id, &new_id, &upgrade.sender).await?;
    Ok(new_id)
}

async fn replace(
    rooms: &Rooms,
    room_id: &RoomId,
    upgrade: &Upgrade,
    attempt: u32,
) -> Result<OwnedRoomId, UpgradeError> {
    let snapshot = rooms.env.store.snapshot();
    let children = snapshot.scan(&CURRENT_STATE, room_id, Scan::prefix("m.space.child")).await?;
    let room_for = TAKEN_OVER.len() + children.len() + SPARE_EVENTS;
    let rules = room_version::rules(&upgrade.version)
        .ok_or_else(|| CreateError::Version(upgrade.version.clone()))?;
    // Drawn once: the old room's policy server vouches for an event that names the new room.
    let (named, at) = (&room_id_for(rooms, rules), creation_time(rooms, attempt));
    let old_numbers = &Numbers::draw(rooms, OLD_ROOM_EVENTS).await?;
    let new_numbers = &Numbers::draw(rooms, room_for).await?;
    let body = |tx: Tx| {
        async move {
            let old = RoomTx::open(&tx, rooms, room_id, old_numbers).await?;
            let mut old = old.ok_or_else(|| UpgradeError::UnknownRoom(room_id.to_owned()))?;
            check(&old, upgrade).await?;
            let mut new = successor(&old, upgrade).await?;
            // The room's own name for its successor, or the successor's for its room, comes first.
            if let Some(new_id) = named {
                let tombstone = append_tombstone(&mut old, upgrade, new_id).await?;
                name_predecessor(&mut new, room_id, Some(tombstone.as_str()));
            } else {
                name_predecessor(&mut new, room_id, None);
            }
            let levels = std::mem::take(&mut new.power_levels);
            let raised = raised_for(&levels, &upgrade.sender, rules);
            new.power_levels = raised.clone().unwrap_or_else(|| levels.clone());
            let plan = Plan::named(rooms, &new, named.clone())?;
            if plan.events() + 1 > room_for {
                return Err(UpgradeError::Busy);
            }
            let mut replacement = plan.carry_out(&tx, rooms, new_numbers, at).await?;
            if raised.is_some() {
                let kind = TimelineEventType::RoomPowerLevels;
                replacement.append(Draft::state(&upgrade.sender, kind, "", levels)).await?;
            }
            let new_id = replacement.room_id.clone();
            replacement.finish();
            if named.is_none() {
                append_tombstone(&mut old, upgrade, &new_id).await?;
            }
            move_names(&tx, &mut old, &new_id, &upgrade.sender).await?;
            quieten(&mut old, &upgrade.sender).await?;
            old.finish();
            Ok(new_id)
        }
        .boxed()
    };
    policy::vouching(rooms, old_numbers, || rooms.env.store.transact(&body)).await
}

async fn check(old: &RoomTx<'_>, upgrade: &Upgrade) -> Result<(), UpgradeError> {
    let joined = old.membership(&upgrade.sender).await? == MembershipState::Join;
    let kind = TimelineEventType::RoomTombstone;
    let levels = old.power_levels().await?;
    if joined && levels.can(&upgrade.sender, Action::SendState(&kind)) {
        return Ok(());
    }
    Err(UpgradeError::NotAllowed)
}

async fn append_tombstone(
    old: &mut RoomTx<'_>,
    upgrade: &Upgrade,
    new_id: &RoomId,
) -> Result<ruma::OwnedEventId, AppendError> {
    let mut content = CanonicalJsonObject::new();
    content.insert("body".to_owned(), "This room has been replaced".into());
    content.insert("replacement_room".to_owned(), new_id.as_str().into());
    let kind = TimelineEventType::RoomTombstone;
    let event = old.append(Draft::state(&upgrade.sender, kind, "", content)).await?;
    Ok(event.pdu.event_id.clone())
}

fn name_predecessor(new: &mut NewRoom, room_id: &RoomId, tombstone: Option<&str>) {
    let mut predecessor = CanonicalJsonObject::new();
    predecessor.insert("room_id".to_owned(), room_id.as_str().into());
    if let Some(tombstone) = tombstone {
        predecessor.insert("event_id".to_owned(), tombstone.into());
    }
    let predecessor = CanonicalJsonValue::Object(predecessor);
    new.creation_content.insert("predecessor".to_owned(), predecessor);
}

/// The new room, with everything that carries over.
async fn successor(old: &RoomTx<'_>, upgrade: &Upgrade) -> Result<NewRoom, UpgradeError> {
    let rules = room_version::rules(&upgrade.version)
        .ok_or_else(|| CreateError::Version(upgrade.version.clone()))?;
    let create = old.create_event().await?;
    let created = content_of(&create.pdu);
    let mut creation_content = CanonicalJsonObject::new();
    for field in ["type", "m.federate"] {
        if let Some(value) = created.get(field) {
            creation_content.insert(field.to_owned(), value.clone());
        }
    }
    let creators = if rules.authorization.additional_room_creators {
        upgrade.additional_creators.as_slice()
    } else {
        &[]
    };
    if !creators.is_empty() {
        let creators = creators.iter().map(|user| user.as_str().into()).collect();
        let creators = CanonicalJsonValue::Array(creators);
        creation_content.insert("additional_creators".to_owned(), creators);
    }
    let levels = old.state_event("m.room.power_levels", "").await?;
    let levels = levels.map(|event| content_of(&event.pdu));
    Ok(NewRoom {
        creation_content,
        power_levels: upgraded_levels(levels, &upgrade.sender, creators, rules),
        initial_state: state_taken_over(old).await?,
        ..NewRoom::plain(upgrade.sender.clone(), upgrade.version.clone())
    })
}

async fn state_taken_over(old: &RoomTx<'_>) -> Result<Vec<InitialState>, AppendError> {
    let mut state = Vec::new();
    for kind in TAKEN_OVER {
        if let Some(event) = old.state_event(&kind.to_string(), "").await? {
            state.push(InitialState::of(kind, shown_content(old, &event).await?));
        } else if kind == TimelineEventType::RoomGuestAccess {
            // Without the event guests are not admitted, which a new room's defaults change.
            let mut content = CanonicalJsonObject::new();
            content.insert("guest_access".to_owned(), "forbidden".into());
            state.push(InitialState::of(kind, content));
        }
    }
    // The head was read, so that the current state cannot change under the transaction.
    let children = Scan::prefix("m.space.child");
    let children = old.tx.unprotected().scan(&CURRENT_STATE, &old.room_id, children).await?;
    for ((_, state_key), number) in children {
        let event = old.event(number).await?;
        let content = shown_content(old, &event).await?;
        if !content.is_empty() {
            let kind = TimelineEventType::SpaceChild;
            state.push(InitialState { kind, state_key, content });
        }
    }
    Ok(state)
}

/// What a state event says, which is little once it is redacted.
async fn shown_content(
    room: &RoomTx<'_>,
    event: &Event,
) -> Result<CanonicalJsonObject, AppendError> {
    let header = room.tx.get(&EVENT_HEADERS, &room.room_id, event.number).await?;
    let redacted = header.is_some_and(|header| header.redacted_by.is_some());
    let pdu = if redacted { &event.redacted(room.rules)?.pdu } else { &event.pdu };
    Ok(content_of(pdu))
}

fn content_of(pdu: &millrace_model::Pdu) -> CanonicalJsonObject {
    pdu.content_as().unwrap_or_default()
}

/// Levels with which the creator can set the state that carries over, where their own do not allow
/// it; they give them up again afterwards.
fn raised_for(
    levels: &CanonicalJsonObject,
    creator: &UserId,
    rules: &ruma::room_version_rules::RoomVersionRules,
) -> Option<CanonicalJsonObject> {
    if rules.authorization.explicitly_privilege_room_creators {
        return None;
    }
    let number =
        |value: Option<&CanonicalJsonValue>| value.and_then(CanonicalJsonValue::as_integer);
    let events = levels.get("events").and_then(CanonicalJsonValue::as_object);
    let needed = events.into_iter().flat_map(|events| events.values());
    let needed = needed.chain(levels.get("state_default")).filter_map(|value| number(Some(value)));
    let needed = needed.max()?;
    let users = levels.get("users").and_then(CanonicalJsonValue::as_object);
    let own = number(users.and_then(|users| users.get(creator.as_str())))
        .or_else(|| number(levels.get("users_default")))
        .unwrap_or_default();
    if own >= needed {
        return None;
    }
    let mut users = users.cloned().unwrap_or_default();
    users.insert(creator.to_string(), CanonicalJsonValue::Integer(needed));
    let mut raised = levels.clone();
    raised.insert("users".to_owned(), CanonicalJsonValue::Object(users));
    Some(raised)
}

/// Gives the old room's aliases and its place in the directory to the new one.
async fn move_names(
    tx: &Tx,
    old: &mut RoomTx<'_>,
    new_id: &RoomId,
    sender: &UserId,
) -> Result<(), AppendError> {
    let aliases = tx.unprotected().scan(&ROOM_ALIASES, &old.room_id, Scan::all()).await?;
    for (alias, ()) in aliases {
        let Some(row) = tx.get(&ALIASES, &alias, ()).await? else { continue };
        if row.room != old.room_id {
            continue;
        }
        let row = Alias { room: new_id.to_owned(), ..row };
        tx.put(&ALIASES, &alias, (), &row);
        tx.delete(&ROOM_ALIASES, &old.room_id, &alias);
        tx.put(&ROOM_ALIASES, new_id, &alias, &());
    }
    if tx.get(&PUBLISHED_ROOMS, Node, &old.room_id).await?.is_some() {
        tx.delete(&PUBLISHED_ROOMS, Node, &old.room_id);
        tx.put(&PUBLISHED_ROOMS, Node, new_id, &());
    }
    let kind = TimelineEventType::RoomCanonicalAlias;
    let named = old.state_event("m.room.canonical_alias", "").await?;
    let named = named.is_some_and(|event| !content_of(&event.pdu).is_empty());
    if named && old.power_levels().await?.can(sender, Action::SendState(&kind)) {
        old.append(Draft::state(sender, kind, "", CanonicalJsonObject::new())).await?;
    }
    Ok(())
}

/// Lets nobody without a level speak or invite in the old room, where the user may change that.
async fn quieten(old: &mut RoomTx<'_>, sender: &UserId) -> Result<(), AppendError> {
    let kind = TimelineEventType::RoomPowerLevels;
    let levels = old.power_levels().await?;
    let Some(event) = old.state_event("m.room.power_levels", "").await? else { return Ok(()) };
    let Some(content) = restricted_levels(content_of(&event.pdu)) else { return Ok(()) };
    let raised_to = content.get("events_default").and_then(CanonicalJsonValue::as_integer);
    let reachable =
        raised_to.is_some_and(|level| levels.user(sender) >= Level::Finite(level.into()));
    if reachable && levels.can(sender, Action::SendState(&kind)) {
        old.append(Draft::state(sender, kind, "", content)).await?;
    }
    Ok(())
}

/// Bans in the new room whoever is banned from the old one.
async fn take_over_bans(
    rooms: &Rooms,
    old: &RoomId,
    new: &RoomId,
    sender: &UserId,
) -> Result<(), UpgradeError> {
    let members = rooms.env.store.snapshot().scan(&MEMBERS, old, Scan::all()).await?;
    let banned =
        members.into_iter().filter(|(_, member)| member.membership == MembershipState::Ban);
    let banned: Vec<OwnedUserId> = banned.map(|(user, _)| user).collect();
    for some in banned.chunks(BANS_AT_ONCE) {
        let numbers = &Numbers::draw(rooms, some.len()).await?;
        let body = |tx: Tx| {
            async move {
                let room = RoomTx::open(&tx, rooms, new, numbers).await?;
                let mut room = room.ok_or_else(|| UpgradeError::UnknownRoom(new.to_owned()))?;
                for target in some {
                    let action = MemberAction::Ban;
                    let change = Change::of(sender, target, action, None);
                    match change.apply(&mut room).await {
                        // Who may upgrade a room may not always ban; nothing is lost by that.
                        Ok(_) | Err(MembershipError::Append(AppendError::Refused(_))) => {}
                        Err(MembershipError::Append(error)) => {
                            return Err(UpgradeError::Old(error));
                        }
                        Err(error) => tracing::warn!(%target, %error, "a ban was not taken over"),
                    }
                }
                room.finish();
                Ok::<_, UpgradeError>(())
            }
            .boxed()
        };
        policy::transact(rooms, new, numbers, body).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
