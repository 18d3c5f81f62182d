//! Joining a room (spec: Client-Server API, Joining rooms; restricted rooms).

use millrace_model::rules::{
    join::{self, Join, JoinRules, Refusal},
    power_levels::PowerLevels,
};
use millrace_store::{Read, Scan, tables::MEMBERS};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::room::member::MembershipState,
};

use super::{
    AppendError, RoomTx, Rooms,
    membership::{self, Action, Change, Guest, MembershipError},
    residence,
};

/// Where a member event names who admitted the user to a restricted room.
pub(super) const AUTHORISED_VIA: &str = "join_authorised_via_users_server";
/// Rows that one step of a search through the members reads.
const MEMBERS_PER_STEP: usize = 500;

/// Joins `user` to a room of this server. Who is joined already stays so, without an event.
///
/// # Errors
/// Where the room is not known or does not admit them.
pub async fn join(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    guest: Guest,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    membership::change(rooms, room, &Change::own(user, Action::Join(guest), reason)).await
}

/// As [`join()`], with more to say in the member event; the reason is part of it.
///
/// # Errors
/// As [`join()`].
pub async fn join_with(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    guest: Guest,
    extra: &CanonicalJsonObject,
) -> Result<(), MembershipError> {
    let extra = Some(extra);
    let change = Change { extra, ..Change::own(user, Action::Join(guest), None) };
    membership::change(rooms, room, &change).await
}

pub(super) async fn prepare(
    room: &RoomTx<'_>,
    change: &Change<'_>,
    current: &MembershipState,
    guest: Guest,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    if *current == MembershipState::Join && change.content.is_none() {
        return Ok(None);
    }
    if *current != MembershipState::Join && guest == Guest::Yes {
        let access = room.state_event("m.room.guest_access", "").await?;
        if !join::admits_guests(access.as_ref().map(|event| &event.pdu)) {
            return Err(Refusal::NoGuests.into());
        }
    }
    let authorised_by = admission(room, change.target, current).await?;
    let mut content = change.with_profile(room, MembershipState::Join).await?;
    // Only we say who admits a user of ours.
    content.remove(AUTHORISED_VIA);
    if let Some(user) = authorised_by {
        content.insert(AUTHORISED_VIA.to_owned(), user.as_str().into());
    }
    Ok(Some(content))
}

/// Checks the join rules; returns who admits the user, where somebody has to.
pub(super) async fn admission(
    room: &RoomTx<'_>,
    user: &UserId,
    current: &MembershipState,
) -> Result<Option<OwnedUserId>, MembershipError> {
    let rule = room.state_event("m.room.join_rules", "").await?;
    let rule = JoinRules::new(rule.as_ref().map(|event| &event.pdu));
    match rule.join(current, &room.rules.authorization) {
        // The creator's first join comes before there are any rules.
        _ if follows_create(room) || *current == MembershipState::Join => Ok(None),
        Join::Allowed => Ok(None),
        Join::Refused(refusal) => Err(refusal.into()),
        Join::IfInOneOf(allowed) => {
            match is_in_one_of(room, user, &allowed).await? {
                Found::Member => {}
                Found::Nowhere => return Err(Refusal::NotInvited.into()),
                Found::CannotTell => return Err(MembershipError::CannotTell),
            }
            let authorising = authorising_user(room).await?;
            Ok(Some(authorising.ok_or(MembershipError::NobodyAuthorises)?))
        }
    }
}

/// Whether the next event comes just after the create event.
fn follows_create(room: &RoomTx<'_>) -> bool {
    matches!(&room.head.extremities[..], [end] if end.event.depth == 1)
}

/// Whether somebody is in one of several rooms.
enum Found {
    /// They are.
    Member,
    /// They are in none of them.
    Nowhere,
    /// They are in none that this server is in, and it is not in all of them.
    CannotTell,
}

async fn is_in_one_of(
    room: &RoomTx<'_>,
    user: &UserId,
    allowed: &[OwnedRoomId],
) -> Result<Found, AppendError> {
    let mut found = Found::Nowhere;
    for other in allowed {
        if !residence::is_resident(room.tx, other).await? {
            found = Found::CannotTell;
            continue;
        }
        let member = room.tx.get(&MEMBERS, other, user).await?;
        if member.is_some_and(|member| member.membership == MembershipState::Join) {
            return Ok(Found::Member);
        }
    }
    Ok(found)
}

/// A joined user of this server who may invite: one of those with a level of their own if possible,
/// else the first that is found among the members.
async fn authorising_user(room: &RoomTx<'_>) -> Result<Option<OwnedUserId>, AppendError> {
    let levels = room.power_levels().await?;
    let mut joined = Vec::new();
    for user in levels.named_users() {
        if room.rooms.env.is_local(user) && room.membership(user).await? == MembershipState::Join {
            joined.push(user);
        }
    }
    if let Some(user) = join::authorising_user(&levels, joined) {
        return Ok(Some(user.to_owned()));
    }
    any_member_who_may_invite(room, &levels).await
}

/// The head was read, and every change of a membership writes it, so the members as they were at the
/// start of the transaction are those of its end.
async fn any_member_who_may_invite(
    room: &RoomTx<'_>,
    levels: &PowerLevels,
) -> Result<Option<OwnedUserId>, AppendError> {
    let mut scan = Scan::all();
    loop {
        let rows = room.tx.unprotected();
        let rows = rows.scan(&MEMBERS, &room.room_id, scan.limit(MEMBERS_PER_STEP)).await?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        let next = Scan::all().after(last);
        let ours = rows.iter().filter(|(user, member)| {
            member.membership == MembershipState::Join && room.rooms.env.is_local(user)
        });
        if let Some(user) = join::authorising_user(levels, ours.map(|(user, _)| &**user)) {
            return Ok(Some(user.to_owned()));
        }
        scan = next;
    }
}
