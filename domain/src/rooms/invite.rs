//! Inviting somebody to a room (spec: Client-Server API, `POST /rooms/{roomId}/invite`).

use millrace_model::rules::join::Refusal;
use ruma::{CanonicalJsonObject, RoomId, UserId, events::room::member::MembershipState};

use super::{
    RoomTx, Rooms,
    membership::{self, Action, Change, Direct, MembershipError},
};

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
    let action = Action::Invite(Direct::No);
    let change = Change::of(sender, invited, action, reason);
    membership::change(rooms, room, &change).await
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
        _ if !room.rooms.env.is_local(change.target) => {
            return Err(MembershipError::OtherServer(change.target.to_owned()));
        }
        _ => {}
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
