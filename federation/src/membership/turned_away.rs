//! Invitations that other servers take back, and knocks that they turn down, where we are not in the
//! room and so can check nothing but who says it.

use millrace_domain::rooms::outside;
use ruma::{OwnedUserId, RoomId, ServerName, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Federation;

#[derive(Deserialize)]
struct MemberEvent {
    #[serde(rename = "type")]
    kind: String,
    sender: OwnedUserId,
    state_key: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    membership: MembershipState,
}

/// Looks at an event of a room that we are not in, which `origin` sent and nothing else is done with.
/// Returns whether it turned a user of ours away.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn hear(
    federation: &Federation,
    origin: &ServerName,
    room: &RoomId,
    event: &RawValue,
) -> millrace_store::Result<bool> {
    let Ok(event) = serde_json::from_str::<MemberEvent>(event.get()) else { return Ok(false) };
    let ends = matches!(event.content.membership, MembershipState::Leave | MembershipState::Ban);
    // The request's signature says of the sender's server what the event's would.
    let said_by_sender = event.sender.server_name() == origin;
    if event.kind != "m.room.member"
        || !ends
        || !said_by_sender
        || !federation.env.is_local(&event.state_key)
    {
        return Ok(false);
    }
    outside::turned_away(&federation.rooms, room, &event.state_key, &event.sender).await
}
