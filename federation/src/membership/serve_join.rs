//! Joins of other servers' users, by our help (spec: Server-Server API, Joining Rooms).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use millrace_domain::{
    rooms::{
        ReadError, Rooms, auth_chain, events,
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
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::json;

use super::submit::{self, Accepted, Submission, SubmitError};
use crate::Federation;

/// Events that one piece of an answer holds.
const EVENTS_PER_PIECE: usize = 200;

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
) -> Result<JoinAnswer, SubmitError> {
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
pub struct JoinAnswer {
    rooms: Rooms,
    snapshot: Snapshot,
    room: OwnedRoomId,
    version: RoomVersionId,
    origin: OwnedServerName,
    join: Arc<str>,
    state: Vec<u64>,
    auth_chain: Vec<u64>,
    /// The servers that were in the room; only where members are omitted.
    servers: Option<Vec<OwnedServerName>>,
}

async fn answer(
    federation: &Federation,
    room: &RoomId,
    Accepted { version, pdu }: Accepted,
    servers: Option<Vec<OwnedServerName>>,
) -> Result<JoinAnswer, ReadError> {
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
    Ok(JoinAnswer {
        rooms: rooms.clone(),
        room: room.to_owned(),
        version,
        origin: federation.env.identity.name.clone(),
        join: Arc::clone(pdu.json()),
        state,
        auth_chain: auth_chain.into_iter().collect(),
        servers,
        snapshot,
    })
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

impl JoinAnswer {
    /// The answer's body in pieces, so that the state of a large room never lies in memory whole.
    /// Breaks off where an event cannot be loaded.
    pub fn body(self) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static {
        let mut head = json!({ "origin": self.origin, "members_omitted": self.servers.is_some() });
        if let Some(servers) = &self.servers {
            head["servers_in_room"] = json!(servers);
        }
        let mut head = head.to_string();
        head.pop();
        head.push_str(",\"event\":");
        head.push_str(&self.join);
        head.push_str(",\"state\":[");
        let pieces = [
            Piece::Text(head),
            Piece::Events(Section::State, 0),
            Piece::Text("],\"auth_chain\":[".to_owned()),
            Piece::Events(Section::AuthChain, 0),
            Piece::Text("]}".to_owned()),
        ];
        let pieces = pieces.into_iter().collect::<VecDeque<_>>();
        stream::try_unfold((self, pieces), |(answer, mut pieces)| async move {
            let Some(piece) = pieces.pop_front() else { return Ok(None) };
            let bytes = match piece {
                Piece::Text(text) => text.into(),
                Piece::Events(section, at) => {
                    let numbers = answer.section(section);
                    let end = numbers.len().min(at + EVENTS_PER_PIECE);
                    if end < numbers.len() {
                        pieces.push_front(Piece::Events(section, end));
                    }
                    answer.events(&numbers[at..end], at == 0).await?
                }
            };
            Ok(Some((bytes, (answer, pieces))))
        })
    }

    fn section(&self, section: Section) -> &[u64] {
        match section {
            Section::State => &self.state,
            Section::AuthChain => &self.auth_chain,
        }
    }

    async fn events(&self, numbers: &[u64], first: bool) -> Result<Bytes, ReadError> {
        let events = &self.rooms.events;
        let events = events.load(&self.snapshot, &self.room, &self.version, numbers).await?;
        let mut text = String::new();
        for (place, event) in events.iter().enumerate() {
            if place > 0 || !first {
                text.push(',');
            }
            text.push_str(event.pdu.json());
        }
        Ok(text.into())
    }
}

/// A part of the body.
enum Piece {
    Text(String),
    /// Events of a section, from this one on.
    Events(Section, usize),
}

#[derive(Debug, Clone, Copy)]
enum Section {
    State,
    AuthChain,
}
