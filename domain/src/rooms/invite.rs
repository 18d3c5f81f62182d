//! Inviting somebody to a room (spec: Client-Server API, `POST /rooms/{roomId}/invite`).

use std::sync::Arc;

use futures::FutureExt;
use millrace_model::{Pdu, rules::join::Refusal};
use millrace_store::Tx;
use ruma::{
    CanonicalJsonObject, OwnedEventId, RoomId, RoomVersionId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    AppendError, Draft, Event, Numbers, RoomTx, Rooms,
    membership::{self, Action, Change, Direct, MembershipError},
    policy,
    server_notices::is_sender,
    shown,
};
use crate::account_data::{InvitePermission, InvitePermissions};

/// Invites `invited`. An invitation that is there already is left as it is, where it says the same.
///
/// # Errors
/// Where the sender may not invite, or the invited user is in the room or banned.
pub async fn invite(
    rooms: &Rooms,
    room: &RoomId,
    sender: &UserId,
    invited: &UserId,
    reason: Option<&str>,
) -> Result<(), MembershipError> {
    let direct = Direct::No;
    let invitation = Invitation { room, sender, invited, direct, reason, content: None };
    invite_as(rooms, &invitation).await.map(|_| ())
}

/// As [`invite`], with more to say. Returns the invitation, or nothing where the same one is there
/// already.
///
/// # Errors
/// As [`invite`].
pub async fn invite_as(
    rooms: &Rooms,
    invitation: &Invitation<'_>,
) -> Result<Option<OwnedEventId>, MembershipError> {
    membership::change_to(rooms, invitation.room, &invitation.change()).await
}

/// An invitation of another server's user, made and not yet sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The invitation, signed by us.
    pub event: Pdu,
    /// The room's version.
    pub version: RoomVersionId,
    /// What the invited user is shown of the room.
    pub shown: Vec<Arc<Event>>,
}

/// Somebody wants a user of another server invited.
#[derive(Debug, Clone)]
pub struct Invitation<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// Who invites, a user of this server.
    pub sender: &'a UserId,
    /// Who is invited.
    pub invited: &'a UserId,
    /// Whether the invitation is to a direct chat.
    pub direct: Direct,
    /// Why.
    pub reason: Option<&'a str>,
    /// The whole content instead, for who sets it by `/state`.
    pub content: Option<&'a CanonicalJsonObject>,
}

impl<'a> Invitation<'a> {
    fn change(&self) -> Change<'a> {
        let action = Action::Invite(self.direct);
        let change = Change::of(self.sender, self.invited, action, self.reason);
        Change { content: self.content, ..change }
    }
}

/// Makes the invitation of another server's user, which has to be sent there before it is written.
/// `None` where the same invitation is there already.
///
/// # Errors
/// As [`invite`].
pub async fn prepare_remote(
    rooms: &Rooms,
    invitation: &Invitation<'_>,
) -> Result<Option<Prepared>, MembershipError> {
    let Invitation { room: room_id, sender, invited, .. } = *invitation;
    let change = &invitation.change();
    let numbers = &Numbers::draw(rooms, 0).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| MembershipError::UnknownRoom(room_id.to_owned()))?;
            let Some(content) = change.prepare(&room).await? else { return Ok(None) };
            let kind = TimelineEventType::RoomMember;
            let draft = Draft::state(sender, kind, invited.as_str(), content);
            let (event, _) = room.make_vouched(draft).await?;
            let shown = shown::shown_state(rooms, &tx, room_id, Some(sender)).await;
            let shown = shown.map_err(AppendError::from)?;
            Ok(Some(Prepared { event, version: room.head.version.clone(), shown }))
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}

pub(super) async fn prepare(
    room: &RoomTx<'_>,
    change: &Change<'_>,
    current: &MembershipState,
    direct: Direct,
) -> Result<Option<CanonicalJsonObject>, MembershipError> {
    match current {
        MembershipState::Join => {
            return Err(MembershipError::AlreadyInRoom(change.target.to_owned()));
        }
        MembershipState::Ban => return Err(Refusal::Banned.into()),
        _ => {}
    }
    if room.rooms.env.is_local(change.target) {
        let permissions = InvitePermissions::load(room.tx, change.target).await?;
        let blocked = permissions.of(change.sender) == InvitePermission::Block;
        if blocked && !is_sender(room.tx, change.sender).await? {
            return Err(MembershipError::InviteBlocked(change.target.to_owned()));
        }
    }
    let mut content = change.with_profile(room, MembershipState::Invite).await?;
    if direct == Direct::Yes {
        content.insert("is_direct".to_owned(), true.into());
    }
    if *current == MembershipState::Invite {
        let member = room.state_event("m.room.member", change.target.as_str()).await?;
        let same = member.is_some_and(|event| {
            event.pdu.sender == change.sender
                && event.pdu.content_as::<CanonicalJsonObject>().is_ok_and(|old| old == content)
        });
        if same {
            return Ok(None);
        }
    }
    Ok(Some(content))
}
