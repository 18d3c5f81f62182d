//! A room for tests, made by appending events.

use futures::{FutureExt, future::BoxFuture};
use millrace_store::Snapshot;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    RoomVersionId, UserId, events::TimelineEventType,
};
use serde_json::{Value, json};

use super::{
    AppendError, Draft, Numbers, RoomTx, Rooms, Seen, Viewer,
    hierarchy::{Elsewhere, SpaceRoom},
    view::RoomView,
};
use crate::testing;

/// A room of version 12 that `@alice:test.example` has made.
pub struct TestRoom {
    pub rooms: Rooms,
    pub id: OwnedRoomId,
}

/// `@name:test.example`.
pub fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:test.example")).unwrap()
}

/// Somebody who reads on the device `D`.
pub fn viewer(name: &str) -> Viewer {
    Viewer { user: user(name), device: Some("D".into()), ignored: Default::default() }
}

pub fn object(json: Value) -> CanonicalJsonObject {
    serde_json::from_value(json).unwrap()
}

/// A world without other servers.
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn room<'a>(
        &'a self,
        _: &'a RoomId,
        _: &'a [OwnedServerName],
        _: bool,
    ) -> BoxFuture<'a, Option<SpaceRoom>> {
        Box::pin(async { None })
    }
}

impl TestRoom {
    /// Alice's public room with a history visibility.
    pub async fn with_visibility(visibility: &str) -> Self {
        Self::in_world(testing::rooms().await, visibility).await
    }

    pub async fn in_world(rooms: Rooms, visibility: &str) -> Self {
        let numbers = &Numbers::draw(&rooms, 4).await.unwrap();
        let world = &rooms;
        let drafts = &[
            state("alice", "m.room.create", "", json!({"room_version": "12"})),
            state("alice", "m.room.member", user("alice").as_str(), json!({"membership": "join"})),
            state("alice", "m.room.join_rules", "", json!({"join_rule": "public"})),
            state(
                "alice",
                "m.room.history_visibility",
                "",
                json!({"history_visibility": visibility}),
            ),
        ];
        let created = rooms.env.store.transact(|tx| {
            async move {
                let placeholder = ruma::owned_room_id!("!new");
                let mut room =
                    RoomTx::create(&tx, world, placeholder, RoomVersionId::V12, numbers)?;
                for draft in drafts {
                    room.append(draft.clone()).await?;
                }
                let room_id = room.room_id.clone();
                room.finish();
                Ok::<_, AppendError>(room_id)
            }
            .boxed()
        });
        let id = created.await.unwrap();
        Self { rooms, id }
    }

    /// Appends an event.
    pub async fn append(&self, draft: Draft) -> OwnedEventId {
        let numbers = &Numbers::draw(&self.rooms, 1).await.unwrap();
        let (rooms, id, draft) = (&self.rooms, &self.id, &draft);
        let appended = rooms.env.store.transact(|tx| {
            async move {
                let room = RoomTx::open(&tx, rooms, id, numbers).await?;
                let mut room = room.expect("the room was made");
                let event = room.append(draft.clone()).await?;
                room.finish();
                Ok::<_, AppendError>(event.pdu.event_id.clone())
            }
            .boxed()
        });
        appended.await.unwrap()
    }

    /// `sender` sends a text.
    pub async fn say(&self, sender: &str, text: &str) -> OwnedEventId {
        self.message(sender, json!({"msgtype": "m.text", "body": text})).await
    }

    /// `sender` sends a message of any content.
    pub async fn message(&self, sender: &str, content: Value) -> OwnedEventId {
        let kind = TimelineEventType::RoomMessage;
        self.append(Draft::message(&user(sender), kind, object(content))).await
    }

    /// `sender` sends a message that relates to another.
    pub async fn relate(&self, sender: &str, to: &ruma::EventId, rel_type: &str) -> OwnedEventId {
        let relates_to = json!({"rel_type": rel_type, "event_id": to});
        let content =
            json!({"body": rel_type, "m.relates_to": relates_to, "m.new_content": {"body": "x"}});
        self.message(sender, content).await
    }

    /// `sender` sets a state event.
    pub async fn set(&self, sender: &str, kind: &str, key: &str, content: Value) -> OwnedEventId {
        self.append(state(sender, kind, key, content)).await
    }

    /// `sender` sets somebody's membership.
    pub async fn member(&self, sender: &str, target: &str, membership: &str) -> OwnedEventId {
        let content = json!({"membership": membership});
        self.set(sender, "m.room.member", user(target).as_str(), content).await
    }

    /// `sender` redacts an event.
    pub async fn redact(&self, sender: &str, target: &ruma::EventId) -> OwnedEventId {
        let mut draft = Draft::message(
            &user(sender),
            TimelineEventType::RoomRedaction,
            object(json!({"redacts": target})),
        );
        draft.redacts = Some(target.to_owned());
        self.append(draft).await
    }

    /// What a viewer sees of an event, as JSON.
    pub async fn seen_by(&self, viewer: &Viewer, event: &ruma::EventId) -> Option<Value> {
        self.seen_at(&self.rooms.env.store.snapshot(), viewer, event).await
    }

    /// What a viewer sees of an event at a snapshot, as JSON.
    pub async fn seen_at(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        event: &ruma::EventId,
    ) -> Option<Value> {
        let view = RoomView::open(&self.rooms, snapshot, &self.id, viewer).await.unwrap().unwrap();
        let seen: Seen = view.find(event).await.unwrap()?;
        let raw = view.render_one(&seen, millrace_model::client_event::RoomIdField::Present);
        Some(serde_json::from_str(raw.await.unwrap().get()).unwrap())
    }
}

pub fn state(sender: &str, kind: &str, key: &str, content: Value) -> Draft {
    Draft::state(&user(sender), kind, key, object(content))
}
