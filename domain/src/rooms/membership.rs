//! Changing somebody's membership: what joining, inviting, knocking, leaving, kicking and banning
//! have in common (spec: Client-Server API, Room membership).

use futures::FutureExt;
use millrace_model::rules::join::Refusal;
use millrace_store::Tx;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms, ban, invite, join, kick, knock, leave, policy,
};

/// Why a membership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The room does not admit them.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Nobody of this server who may invite is in the room, so nobody can admit them.
    #[error("nobody here can admit you to this room")]
    NobodyAuthorises,
    /// The user may be in one of the rooms whose members may join, but not all of those are here.
    #[error("this server is not in the rooms whose members may join")]
    CannotTell,
    /// Who is to be removed is not in the room.
    #[error("{0} is not in the room")]
    NotInRoom(OwnedUserId),
    /// Who is to be invited is in the room already.
    #[error("{0} is already in the room")]
    AlreadyInRoom(OwnedUserId),
    /// Whose ban is to be lifted is not banned.
    #[error("{0} is not banned")]
    NotBanned(OwnedUserId),
    /// Who is to be invited wants no invitations by the sender.
    #[error("{0} does not want to be invited")]
    InviteBlocked(OwnedUserId),
    /// An invitation to the room in which the server speaks to its user.
    #[error("you cannot reject the invitation to the room of the server's notices")]
    ServerNotices,
    /// Who is to be invited belongs to another server, which has to sign the invitation.
    #[error("{0} belongs to another server, which has to be asked first")]
    OtherServer(OwnedUserId),
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<millrace_store::Error> for MembershipError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// Whether the user who acts is a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// A guest, whom only some rooms admit.
    Yes,
    /// A user with an account.
    No,
}

/// Whether an invitation is to a direct chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direct {
    /// To a direct chat: the member event says so.
    Yes,
    /// To any room.
    No,
}

/// What is to become of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Join(Guest),
    Invite(Direct),
    Knock,
    Leave,
    Kick,
    Ban,
    Unban,
}

/// Somebody wants somebody's membership changed.
#[derive(Debug, Clone)]
pub(super) struct Change<'a> {
    pub sender: &'a UserId,
    pub target: &'a UserId,
    pub action: Action,
    pub reason: Option<&'a str>,
    /// What the member event says beside membership and profile.
    pub extra: Option<&'a CanonicalJsonObject>,
    /// The whole content instead; for who sets it by `/state`.
    pub content: Option<&'a CanonicalJsonObject>,
}

impl<'a> Change<'a> {
    /// A change of the target's membership by the sender.
    pub fn of(
        sender: &'a UserId,
        target: &'a UserId,
        action: Action,
        reason: Option<&'a str>,
    ) -> Self {
        Self { sender, target, action, reason, extra: None, content: None }
    }

    /// A change of the sender's own membership.
    pub fn own(user: &'a UserId, action: Action, reason: Option<&'a str>) -> Self {
        Self::of(user, user, action, reason)
    }

    /// The content of the member event, or `None` where nothing is to change.
    pub async fn prepare(
        &self,
        room: &RoomTx<'_>,
    ) -> Result<Option<CanonicalJsonObject>, MembershipError> {
        let current = room.membership(self.target).await?;
        match self.action {
            Action::Join(guest) => join::prepare(room, self, &current, guest).await,
            Action::Invite(direct) => invite::prepare(room, self, &current, direct).await,
            Action::Knock => knock::prepare(room, self, &current).await,
            Action::Leave => leave::prepare(room, self, &current).await,
            Action::Kick => kick::prepare(self, &current),
            Action::Ban => Ok(Some(ban::prepare(self))),
            Action::Unban => ban::prepare_unban(self, &current),
        }
    }

    /// The given content, or one with this membership and the reason.
    pub fn bare(&self, membership: MembershipState) -> CanonicalJsonObject {
        if let Some(content) = self.content {
            return content.clone();
        }
        let mut content = self.extra.cloned().unwrap_or_default();
        content.extend(super::profile::bare_content(membership, self.reason));
        content
    }

    /// As [`Change::bare`], with the profile of the target where the content does not say another.
    pub async fn with_profile(
        &self,
        room: &RoomTx<'_>,
        membership: MembershipState,
    ) -> Result<CanonicalJsonObject, AppendError> {
        let mut content = self.bare(membership);
        super::profile::add_profile(room.tx, self.target, &mut content).await?;
        Ok(content)
    }

    /// Makes the change within a transaction; `None` where there was nothing to change.
    pub async fn apply(
        &self,
        room: &mut RoomTx<'_>,
    ) -> Result<Option<std::sync::Arc<super::Event>>, MembershipError> {
        if matches!(self.action, Action::Invite(_)) && !room.rooms.env.is_local(self.target) {
            return Err(MembershipError::OtherServer(self.target.to_owned()));
        }
        let Some(content) = self.prepare(room).await? else { return Ok(None) };
        let (kind, target) = (TimelineEventType::RoomMember, self.target.as_str());
        Ok(Some(room.append(Draft::state(self.sender, kind, target, content)).await?))
    }
}

/// Makes one change in a transaction of its own.
pub(super) async fn change(
    rooms: &Rooms,
    room_id: &RoomId,
    change: &Change<'_>,
) -> Result<(), MembershipError> {
    change_to(rooms, room_id, change).await.map(|_| ())
}

/// As [`change()`]; returns the member event, or nothing where there was nothing to change.
pub(super) async fn change_to(
    rooms: &Rooms,
    room_id: &RoomId,
    change: &Change<'_>,
) -> Result<Option<OwnedEventId>, MembershipError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| MembershipError::UnknownRoom(room_id.to_owned()))?;
            let event = change.apply(&mut room).await?;
            if event.is_some() {
                room.finish();
            }
            Ok(event.map(|event| event.pdu.event_id.clone()))
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}

#[cfg(test)]
mod tests;
