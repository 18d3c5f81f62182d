//! What one transaction holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_domain::{
    json::{Array, Object},
    keys,
    rooms::{RoomView, Viewer},
};
use millrace_model::client_event::RoomIdField;
use millrace_store::{
    Read, Scan, Snapshot,
    rows::appservice::{Queued, ServiceBatch},
    tables::{SERVICE_QUEUE, TO_DEVICE},
};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{
    Built,
    worker::{SendError, Worker},
};

/// So many rows of the queue are in one transaction at most.
pub(crate) const ROWS_MAX: usize = 100;
/// A transaction is closed once its events have so many bytes.
const BYTES_MAX: usize = 4 << 20;
/// Letters of a transaction's ID.
const ID_LEN: usize = 16;

type Devices<T> = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>>;

/// What rows of the queue become.
#[derive(Default)]
struct Contents {
    events: Vec<String>,
    to_device: Vec<String>,
    messages: BTreeMap<(OwnedUserId, OwnedDeviceId), u64>,
    changed: BTreeSet<OwnedUserId>,
    left: BTreeSet<OwnedUserId>,
    key_counts: Devices<BTreeMap<String, u64>>,
    unused_fallback: Devices<Vec<String>>,
}

impl Worker {
    /// The next transaction; `None` where there is nothing to send.
    pub(super) async fn build(&mut self) -> Result<Option<Built>, SendError> {
        let snapshot = self.services.rooms.env.store.snapshot();
        let scan = Scan::all().after(self.gone()).limit(ROWS_MAX);
        let rows = snapshot.scan(&SERVICE_QUEUE, &self.desk.service.id, scan).await?;
        let more = rows.len() == ROWS_MAX;
        let ephemeral = if more { Vec::new() } else { self.ephemeral(&snapshot).await? };
        if rows.is_empty() && ephemeral.is_empty() {
            return Ok(None);
        }
        let id = self.services.rooms.env.random_text(ID_LEN);
        let mut batch = ServiceBatch { id, end: self.progress.sent };
        let (durable, after) = (!rows.is_empty(), before_first(&rows, self.progress.sent));
        let contents = self.fill(&snapshot, rows, Some(&mut batch)).await?;
        Ok(Some(self.finish((batch, after), contents, &ephemeral, durable)))
    }

    /// A transaction that was begun before, of which it is not known whether it arrived.
    pub(super) async fn rebuild(&self, batch: ServiceBatch) -> Result<Built, SendError> {
        let snapshot = self.services.rooms.env.store.snapshot();
        let scan = Scan::all().after(self.gone()).up_to(batch.end);
        let rows = snapshot.scan(&SERVICE_QUEUE, &self.desk.service.id, scan).await?;
        // Where none is left it ends with its last row all the same, as that is still to be noted.
        let after = before_first(&rows, batch.end.saturating_sub(1));
        let contents = self.fill(&snapshot, rows, None).await?;
        Ok(self.finish((batch, after), contents, &[], true))
    }

    /// The row after which those begin that may wait.
    fn gone(&self) -> u64 {
        self.progress.sent.max(self.deleted)
    }

    /// Reads what the rows are about. With `cut`, stops where there is enough, and notes the last row.
    async fn fill(
        &self,
        snapshot: &Snapshot,
        rows: Vec<(u64, Queued)>,
        mut cut: Option<&mut ServiceBatch>,
    ) -> Result<Contents, SendError> {
        let mut texts = self.events(snapshot, &rows).await?;
        let (mut contents, mut bytes) = (Contents::default(), 0);
        for (n, row) in rows {
            match row {
                Queued::Event { room, number } => {
                    if let Some(text) = texts.remove(&(room, number)) {
                        bytes += text.len();
                        contents.events.push(text);
                    }
                }
                Queued::Outside(text) => {
                    bytes += text.len();
                    contents.events.push(text);
                }
                Queued::ToDevice { user, device, n } => {
                    bytes += message(snapshot, (user, device, n), &mut contents).await?;
                }
                Queued::DevicesChanged(user) => {
                    contents.left.remove(&user);
                    contents.changed.insert(user);
                }
                Queued::DevicesLeft(user) => {
                    contents.changed.remove(&user);
                    contents.left.insert(user);
                }
                Queued::KeyCounts { user, device } => {
                    let counts = keys::counts(snapshot, &user, &device).await?;
                    let of = contents.key_counts.entry(user.clone()).or_default();
                    of.insert(device.clone(), counts.one_time);
                    let of = contents.unused_fallback.entry(user).or_default();
                    of.insert(device, counts.unused_fallback);
                }
            }
            if let Some(batch) = cut.as_deref_mut() {
                batch.end = n;
                if bytes >= BYTES_MAX {
                    break;
                }
            }
        }
        Ok(contents)
    }

    /// The events of some rows as the service sees them. One that cannot be read is left out: it must
    /// not hold up those that follow.
    async fn events(
        &self,
        snapshot: &Snapshot,
        rows: &[(u64, Queued)],
    ) -> Result<BTreeMap<(OwnedRoomId, u64), String>, SendError> {
        let mut of: BTreeMap<&RoomId, Vec<u64>> = BTreeMap::new();
        for (_, row) in rows {
            if let Queued::Event { room, number } = row {
                of.entry(room).or_default().push(*number);
            }
        }
        let viewer = Viewer {
            user: self.desk.service.sender.clone(),
            device: None,
            ignored: Arc::default(),
        };
        let mut texts = BTreeMap::new();
        for (room, numbers) in of {
            match self.rendered(snapshot, room, &viewer, &numbers).await {
                Ok(rendered) => {
                    let places = numbers.into_iter().map(|number| (room.to_owned(), number));
                    texts.extend(places.zip(rendered));
                }
                Err(SendError::Store(error)) => return Err(error.into()),
                Err(SendError::Read(error)) => {
                    tracing::warn!(%error, %room, "events cannot be shown to a service");
                }
            }
        }
        Ok(texts)
    }

    async fn rendered(
        &self,
        snapshot: &Snapshot,
        room: &RoomId,
        viewer: &Viewer,
        numbers: &[u64],
    ) -> Result<Vec<String>, SendError> {
        let rooms = &self.services.rooms;
        let Some(view) = RoomView::open(rooms, snapshot, room, viewer).await? else {
            return Ok(Vec::new());
        };
        // A service sees what happens where it is interested, whoever of its users is there.
        let seen = view.state_events(numbers).await?;
        let rendered = view.render(&seen, RoomIdField::Present).await?;
        Ok(rendered.into_iter().map(|event| Box::<str>::from(event).into_string()).collect())
    }

    fn finish(
        &self,
        (batch, after): (ServiceBatch, u64),
        contents: Contents,
        ephemeral: &[String],
        durable: bool,
    ) -> Built {
        let told = self.desk.service.told;
        let mut text = String::new();
        let mut body = Object::begin(&mut text);
        put_array(&mut body, "events", &contents.events);
        if told.ephemeral && !ephemeral.is_empty() {
            put_array(&mut body, "ephemeral", ephemeral);
        }
        if told.unstable_ephemeral && !ephemeral.is_empty() {
            put_array(&mut body, "de.sorunome.msc2409.ephemeral", ephemeral);
        }
        if !contents.to_device.is_empty() {
            put_array(&mut body, "de.sorunome.msc2409.to_device", &contents.to_device);
        }
        if told.encryption {
            put_encryption(&mut body, &contents);
        }
        body.end();
        Built { batch, after, body: text.into(), durable, messages: contents.messages }
    }
}

/// The row before the first of these; `none` where there are none.
fn before_first(rows: &[(u64, Queued)], none: u64) -> u64 {
    rows.first().map_or(none, |(first, _)| first.saturating_sub(1))
}

fn put_array(body: &mut Object<'_>, name: &str, items: &[String]) {
    let mut array = Array::begin(body.field(name));
    for item in items {
        array.item().push_str(item);
    }
    array.end();
}

/// MSC3202, under the names that bridges read.
fn put_encryption(body: &mut Object<'_>, contents: &Contents) {
    let Contents { changed, left, key_counts, unused_fallback, .. } = contents;
    if !changed.is_empty() || !left.is_empty() {
        let lists = json!({ "changed": changed, "left": left });
        body.put("org.matrix.msc3202.device_lists", &lists);
    }
    if !key_counts.is_empty() {
        body.put("org.matrix.msc3202.device_one_time_keys_count", key_counts);
        body.put("org.matrix.msc3202.device_one_time_key_counts", key_counts);
        body.put("org.matrix.msc3202.device_unused_fallback_key_types", unused_fallback);
    }
}

/// Adds a message to a device, and returns its size; nothing where the device has fetched it itself.
async fn message(
    snapshot: &Snapshot,
    (user, device, n): (OwnedUserId, OwnedDeviceId, u64),
    contents: &mut Contents,
) -> Result<usize, SendError> {
    let Some(message) = snapshot.get(&TO_DEVICE, &user, (&device, n)).await? else {
        return Ok(0);
    };
    let mut text = String::new();
    let mut event = Object::begin(&mut text);
    event.put_str("type", &message.kind);
    event.put_str("sender", message.sender.as_str());
    event.put_str("to_user_id", user.as_str());
    event.put_str("to_device_id", device.as_str());
    event.field("content").push_str(&message.content);
    event.end();
    contents.messages.insert((user, device), n);
    let size = text.len();
    contents.to_device.push(text);
    Ok(size)
}

/// An ephemeral event of a room, as `/sync` has it, with its room.
pub(super) fn ephemeral_event(kind: &str, room: &RoomId, content: &Value) -> String {
    json!({ "type": kind, "room_id": room, "content": content }).to_string()
}
