//! What is not part of a room's history: receipts, typing, presence.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use millrace_store::{
    Read, Scan,
    rows::receipt::{Receipt, ReceiptKind},
    tables::RECEIPTS,
};
use ruma::{
    OwnedEventId, OwnedUserId, RoomId, api::client::sync::sync_events::v3::Response,
    events::AnySyncEphemeralRoomEvent, serde::Raw,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{Step, SyncError, joined::RoomNews};
use crate::presence::Shown;

/// So many receipts of a room are told to who is new to it.
const RECEIPTS_MAX: usize = 5_000;

type Receipts = Vec<((OwnedUserId, u8, String), Receipt)>;

/// Receipts and typing of a room that changed, or all of them.
pub(super) async fn of_room(
    step: &Step<'_>,
    room: &RoomId,
    news: &RoomNews,
) -> Result<Vec<Raw<AnySyncEphemeralRoomEvent>>, SyncError> {
    let filter = &step.request.filter.ephemeral;
    let mut events = Vec::new();
    if !filter.admits_room(room) {
        return Ok(events);
    }
    if filter.admits_type("m.receipt")
        && let Some(content) = receipts(step, room, news).await?
    {
        events.push(wire("m.receipt", &content)?);
    }
    if filter.admits_type("m.typing") {
        let users = step.syncs.typing.users(room);
        let changed = step.syncs.typing.since(step.ephemeral).iter().any(|other| other == room);
        if changed && (step.since.is_some() || !users.is_empty()) {
            events.push(wire("m.typing", &json!({ "user_ids": users }))?);
        }
    }
    Ok(events)
}

fn wire<T>(kind: &str, content: &Value) -> Result<Raw<T>, SyncError> {
    let raw = to_raw_value(&json!({ "type": kind, "content": content }));
    let raw = raw.map_err(|error| millrace_store::Error::Malformed {
        table: "receipts",
        reason: error.to_string().into(),
    })?;
    Ok(Raw::from_json(raw))
}

/// The content of an `m.receipt` event; none where there is nothing to tell.
async fn receipts(
    step: &Step<'_>,
    room: &RoomId,
    news: &RoomNews,
) -> Result<Option<Value>, SyncError> {
    let rows: Receipts = if news.whole {
        step.snapshot.scan(&RECEIPTS, room, Scan::all().limit(RECEIPTS_MAX)).await?
    } else {
        let mut keys = BTreeSet::new();
        for change in news.changes.iter().filter(|change| change.table == RECEIPTS.info().id) {
            keys.insert(RECEIPTS.decode_key(&change.key)?);
        }
        let rows = step.snapshot.get_many(&RECEIPTS, room, keys.iter()).await?;
        keys.into_iter().zip(rows).filter_map(|(key, row)| Some((key, row?))).collect()
    };
    let mut content: BTreeMap<OwnedEventId, BTreeMap<&str, BTreeMap<OwnedUserId, Value>>> =
        BTreeMap::new();
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
        users.insert(user, value);
    }
    Ok((!content.is_empty()).then(|| json!(content)))
}

/// Presence that changed of who shares a room, and that of `members`: those whose member events
/// are told, since they may be new to the user.
pub(super) fn fill_presence(
    step: &Step<'_>,
    members: &BTreeSet<OwnedUserId>,
    response: &mut Response,
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
    for one in shown.into_values() {
        if step.request.filter.presence.admits_sender(&one.user)
            && step.request.filter.presence.admits_type("m.presence")
        {
            let raw = to_raw_value(&presence_event(&one));
            response.presence.events.extend(raw.map(Raw::from_json));
        }
    }
}

fn presence_event(shown: &Shown) -> Value {
    let mut content = json!({
        "presence": shown.presence,
        "currently_active": shown.currently_active,
    });
    if let Some(ago) = shown.last_active_ago_ms {
        content["last_active_ago"] = json!(ago);
    }
    if let Some(status) = &shown.status_msg {
        content["status_msg"] = json!(status);
    }
    json!({ "type": "m.presence", "sender": shown.user, "content": content })
}
