//! Typing, receipts and presence, as they are when they are sent.

use std::collections::BTreeMap;

use millrace_store::{Read, Snapshot, rows::receipt::ReceiptKind, tables::RECEIPTS};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{
    Moving,
    batch::ephemeral_event,
    worker::{SendError, Worker},
};

/// What is said of an event: by kind of receipt and user.
type Readers = BTreeMap<&'static str, BTreeMap<OwnedUserId, Value>>;

impl Worker {
    /// What has moved since the last time, as ephemeral events.
    pub(super) async fn ephemeral(&self, snapshot: &Snapshot) -> Result<Vec<String>, SendError> {
        let moving = std::mem::take(&mut *self.desk.moving.lock());
        if moving.is_empty() {
            return Ok(Vec::new());
        }
        let Moving { typing, receipts, presence } = moving;
        let mut events = Vec::new();
        for room in typing {
            let users = self.services.typing.users(&room);
            events.push(ephemeral_event("m.typing", &room, &json!({ "user_ids": users })));
        }
        let mut by_room: BTreeMap<OwnedRoomId, Vec<(OwnedUserId, u8, String)>> = BTreeMap::new();
        for (room, receipt) in receipts {
            by_room.entry(room).or_default().push(receipt);
        }
        for (room, keys) in by_room {
            let content = content(snapshot, &room, keys).await?;
            events.push(ephemeral_event("m.receipt", &room, &content));
        }
        let shown = self.services.presence.of(presence.iter().map(|user| &**user));
        events.extend(shown.iter().map(|shown| shown.event().to_string()));
        Ok(events)
    }
}

/// The content of an `m.receipt` event.
async fn content(
    snapshot: &Snapshot,
    room: &RoomId,
    keys: Vec<(OwnedUserId, u8, String)>,
) -> Result<Value, SendError> {
    let rows = snapshot.get_many(&RECEIPTS, room, keys.iter()).await?;
    let mut content: BTreeMap<OwnedEventId, Readers> = BTreeMap::new();
    for ((user, kind, thread), row) in keys.into_iter().zip(rows) {
        let Some(receipt) = row else { continue };
        let kind = match ReceiptKind::from_id(kind) {
            Some(ReceiptKind::Public) => "m.read",
            Some(ReceiptKind::Private) => "m.read.private",
            None => continue,
        };
        let mut value = json!({ "ts": receipt.ts });
        if !thread.is_empty() {
            value["thread_id"] = json!(thread);
        }
        content.entry(receipt.event_id).or_default().entry(kind).or_default().insert(user, value);
    }
    Ok(json!(content))
}
