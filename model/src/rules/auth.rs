//! Whether an event is allowed (spec: Server-Server API, Authorization rules; and each room version).
//!
//! The rules are ruma's; here are their types, and the few things ruma leaves to its caller.

use ruma::{
    EventId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{owned_state, room_version};
use crate::pdu::Pdu;

/// The auth rules refuse an event. The text says which rule, for logs and for `M_FORBIDDEN`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The places of the room's state that an event needs to be authorised: its `auth_events` are what
/// the state before it holds there (spec: Auth events selection).
///
/// # Errors
/// Where the content of a membership event is too malformed to say.
pub fn auth_types_for_event(
    kind: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, Refused> {
    state_res::auth_types_for_event(kind, sender, state_key, content, &rules.authorization)
        .map_err(Refused)
}

/// Checks an event against a state of its room: the state before it, the state its auth events
/// make, or the current state. `state` looks up what that state holds at a place.
///
/// # Errors
/// With the rule that refuses the event.
pub fn check<E: state_res::Event>(
    event: &Pdu,
    rules: &RoomVersionRules,
    state: impl Fn(&StateEventType, &str) -> Option<E>,
) -> Result<(), Refused> {
    let authorization = &rules.authorization;
    if room_version::owns_state(rules)
        && owned_state::is_owned(&event.kind, event.state_key.as_deref())
    {
        owned_state::check(event, rules, &state)?;
        let event = owned_state::Marked::new(event);
        return state_res::check_state_dependent_auth_rules(authorization, event, state)
            .map_err(Refused);
    }
    state_res::check_state_dependent_auth_rules(authorization, event, state).map_err(Refused)
}

/// Checks what does not depend on the room's state: that a create event is a possible one, and that
/// the `auth_events` of another are of the right kinds, of the same room, and were not rejected.
/// `event_by_id` looks up an event of any room. Needed once for an event from another server.
///
/// # Errors
/// With the rule that refuses the event.
pub fn check_auth_events<E: state_res::Event>(
    event: &Pdu,
    rules: &RoomVersionRules,
    event_by_id: impl Fn(&EventId) -> Option<E>,
) -> Result<(), Refused> {
    if event.kind == TimelineEventType::RoomCreate {
        check_create(event)?;
    }
    state_res::check_state_independent_auth_rules(&rules.authorization, event, event_by_id)
        .map_err(Refused)
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<RoomVersionId>,
}

/// What ruma leaves to its caller: the room version must be one that we know.
fn check_create(event: &Pdu) -> Result<(), Refused> {
    let content: CreateContent = event
        .content_as()
        .map_err(|error| Refused(format!("m.room.create has no usable content: {error}")))?;
    let version = content.room_version.unwrap_or(RoomVersionId::V1);
    match room_version::rules(&version) {
        Some(_) => Ok(()),
        None => Err(Refused(format!("room version {version} is not known"))),
    }
}

#[cfg(test)]
mod tests;
