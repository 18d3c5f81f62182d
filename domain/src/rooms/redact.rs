//! Redacting an event (spec: Client-Server API, Redactions).

use futures::FutureExt;
use millrace_model::rules::{power_levels::Action, redaction};
use millrace_store::Tx;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId,
    events::{TimelineEventType, room::member::MembershipState},
};

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms, events, policy,
    send::{TransactionKey, note_sent, sent_before},
};

/// Why nothing was redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    /// There is no such room here.
    #[error("this server does not know the room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The sender is not in the room.
    #[error("{0} is not joined to the room")]
    NotJoined(OwnedUserId),
    /// The room has no such event.
    #[error("the room has no event {0}")]
    UnknownEvent(OwnedEventId),
    /// An event of somebody else, or one that is not known, and the sender's account is suspended.
    #[error("while your account is suspended you may only redact what you sent")]
    Suspended,
    /// An event of somebody else, and the sender has not the level for that.
    #[error("you may not redact the events of others")]
    NotAllowed,
    /// An event on which the room's access rules stand.
    #[error("events of type {0} cannot be redacted")]
    Protected(TimelineEventType),
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<millrace_store::Error> for RedactError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// What is to be redacted, by whom.
#[derive(Debug, Clone)]
pub struct Redaction {
    /// Who redacts.
    pub sender: OwnedUserId,
    /// What is redacted.
    pub target: OwnedEventId,
    /// The content of the redaction: mostly a reason.
    pub content: CanonicalJsonObject,
    /// Whose events the sender may redact at most.
    pub of: RedactsOf,
}

/// Whose events somebody may redact, if the room allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedactsOf {
    /// Everybody's.
    All,
    /// Only their own: the account is suspended.
    Own,
}

/// Redacts an event and returns the ID of the redaction. A repeated `transaction` redacts once.
///
/// # Errors
/// Where there is no such event, or the sender may not redact it.
pub async fn redact(
    rooms: &Rooms,
    room_id: &RoomId,
    redaction: &Redaction,
    transaction: Option<&TransactionKey>,
) -> Result<OwnedEventId, RedactError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            let sender = &redaction.sender;
            if let Some(sent) = sent_before(&tx, sender, transaction).await? {
                return Ok(sent);
            }
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| RedactError::UnknownRoom(room_id.to_owned()))?;
            check(&room, redaction).await?;
            let kind = TimelineEventType::RoomRedaction;
            let draft = Draft {
                redacts: Some(redaction.target.clone()),
                ..Draft::message(sender, kind, redaction.content.clone())
            };
            let event = room.append(draft).await?;
            room.finish();
            note_sent(&tx, sender, transaction, &event.pdu.event_id);
            Ok(event.pdu.event_id.clone())
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}

async fn check(room: &RoomTx<'_>, redaction: &Redaction) -> Result<(), RedactError> {
    let Redaction { sender, target, of, .. } = redaction;
    if room.membership(sender).await? != MembershipState::Join {
        return Err(RedactError::NotJoined(sender.clone()));
    }
    let unknown = || RedactError::UnknownEvent(target.clone());
    let found = events::find(room.tx, &room.room_id, target).await?;
    let levels = room.power_levels().await?;
    let Some((number, _)) = found else {
        // Other servers may have what has not come here yet.
        if *of == RedactsOf::Own {
            return Err(RedactError::Suspended);
        }
        let may = room.head.remote_servers > 0 && levels.can(sender, Action::RedactOthers);
        return if may { Ok(()) } else { Err(unknown()) };
    };
    let target = room.event(number).await?;
    if *of == RedactsOf::Own && *sender != target.pdu.sender {
        return Err(RedactError::Suspended);
    }
    let kind = &target.pdu.kind;
    if matches!(kind, TimelineEventType::RoomCreate | TimelineEventType::RoomServerAcl) {
        return Err(RedactError::Protected(kind.clone()));
    }
    // The rules of rooms let every user of a server redact what the server's users sent; between
    // users of one server it is the server that keeps them apart.
    let allowed = *sender == target.pdu.sender
        || levels.can(sender, Action::RedactOthers)
        || (!room.rooms.env.is_local(&target.pdu.sender)
            && redaction::may_apply(sender, &target.pdu.sender, &levels));
    if allowed { Ok(()) } else { Err(RedactError::NotAllowed) }
}
