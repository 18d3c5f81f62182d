//! What can be told of a room in a few words, and to whom (spec: Client-Server API, Room summaries).

use std::sync::Arc;

use millrace_model::rules::{
    join::{self, JoinRules},
    room_version,
};
use millrace_store::{
    Read, Snapshot,
    rows::room::RoomHead,
    tables::{CURRENT_STATE, EVENT_HEADERS, MEMBERS, ROOM_HEAD, USER_ROOMS},
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, UInt, UserId,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
    room::{JoinRuleKind, JoinRuleSummary, RestrictedSummary, RoomSummary},
};
use serde::Deserialize;

use super::{Event, ReadError, Rooms, hierarchy::Elsewhere};

/// What a summary is made of, all with empty state keys.
const PARTS: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

/// Why a summary is not given.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// There is no such room here, or the user may not know of it.
    #[error("no room that you may see is called {0}")]
    Unknown(OwnedRoomId),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A room's summary for `user`, or for anybody, and the user's membership. Of a room that this
/// server does not have, one of `via` may tell.
///
/// # Errors
/// Where there is no such room, or they may not know of it.
pub async fn room_summary(
    rooms: &Rooms,
    (elsewhere, via): (&dyn Elsewhere, &[OwnedServerName]),
    user: Option<&UserId>,
    room: &RoomId,
) -> Result<(RoomSummary, Option<MembershipState>), SummaryError> {
    let snapshot = rooms.env.store.snapshot();
    let unknown = || SummaryError::Unknown(room.to_owned());
    let summary = match summarise(rooms, &snapshot, room).await? {
        Some(summary) => Some(summary),
        None => elsewhere.room(room, via, false).await.map(|found| found.summary),
    };
    let summary = summary.ok_or_else(unknown)?;
    if !is_visible(&snapshot, user, &summary).await? {
        return Err(unknown());
    }
    let Some(user) = user else { return Ok((summary, None)) };
    let row = snapshot.get(&USER_ROOMS, user, room).await.map_err(ReadError::from)?;
    let membership = row.map_or(MembershipState::Leave, |row| row.membership);
    Ok((summary, Some(membership)))
}

/// Whether somebody may know of a room: they are in it or invited, anybody may join or knock or
/// read, or they are in a room whose members may join.
pub(super) async fn is_visible(
    snapshot: &Snapshot,
    user: Option<&UserId>,
    summary: &RoomSummary,
) -> Result<bool, ReadError> {
    let open = matches!(
        summary.join_rule,
        JoinRuleSummary::Public | JoinRuleSummary::Knock | JoinRuleSummary::KnockRestricted(_)
    );
    if open || summary.world_readable {
        return Ok(true);
    }
    let Some(user) = user else { return Ok(false) };
    let row = snapshot.get(&USER_ROOMS, user, &summary.room_id).await?;
    let membership = row.map_or(MembershipState::Leave, |row| row.membership);
    if matches!(membership, MembershipState::Join | MembershipState::Invite) {
        return Ok(true);
    }
    let JoinRuleSummary::Restricted(restricted) = &summary.join_rule else { return Ok(false) };
    for room in &restricted.allowed_room_ids {
        let member = snapshot.get(&MEMBERS, room, user).await?;
        if member.is_some_and(|member| member.membership == MembershipState::Join) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The summary of a room; `None` where this server does not have it.
pub(super) async fn summarise(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
) -> Result<Option<RoomSummary>, ReadError> {
    let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(None) };
    let parts = current(rooms, snapshot, room, &head).await?;
    let [create, name, topic, avatar, alias, join_rules, visibility, guests, encryption] = parts;
    let rules = room_version::rules(&head.version)
        .ok_or_else(|| ReadError::Version(head.version.clone()))?;
    let text = |part: &Option<Part>| -> Option<String> {
        let text = part.as_ref()?.content.as_ref()?.text()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let join_rules = JoinRules::new(join_rules.as_ref().map(|part| &part.event.pdu));
    let restricted = join_rules.is_restricted(&rules.authorization);
    let world_readable = visibility
        .and_then(|part| part.content?.history_visibility)
        .is_some_and(|visibility| visibility == HistoryVisibility::WorldReadable);
    let guest_can_join = join::admits_guests(guests.as_ref().map(|part| &part.event.pdu));
    let joined = UInt::new_saturating(head.joined);
    let join_rule = summarise_rule(join_rules, restricted);
    let mut summary =
        RoomSummary::new(room.to_owned(), join_rule, guest_can_join, joined, world_readable);
    summary.name = text(&name);
    summary.topic = text(&topic);
    summary.avatar_url = text(&avatar).map(Into::into);
    summary.canonical_alias = text(&alias).and_then(|alias| alias.try_into().ok());
    summary.encryption = text(&encryption).map(Into::into);
    summary.room_type = create.and_then(|part| part.content?.room_type).map(Into::into);
    summary.room_version = Some(head.version);
    Ok(Some(summary))
}

fn summarise_rule(rules: JoinRules, restricted: bool) -> JoinRuleSummary {
    match rules.rule {
        JoinRuleKind::Restricted if restricted => {
            JoinRuleSummary::Restricted(RestrictedSummary::new(rules.allowed_rooms))
        }
        JoinRuleKind::KnockRestricted if restricted => {
            JoinRuleSummary::KnockRestricted(RestrictedSummary::new(rules.allowed_rooms))
        }
        other => other.into(),
    }
}

/// A state event, and what it says to outsiders.
struct Part {
    event: Arc<Event>,
    content: Option<Content>,
}

/// The fields of all contents that a summary repeats, each of which only one type has.
#[derive(Deserialize)]
struct Content {
    name: Option<String>,
    topic: Option<String>,
    url: Option<String>,
    alias: Option<String>,
    algorithm: Option<String>,
    history_visibility: Option<HistoryVisibility>,
    #[serde(rename = "type")]
    room_type: Option<String>,
}

impl Content {
    fn text(&self) -> Option<&str> {
        let texts = [&self.name, &self.topic, &self.url, &self.alias, &self.algorithm];
        texts.into_iter().find_map(Option::as_deref)
    }
}

async fn current(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &RoomId,
    head: &RoomHead,
) -> Result<[Option<Part>; PARTS.len()], ReadError> {
    let rules = room_version::rules(&head.version)
        .ok_or_else(|| ReadError::Version(head.version.clone()))?;
    let places = PARTS.map(|kind| (kind, ""));
    let numbers = snapshot.get_many(&CURRENT_STATE, room, places).await?;
    let found: Vec<u64> = numbers.iter().flatten().copied().collect();
    let headers = snapshot.get_many(&EVENT_HEADERS, room, found.iter().copied()).await?;
    let events = rooms.events.load(snapshot, room, &head.version, &found).await?;
    let mut events = events.into_iter().zip(headers);
    let mut parts = [const { None }; PARTS.len()];
    for (part, number) in parts.iter_mut().zip(numbers) {
        let Some((event, header)) = number.and_then(|_| events.next()) else { continue };
        let redacted = header.is_some_and(|header| header.redacted_by.is_some());
        let content = match redacted {
            true => event.redacted(rules)?.pdu.content_as().ok(),
            false => event.pdu.content_as().ok(),
        };
        *part = Some(Part { event, content });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests;
