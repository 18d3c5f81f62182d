//! Sending events (spec: Client-Server API, Sending events to a room).

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::room::EventTransaction,
    tables::{EVENT_TXNS, TRANSACTIONS},
};
use ruma::{EventId, OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::{AppendError, Draft, Numbers, RoomTx, Rooms, policy};

/// Who repeats what: requests with the same of it are the same request.
#[derive(Debug, Clone)]
pub struct TransactionKey {
    /// The device that sends. A refreshed access token leaves it the same.
    pub device: OwnedDeviceId,
    /// What is requested, without the transaction ID: endpoint, room, type.
    pub endpoint: String,
    /// The client's transaction ID.
    pub id: String,
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such room here.
    #[error("this server is not in room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The sender is not in the room.
    #[error("{user} is not joined to {room}")]
    NotJoined {
        /// The sender.
        user: OwnedUserId,
        /// The room.
        room: OwnedRoomId,
    },
    /// The event cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl From<millrace_store::Error> for SendError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Append(error.into())
    }
}

/// Sends one event and returns its ID. With a `transaction`, a repeated request returns the ID of
/// the event that the first one sent.
///
/// # Errors
/// Where the room is not known, or its rules refuse the event.
pub async fn send(
    rooms: &Rooms,
    room_id: &RoomId,
    draft: &Draft,
    transaction: Option<&TransactionKey>,
) -> Result<OwnedEventId, SendError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            if let Some(sent) = sent_before(&tx, &draft.sender, transaction).await? {
                return Ok(sent);
            }
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| SendError::UnknownRoom(room_id.to_owned()))?;
            check_joined(&room, &draft.sender).await?;
            let event = room.append(draft.clone()).await?;
            room.finish();
            let sent = event.pdu.event_id.clone();
            note_sent(&tx, &draft.sender, transaction, &sent);
            Ok(sent)
        }
        .boxed()
    };
    policy::transact(rooms, room_id, numbers, body).await
}

/// The event that the same request has sent before.
pub(super) async fn sent_before(
    tx: &Tx,
    sender: &UserId,
    transaction: Option<&TransactionKey>,
) -> millrace_store::Result<Option<OwnedEventId>> {
    let Some(key) = transaction else { return Ok(None) };
    tx.get(&TRANSACTIONS, sender, (&key.device, &key.endpoint, &key.id)).await
}

/// Remembers what a request has sent: for its repetition, and so that the device that sent the event
/// is told its transaction ID.
pub(super) fn note_sent(
    tx: &Tx,
    sender: &UserId,
    transaction: Option<&TransactionKey>,
    sent: &EventId,
) {
    let Some(key) = transaction else { return };
    tx.put(&TRANSACTIONS, sender, (&key.device, &key.endpoint, &key.id), &sent.to_owned());
    let made_by = EventTransaction { device: key.device.clone(), id: key.id.clone() };
    tx.put(&EVENT_TXNS, sender, sent, &made_by);
}

async fn check_joined(room: &RoomTx<'_>, user: &UserId) -> Result<(), SendError> {
    if room.membership(user).await? == ruma::events::room::member::MembershipState::Join {
        return Ok(());
    }
    Err(SendError::NotJoined { user: user.to_owned(), room: room.room_id.clone() })
}

#[cfg(test)]
mod tests {
    use ruma::{
        CanonicalJsonObject, RoomVersionId, events::TimelineEventType, owned_user_id, user_id,
    };

    use super::*;
    use crate::testing;

    fn assert_send<T: Send>(value: T) -> T {
        value
    }

    fn object(json: serde_json::Value) -> CanonicalJsonObject {
        serde_json::from_value(json).unwrap()
    }

    async fn room_with_creator(rooms: &Rooms) -> OwnedRoomId {
        let numbers = &Numbers::draw(rooms, 2).await.unwrap();
        let created = rooms.env.store.transact(|tx| {
            async move {
                let alice = user_id!("@alice:test.example");
                let placeholder = ruma::owned_room_id!("!new");
                let mut room =
                    RoomTx::create(&tx, rooms, placeholder, RoomVersionId::V12, numbers)?;
                let create = object(serde_json::json!({"room_version": "12"}));
                room.append(Draft::state(alice, TimelineEventType::RoomCreate, "", create)).await?;
                let join = object(serde_json::json!({"membership": "join"}));
                let join = Draft::state(alice, TimelineEventType::RoomMember, alice.as_str(), join);
                room.append(join).await?;
                let room_id = room.room_id.clone();
                room.finish();
                Ok::<_, AppendError>(room_id)
            }
            .boxed()
        });
        created.await.unwrap()
    }

    fn hello() -> Draft {
        let content = object(serde_json::json!({"body": "hello", "msgtype": "m.text"}));
        Draft::message(user_id!("@alice:test.example"), TimelineEventType::RoomMessage, content)
    }

    #[tokio::test]
    async fn a_repeated_request_sends_once() {
        let rooms = testing::rooms().await;
        let room = room_with_creator(&rooms).await;
        let key =
            TransactionKey { device: "D".into(), endpoint: "send".to_owned(), id: "1".to_owned() };
        let draft = hello();
        let first = assert_send(send(&rooms, &room, &draft, Some(&key))).await.unwrap();
        let again = send(&rooms, &room, &draft, Some(&key)).await.unwrap();
        let other = send(&rooms, &room, &draft, None).await.unwrap();
        assert_eq!(first, again);
        assert_ne!(first, other);
        let snapshot = rooms.env.store.snapshot();
        let head = snapshot.get(&millrace_store::tables::ROOM_HEAD, &room, ()).await.unwrap();
        assert_eq!(head.unwrap().last, 4, "create, join and two messages");
    }

    #[tokio::test]
    async fn a_stranger_cannot_send() {
        let rooms = testing::rooms().await;
        let room = room_with_creator(&rooms).await;
        let draft = Draft { sender: owned_user_id!("@eve:test.example"), ..hello() };
        let refused = send(&rooms, &room, &draft, None).await;
        assert!(matches!(refused, Err(SendError::NotJoined { .. })), "{refused:?}");
    }
}
