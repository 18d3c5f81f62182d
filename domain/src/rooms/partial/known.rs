//! What is known of the members of a partial room.

use std::sync::Arc;

use millrace_store::{
    Read,
    state_tree::{Change, StateRoot},
    tables::{MEMBERS, PARTIAL_SERVERS, ROOM_HEAD},
};
use ruma::{
    RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use crate::rooms::{AppendError, Event, RoomTx};

const MEMBER: &str = "m.room.member";

/// Whether the states of a room hold all its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rooms) enum Members {
    All,
    /// What is not there may yet be: the auth events that an event names are believed of them.
    Some,
}

impl RoomTx<'_> {
    /// Numbers of the events at `places` of a state, of which `numbers` are known. A member whom a
    /// partial state lacks is taken from the auth events of the event that is judged by it.
    pub(in crate::rooms) fn with_members_named(
        &self,
        places: &[(&str, &str)],
        numbers: Vec<Option<u64>>,
        auth_events: &[Arc<Event>],
    ) -> Vec<u64> {
        let named = |(kind, key): (&str, &str)| {
            let lacks = kind == MEMBER && self.members == Members::Some;
            let is_it = |event: &&Arc<Event>| {
                event.pdu.is_state_of(&TimelineEventType::RoomMember, key) && !event.pdu.rejected
            };
            lacks.then(|| auth_events.iter().find(is_it).map(|event| event.number)).flatten()
        };
        let numbers = places.iter().zip(numbers);
        numbers.filter_map(|(place, number)| number.or_else(|| named(*place))).collect()
    }
}

impl RoomTx<'_> {
    /// A state by which an event is judged. What a partial state says of members may be wrong, as they
    /// were judged without knowing others: where the event names another member event than the state
    /// has, the two are resolved, as the states of forks are.
    pub(in crate::rooms) async fn with_members_claimed(
        &self,
        root: StateRoot,
        auth_events: &[Arc<Event>],
    ) -> Result<StateRoot, AppendError> {
        if self.members == Members::All {
            return Ok(root);
        }
        let members = auth_events.iter().filter(|event| !event.pdu.rejected);
        let members: Vec<(&str, u64)> = members
            .filter(|event| event.pdu.kind == TimelineEventType::RoomMember)
            .filter_map(|event| Some((event.pdu.state_key.as_deref()?, event.number)))
            .collect();
        let (states, room) = (&self.rooms.states, &self.room_id);
        let places: Vec<_> = members.iter().map(|(user, _)| (MEMBER, *user)).collect();
        let held = states.get_many(self.tx, room, root, &places).await?;
        let differs = |held: &Option<u64>, number| held.is_some_and(|held| held != number);
        let changes: Vec<Change<'_>> = members
            .iter()
            .zip(held)
            .filter(|((_, number), held)| differs(held, *number))
            .map(|((user, number), _)| Change {
                event_type: MEMBER,
                state_key: user,
                event: Some(*number),
            })
            .collect();
        if changes.is_empty() {
            return Ok(root);
        }
        let claimed = states.change(self.tx, room, root, &changes).await?;
        self.resolved(&[root, claimed]).await
    }
}

/// Whether only a part of a room's state is known.
///
/// # Errors
/// Where the store cannot be read.
pub async fn is_partial(read: &impl Read, room: &RoomId) -> millrace_store::Result<bool> {
    let head = read.get(&ROOM_HEAD, room, ()).await?;
    Ok(head.is_some_and(|head| head.partial.is_some()))
}

/// Whether a user of ours who is not joined to a room may be excluded from it by what is not known:
/// then only another server can admit them.
///
/// # Errors
/// Where the store cannot be read.
pub async fn may_be_excluded(
    read: &impl Read,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<bool> {
    if !is_partial(read, room).await? {
        return Ok(false);
    }
    let member = read.get(&MEMBERS, room, user).await?;
    Ok(member.is_none_or(|member| member.membership != MembershipState::Join))
}

/// Whether a user of another server may be joined to a room although no member event says so: the
/// room is partial, and their server is in it.
///
/// # Errors
/// Where the store cannot be read.
pub async fn may_be_member(
    read: &impl Read,
    room: &RoomId,
    user: &UserId,
) -> millrace_store::Result<bool> {
    if !is_partial(read, room).await? {
        return Ok(false);
    }
    let (member, server) = (
        read.get(&MEMBERS, room, user).await?,
        read.get(&PARTIAL_SERVERS, room, user.server_name()).await?,
    );
    Ok(member.is_none() && server.is_some())
}
