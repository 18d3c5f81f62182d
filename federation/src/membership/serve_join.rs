//! Joins of other servers' users, by our help (spec: Server-Server API, Joining Rooms).

use millrace_domain::{
    rooms::{
        ReadError, auth_chain, events,
        membership::MembershipError,
        servers,
        template::{self, Intent, Template},
    },
    sync,
};
use millrace_store::{
    Snapshot,
    state_tree::{StateKey, StateRoot},
};
use ruma::{OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::json;

use super::submit::{self, Accepted, Submission, SubmitError};
use crate::{
    Federation,
    large_answer::{Form, LargeAnswer},
};

/// Why another server gets no template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateRefusal {
    /// The user is not one of the server that asks.
    #[error("you can only ask for users of your own server")]
    NotYours,
    /// The other server does not have the room's version.
    #[error("your server does not support room version {0}, which the room has")]
    Incompatible(RoomVersionId),
    /// We are not in the room, or it excludes the server.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The room does not allow it.
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

/// Who asks for a template, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct TemplateRequest<'a> {
    /// The server that asks.
    pub origin: &'a ServerName,
    /// The room.
    pub room: &'a RoomId,
    /// The user, one of that server.
    pub user: &'a UserId,
    /// The room versions that the server has; none given where it does not matter.
    pub versions: Option<&'a [RoomVersionId]>,
}

/// Makes the template of a member event for another server.
///
/// # Errors
/// Where the room does not allow it, or the server could not take part.
pub async fn template(
    federation: &Federation,
    request: &TemplateRequest<'_>,
    intent: Intent,
) -> Result<Template, TemplateRefusal> {
    let TemplateRequest { origin, room, user, versions } = *request;
    if user.server_name() != origin {
        return Err(TemplateRefusal::NotYours);
    }
    let rooms = &federation.rooms;
    match submit::admitted(federation, room, origin).await {
        // Who was invited can still refuse when all of us have left.
        Err(SubmitError::UnknownRoom(_)) if intent == Intent::Leave => {}
        admitted => admitted?,
    }
    if intent != Intent::Leave {
        submit::known_whole(federation, room).await?;
    }
    let version = template::version(rooms, room).await?;
    if versions.is_some_and(|versions| !versions.contains(&version)) {
        return Err(TemplateRefusal::Incompatible(version));
    }
    Ok(template::template(rooms, room, user, intent).await?)
}

/// The members of a room that an answer leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// None of them.
    All,
    /// All but those that the room is called after, where it has no name.
    Omitted,
}

/// Takes a join into its room, and tells the server what it has to know of the room.
///
/// # Errors
/// As [`submit::submit`].
pub async fn send_join(
    federation: &Federation,
    submission: &Submission<'_>,
    members: Members,
) -> Result<LargeAnswer, SubmitError> {
    // Those that were there before the join.
    let servers = match members {
        Members::All => None,
        Members::Omitted => {
            let read = federation.env.store.snapshot();
            Some(servers::servers_of(&read, submission.room).await?)
        }
    };
    let accepted = submit::submit(federation, submission, Intent::Join).await?;
    Ok(answer(federation, submission.room, accepted, servers).await?)
}

/// What a server is told of a room that a user of it has joined.
async fn answer(
    federation: &Federation,
    room: &RoomId,
    Accepted { version, pdu }: Accepted,
    servers: Option<Vec<OwnedServerName>>,
) -> Result<LargeAnswer, ReadError> {
    let (rooms, snapshot) = (&federation.rooms, federation.env.store.snapshot());
    let (join, header) = events::find(&snapshot, room, &pdu.event_id).await?.unzip();
    let before = header.and_then(|header| header.before).unwrap_or(StateRoot::EMPTY);
    let mut state = rooms.states.list(&snapshot, room, before, None).await?;
    if servers.is_some() {
        let heroes = heroes(&snapshot, room, &pdu.sender, &state).await?;
        state.retain(|(key, _)| {
            key.event_type != "m.room.member" || heroes.iter().any(|hero| *hero == *key.state_key)
        });
    }
    let state: Vec<u64> = state.into_iter().map(|(_, number)| number).collect();
    let from: Vec<u64> = state.iter().copied().chain(join).collect();
    let mut auth_chain = auth_chain::auth_chain(rooms, &snapshot, (room, &version), &from).await?;
    if servers.is_some() {
        for number in &state {
            auth_chain.remove(number);
        }
    }
    let us = &federation.env.identity.name;
    let mut head = json!({ "origin": us, "members_omitted": servers.is_some() });
    if let Some(servers) = &servers {
        head["servers_in_room"] = json!(servers);
    }
    let mut head = head.to_string();
    head.pop();
    head.push_str(",\"event\":");
    head.push_str(pdu.json());
    head.push_str(",\"state\":[");
    Ok(LargeAnswer::about(rooms, room, &version, Form::Whole)
        .text(head)
        .events(state)
        .text("],\"auth_chain\":[")
        .events(auth_chain.into_iter().collect())
        .text("]}"))
}

/// Of whom the room is called where it has no name.
async fn heroes(
    snapshot: &Snapshot,
    room: &RoomId,
    user: &UserId,
    state: &[(StateKey, u64)],
) -> millrace_store::Result<Vec<OwnedUserId>> {
    let names = ["m.room.name", "m.room.canonical_alias"];
    let named = |key: &StateKey| key.state_key.is_empty() && names.contains(&&*key.event_type);
    if state.iter().any(|(key, _)| named(key)) {
        return Ok(Vec::new());
    }
    sync::heroes(snapshot, room, user).await
}
