//! Queueing events for the other servers of a room.

use futures::FutureExt;
use millrace_store::{
    Read, Tx,
    rows::outbox::OutboxRow,
    tables::{OUTBOX, ROOM_HEAD, SERVER_ROOMS},
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName};

use super::{Event, RoomTx, Rooms, events};
use crate::outbox;

/// So many events stay in a room's outbox. Who has missed more is sent the newest only, and asks for
/// what lies between.
pub const OUTBOX_KEPT: u64 = 1000;

/// Why an event is not passed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// There is no such room here.
    #[error("this server is not in room {0}")]
    UnknownRoom(OwnedRoomId),
    /// The room's timeline does not have it.
    #[error("{0} is not in the room's timeline")]
    UnknownEvent(OwnedEventId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

impl RoomTx<'_> {
    /// Queues the room's newest event for the other servers, if there are any or were before it.
    pub(super) fn queue(&mut self, event: &Event, had_servers: bool) {
        let also = self.turned_away.take();
        if !had_servers && self.head.remote_servers == 0 && also.is_none() {
            return;
        }
        if let Some(server) = &also {
            // It is in no list of the room's servers. The row goes once it was told, as where it left.
            self.tx.put(&SERVER_ROOMS, server, &self.room_id, &());
            let (room, server) = (self.room_id.clone(), server.clone());
            outbox::announce(self.tx, &outbox::News::Server { room, server });
        }
        let sender = event.pdu.sender.server_name();
        let ours = &*self.rooms.env.identity.name;
        self.head.outbox += 1;
        let row = OutboxRow {
            event: event.number,
            n: self.head.last,
            origin: (sender != ours).then(|| sender.to_owned()),
            also,
        };
        put(self.tx, &self.room_id, self.head.outbox, &row);
    }
}

fn put(tx: &Tx, room: &RoomId, place: u64, row: &OutboxRow) {
    tx.put(&OUTBOX, room, place, row);
    if let Some(expired) = place.checked_sub(OUTBOX_KEPT).filter(|place| *place > 0) {
        tx.delete(&OUTBOX, room, expired);
    }
    outbox::announce(tx, &outbox::News::Room(room.to_owned()));
}

/// Queues an event of another server, which came to us to be passed on (as by `send_join`), for the
/// servers of the room other than `origin`.
///
/// # Errors
/// Where the event is not in the room's timeline.
pub async fn relay(
    rooms: &Rooms,
    room: &RoomId,
    event: &EventId,
    origin: &ServerName,
) -> Result<(), RelayError> {
    let body = |tx: Tx| {
        async move {
            let head = tx.get(&ROOM_HEAD, room, ()).await?;
            let mut head = head.ok_or_else(|| RelayError::UnknownRoom(room.to_owned()))?;
            let found = events::find(&tx, room, event).await?;
            let place = found.and_then(|(number, header)| Some((number, header.place?)));
            let unknown = || RelayError::UnknownEvent(event.to_owned());
            let (number, (n, _)) = place.ok_or_else(unknown)?;
            head.outbox += 1;
            let origin = Some(origin.to_owned());
            put(&tx, room, head.outbox, &OutboxRow { event: number, n, origin, also: None });
            tx.put(&ROOM_HEAD, room, (), &head);
            Ok(())
        }
        .boxed()
    };
    rooms.env.store.transact_in(room, body).await
}

#[cfg(test)]
mod tests {
    use millrace_store::Scan;
    use ruma::{UserId, events::TimelineEventType, server_name, user_id};
    use serde_json::json;

    use super::*;
    use crate::rooms::{
        Draft,
        test_room::{TestRoom, object, user},
    };

    async fn set(room: &TestRoom, sender: &UserId, target: &UserId, membership: &str) {
        let content = object(json!({ "membership": membership }));
        let draft = Draft::state(sender, TimelineEventType::RoomMember, target.as_str(), content);
        room.append(draft).await;
    }

    async fn queued(room: &TestRoom) -> Vec<OutboxRow> {
        let snapshot = room.rooms.env.store.snapshot();
        let rows = snapshot.scan(&OUTBOX, &room.id, Scan::all()).await.unwrap();
        rows.into_iter().map(|(_, row)| row).collect()
    }

    #[tokio::test]
    async fn a_room_of_ours_alone_queues_nothing() {
        let room = TestRoom::with_visibility("shared").await;
        room.say("alice", "hello").await;
        assert!(queued(&room).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_said_before_a_server_left_and_its_leaving_are_queued() {
        let room = TestRoom::with_visibility("shared").await;
        let bob = user_id!("@bob:far.example");
        set(&room, bob, bob, "join").await;
        room.say("alice", "hello").await;
        set(&room, &user("alice"), bob, "ban").await;
        room.say("alice", "alone again").await;
        let rows = queued(&room).await;
        assert_eq!(rows.len(), 3, "the join, the message and the ban");
        assert_eq!(rows[0].origin.as_deref(), Some(server_name!("far.example")));
        assert_eq!(rows[1].origin, None);
    }

    #[tokio::test]
    async fn who_was_invited_hears_that_the_invitation_is_taken_back() {
        let room = TestRoom::with_visibility("shared").await;
        let bob = user_id!("@bob:far.example");
        set(&room, &user("alice"), bob, "invite").await;
        assert!(queued(&room).await.is_empty(), "an invitation goes by a handshake");
        set(&room, &user("alice"), bob, "leave").await;
        let rows = queued(&room).await;
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].also.as_deref(), Some(server_name!("far.example")));
    }

    #[tokio::test]
    async fn old_rows_expire() {
        let room = TestRoom::with_visibility("shared").await;
        let bob = user_id!("@bob:far.example");
        set(&room, bob, bob, "join").await;
        for _ in 0..OUTBOX_KEPT + 5 {
            room.say("alice", "hello").await;
        }
        assert_eq!(queued(&room).await.len() as u64, OUTBOX_KEPT);
    }
}
