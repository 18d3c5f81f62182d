//! Knocking on a room (spec: Client-Server API, Knocking on rooms).

use millrace_model::rules::join::JoinRules;
use ruma::{CanonicalJsonObject, RoomId, UserId, events::room::member::MembershipState};

use super::{
    RoomTx, Rooms,
    membership::{self, Action, Change, MembershipError},
};

/// Asks the members of a room of this server to invite `user`.
///
/// # Errors
/// Where the room is not known or takes no knocks of this user.
pub async fn knock(
    rooms: &Rooms,
    room: &RoomId,
    user: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    membership::change(rooms, room, &Change::own(user, Action::Knock, reason)).await
}

pub(super) async fn prepare(
    room: &RoomTx<'_>,
    change: &Change<'_>,
    current: &MembershipState,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    let rule = room.state_event("m.room.join_rules", "").await?;
    let rule = JoinRules::new(rule.as_ref().map(|event| &event.pdu));
    rule.knock(current, &room.rules.authorization)?;
    Ok(Some(change.with_profile(room, MembershipState::Knock).await?))
}
