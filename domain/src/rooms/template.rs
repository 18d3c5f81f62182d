//! Templates of member events for other servers' users, which those servers finish and sign (spec:
//! Server-Server API, `make_join`, `make_knock`, `make_leave`).

use futures::FutureExt;
use millrace_model::rules::build::{self, NewEvent};
use millrace_model::rules::join::{JoinRules, Refusal};
use millrace_store::{Read, Tx, tables::ROOM_HEAD};
use ruma::{
    CanonicalJsonObject, RoomId, RoomVersionId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms,
    join::{self, AUTHORISED_VIA},
    membership::MembershipError,
    profile,
};

/// What a user of another server wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To join.
    Join,
    /// To knock.
    Knock,
    /// To leave, to reject an invitation or to take back a knock.
    Leave,
}

impl Intent {
    /// The membership that comes of it.
    #[must_use]
    pub fn membership(self) -> MembershipState {
        match self {
            Self::Join => MembershipState::Join,
            Self::Knock => MembershipState::Knock,
            Self::Leave => MembershipState::Leave,
        }
    }
}

/// An event without hashes and signatures, and the room version whose form it has.
#[derive(Debug, Clone)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersionId,
    /// The event.
    pub event: CanonicalJsonObject,
}

/// The version of a room, for who checks first whether the other server has it.
///
/// # Errors
/// Where the room is not known.
pub async fn version(rooms: &Rooms, room: &RoomId) -> Result<RoomVersionId, MembershipError> {
    let read = rooms.env.store.snapshot();
    let head = read.get(&ROOM_HEAD, room, ()).await?;
    head.map(|head| head.version).ok_or_else(|| MembershipError::UnknownRoom(room.to_owned()))
}

/// The member event that would make `user` what they want to be, where the room lets them.
///
/// # Errors
/// Where the room is not known or does not allow it.
pub async fn template(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    intent: Intent,
) -> Result<Template, MembershipError> {
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let room = room.ok_or_else(|| MembershipError::UnknownRoom(room_id.to_owned()))?;
            let content = content(&room, user, intent).await?;
            let event = unsigned(&room, user, content).await?;
            Ok(Template { version: room.head.version.clone(), event })
        }
        .boxed()
    };
    rooms.env.store.transact_in(room_id, body).await
}

/// Whether a join that names one of our users as having admitted `user` is one that we vouch for:
/// then we sign it (spec: Server-Server API, Restricted rooms).
///
/// # Errors
/// Where the room does not admit the user, or nobody here may.
pub async fn vouch(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<(), MembershipError> {
    template(rooms, room_id, user, Intent::Join).await.map(|_| ())
}

async fn content(
    room: &RoomTx<'_>,
    user: &UserId,
    intent: Intent,
) -> Result<CanonicalJsonObject, MembershipError> {
    let current = room.membership(user).await?;
    let mut content = profile::bare_content(intent.membership(), None);
    match intent {
        Intent::Join => {
            if let Some(by) = join::admission(room, user, &current).await? {
                content.insert(AUTHORISED_VIA.to_owned(), by.as_str().into());
            }
        }
        Intent::Knock => {
            let rule = room.state_event("m.room.join_rules", "").await?;
            let rule = JoinRules::new(rule.as_ref().map(|event| &event.pdu));
            rule.knock(&current, &room.rules.authorization)?;
        }
        Intent::Leave => match current {
            MembershipState::Join | MembershipState::Invite | MembershipState::Knock => {}
            MembershipState::Ban => return Err(Refusal::Banned.into()),
            _ => return Err(MembershipError::NotInRoom(user.to_owned())),
        },
    }
    Ok(content)
}

async fn unsigned(
    room: &RoomTx<'_>,
    user: &UserId,
    content: CanonicalJsonObject,
) -> Result<CanonicalJsonObject, AppendError> {
    let kind = TimelineEventType::RoomMember;
    let draft = Draft::state(user, kind, user.as_str(), content);
    let (ends, before) = room.ends_to_follow().await?;
    let auth_events = room.select_auth_events(&draft, before).await?;
    let references = auth_events.iter().map(|event| event.pdu.reference(room.rules));
    let references = references.collect::<Result<Vec<_>, _>>()?;
    let new = NewEvent {
        room_id: Some(&room.room_id),
        sender: user,
        kind: &draft.kind,
        state_key: draft.state_key.as_deref(),
        content: draft.content,
        redacts: None,
        origin_server_ts: room.rooms.env.now(),
        prev_events: &ends,
        auth_events: &references,
        local_id: "",
    };
    Ok(build::template(new, room.rules, &room.rooms.env.identity.name)?)
}
