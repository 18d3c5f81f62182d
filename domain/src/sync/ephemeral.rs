//! What is not part of a room's history: receipts, typing, presence.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use millrace_store::{
    PartitionId, Read, Scan,
    rows::receipt::{Receipt, ReceiptKind},
    tables::RECEIPTS,
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{Step, SyncError, deliveries, joined::RoomNews, user::News};
use crate::{json::Object, presence::Shown};

/// So many receipts of a room are told to who is new to it.
const RECEIPTS_MAX: usize = 5_000;

/// The content of an `m.receipt` event: by event, type of receipt, and user.
pub(super) type Content =
    BTreeMap<OwnedEventId, BTreeMap<&'static str, BTreeMap<OwnedUserId, Value>>>;
type Receipts = Vec<((OwnedUserId, u8, String), Receipt)>;

/// Receipts and typing of a room that changed, or all of them, as JSON.
pub(super) async fn of_room(
    step: &Step<'_>,
    room: &RoomId,
    (news, user_news): (&RoomNews, &News),
) -> Result<Vec<String>, SyncError> {
    let filter = &step.request.filter.ephemeral;
    let mut events = Vec::new();
    if !filter.admits_room(room) {
        return Ok(events);
    }
    let mut content = Content::new();
    if filter.admits_type("m.receipt") {
        receipts(step, room, news, &mut content).await?;
    }
    deliveries::add(step, user_news.delivered.get(room), &mut content);
    if !content.is_empty() {
        events.push(event("m.receipt", &json!(content)));
    }
    if filter.admits_type("m.typing") {
        let users = step.syncs.typing.users(room);
        let changed = step.syncs.typing.since(step.ephemeral).iter().any(|other| other == room);
        if changed && (step.since.is_some() || !users.is_empty()) {
            events.push(event("m.typing", &json!({ "user_ids": users })));
        }
    }
    Ok(events)
}

pub(super) fn event(kind: &str, content: &Value) -> String {
    json!({ "type": kind, "content": content }).to_string()
}

/// Adds what was read.
pub(super) async fn receipts(
    step: &Step<'_>,
    room: &RoomId,
    news: &RoomNews,
    content: &mut Content,
) -> Result<(), SyncError> {
    let (store, partition) = (&step.syncs.rooms.env.store, PartitionId::of::<OwnedRoomId>(&room));
    let rows: Receipts = if news.whole {
        if step.syncs.unreceipted.get(store, &step.snapshot, partition).is_some() {
            return Ok(());
        }
        let rows = step.snapshot.scan(&RECEIPTS, room, Scan::all().limit(RECEIPTS_MAX)).await?;
        if rows.is_empty() {
            step.syncs.unreceipted.put(&step.snapshot, partition, ());
        }
        rows
    } else {
        let mut keys = BTreeSet::new();
        for change in news.changes.iter().filter(|change| change.table == RECEIPTS.info().id) {
            keys.insert(RECEIPTS.decode_key(&change.key)?);
        }
        let rows = step.snapshot.get_many(&RECEIPTS, room, keys.iter()).await?;
        keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect()
    };
    for ((user, kind, thread), receipt) in rows {
        let kind = match ReceiptKind::from_id(kind) {
            Some(ReceiptKind::Public) if !step.viewer.ignored.contains(&user) => "m.read",
            Some(ReceiptKind::Private) if user == step.request.user => "m.read.private",
            _ => continue,
        };
        let mut value = json!({ "ts": receipt.ts });
        if !thread.is_empty() {
            value["thread_id"] = json!(thread);
        }
        let users = content.entry(receipt.event_id).or_default().entry(kind).or_default();
        // Where one event is read in and out of threads, the latter says more (spec: Threaded read
        // receipts); it comes first.
        users.entry(user).or_insert(value);
    }
    Ok(())
}

/// Presence that changed of who shares a room, and that of `members`: those whose member events
/// are told, since they may be new to the user.
pub(super) fn put_presence(
    step: &Step<'_>,
    members: &BTreeSet<OwnedUserId>,
    body: &mut Object<'_>,
) {
    let presence = &step.syncs.presence;
    if !presence.is_enabled() {
        return;
    }
    let mut shown: BTreeMap<OwnedUserId, Shown> = BTreeMap::new();
    if step.ephemeral.since < step.ephemeral.up_to {
        let rooms: HashSet<_> = step.interest.joined_partitions.iter().copied().collect();
        for one in presence.since(step.ephemeral, &step.request.user, &rooms) {
            shown.insert(one.user.clone(), one);
        }
    }
    for one in presence.of(members.iter().map(|user| &**user)) {
        shown.insert(one.user.clone(), one);
    }
    let filter = &step.request.filter.presence;
    if filter.admits_type("m.presence") {
        let shown = shown.into_values().filter(|one| filter.admits_sender(&one.user));
        let events: Vec<_> = shown.map(|one| one.event().to_string()).collect();
        body.put_events("presence", &events);
    }
}
