//! What belongs to the user and the device: account data and messages from other devices.

use std::collections::{BTreeMap, BTreeSet};

use millrace_model::SyncToken;
use millrace_store::{
    Change, Read, Scan, Snapshot,
    rows::user::ToDevice,
    tables::{ACCOUNT_DATA, USER_ROOMS},
};
use ruma::{
    OwnedRoomId, RoomId, UserId,
    api::client::sync::sync_events::v3::Response,
    events::{AnyRoomAccountDataEvent, AnyToDeviceEvent},
    serde::Raw,
};
use serde_json::{json, value::RawValue};

use super::{Step, SyncError, SyncRequest, Syncs};
use crate::{
    account_data::PUSH_RULES,
    push_rules,
    to_device::{self, Pending},
};

/// So many changes of a user's partition are looked at one by one; beyond, all of it is new.
const CHANGES_MAX: usize = 5_000;
/// So many messages to the device are in one response.
const MESSAGES_MAX: usize = 100;

/// What happened in the user's own partition since the token.
pub(super) struct News {
    /// Rooms whose membership row changed.
    pub rooms: BTreeSet<OwnedRoomId>,
    /// Account data that changed: type and content, by room; `""` for the user's own.
    account_data: BTreeMap<String, Vec<(String, String)>>,
}

impl News {
    /// Reads what changed; at an initial sync, all account data.
    pub async fn read(step: &Step<'_>) -> Result<Self, SyncError> {
        let mut news = Self { rooms: BTreeSet::new(), account_data: BTreeMap::new() };
        let user = &step.request.user;
        let Some(since) = step.since else {
            news.add_all_account_data(&step.snapshot, user).await?;
            return Ok(news);
        };
        let store = &step.syncs.rooms.env.store;
        if store.news(&[step.interest.user], &since.view).is_empty() {
            return Ok(news);
        }
        let changes = step.snapshot.changes(user, &since.view, CHANGES_MAX).await?;
        if changes.len() >= CHANGES_MAX {
            let interest = &step.interest;
            let rooms = interest.joined.iter().chain(&interest.other);
            news.rooms = rooms.map(|(room, _)| room.clone()).collect();
            news.add_all_account_data(&step.snapshot, user).await?;
        } else {
            news.add_changes(&step.snapshot, user, &changes).await?;
        }
        Ok(news)
    }

    /// Rooms of which account data changed.
    pub fn rooms_with_account_data(&self) -> impl Iterator<Item = &str> {
        self.account_data.keys().map(String::as_str).filter(|room| !room.is_empty())
    }

    async fn add_changes(
        &mut self,
        snapshot: &Snapshot,
        user: &UserId,
        changes: &[Change],
    ) -> Result<(), SyncError> {
        let mut keys = BTreeSet::new();
        for change in changes {
            if change.table == USER_ROOMS.info().id {
                self.rooms.insert(USER_ROOMS.decode_key(&change.key)?);
            } else if change.table == ACCOUNT_DATA.info().id {
                keys.insert(ACCOUNT_DATA.decode_key(&change.key)?);
            }
        }
        let rows = snapshot.get_many(&ACCOUNT_DATA, user, keys.iter()).await?;
        for ((room, kind), content) in keys.into_iter().zip(rows) {
            // Account data cannot be deleted but by its account's end.
            let content = content.unwrap_or_else(|| "{}".to_owned());
            self.account_data.entry(room).or_default().push((kind, content));
        }
        Ok(())
    }

    async fn add_all_account_data(
        &mut self,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> Result<(), SyncError> {
        for ((room, kind), content) in snapshot.scan(&ACCOUNT_DATA, user, Scan::all()).await? {
            self.account_data.entry(room).or_default().push((kind, content));
        }
        let own = self.account_data.entry(String::new()).or_default();
        own.retain(|(kind, _)| kind != PUSH_RULES);
        // Who has no row has the default rules.
        own.push((PUSH_RULES.to_owned(), push_rules::account_data(snapshot, user).await?));
        Ok(())
    }
}

/// Global account data and messages to the device.
pub(super) fn fill(step: &Step<'_>, news: &News, response: &mut Response) -> Result<(), SyncError> {
    let filter = &step.request.filter.account_data;
    for (kind, content) in news.account_data.get("").into_iter().flatten() {
        if filter.admits_type(kind) {
            response.account_data.events.push(Raw::from_json(account_data(kind, content)?));
        }
    }
    for waiting in &step.messages {
        response.to_device.events.push(to_device_event(&waiting.message)?);
    }
    Ok(())
}

/// A room's account data that changed, or all of it.
pub(super) async fn room_account_data(
    step: &Step<'_>,
    room: &RoomId,
    news: &News,
    whole: bool,
) -> Result<Vec<Raw<AnyRoomAccountDataEvent>>, SyncError> {
    let filter = &step.request.filter.room_account_data;
    let admitted = |kind: &str| filter.admits_type(kind) && filter.admits_room(room);
    let mut events = Vec::new();
    if whole && step.since.is_some() {
        let scan = Scan::prefix(room.as_str());
        let rows = step.snapshot.scan(&ACCOUNT_DATA, &step.request.user, scan).await?;
        for ((_, kind), content) in rows.iter().filter(|((_, kind), _)| admitted(kind)) {
            events.push(Raw::from_json(account_data(kind, content)?));
        }
        return Ok(events);
    }
    let changed = news.account_data.get(room.as_str()).into_iter().flatten();
    for (kind, content) in changed.filter(|(kind, _)| admitted(kind)) {
        events.push(Raw::from_json(account_data(kind, content)?));
    }
    Ok(events)
}

fn account_data(kind: &str, content: &str) -> Result<Box<RawValue>, SyncError> {
    let kind = json!(kind);
    let text = format!("{{\"type\":{kind},\"content\":{content}}}");
    raw(text)
}

fn to_device_event(message: &ToDevice) -> Result<Raw<AnyToDeviceEvent>, SyncError> {
    let (kind, sender) = (json!(message.kind), json!(message.sender));
    let content = &message.content;
    let text = format!("{{\"type\":{kind},\"sender\":{sender},\"content\":{content}}}");
    raw(text).map(Raw::from_json)
}

/// Text that was assembled from stored JSON.
pub(super) fn raw(text: String) -> Result<Box<RawValue>, SyncError> {
    RawValue::from_string(text).map_err(|error| {
        let reason = error.to_string().into();
        millrace_store::Error::Malformed { table: "account_data or to_device", reason }.into()
    })
}

/// The oldest messages to the device that the client has not seen. Those beyond
/// [`MESSAGES_MAX`] are left to the next responses.
pub(super) async fn messages(
    snapshot: &Snapshot,
    request: &SyncRequest,
    since: Option<&SyncToken>,
) -> Result<Vec<Pending>, SyncError> {
    let Some(device) = &request.device else { return Ok(Vec::new()) };
    let seen = since.map_or(0, |since| since.to_device);
    Ok(to_device::pending(snapshot, &request.user, device, seen, MESSAGES_MAX).await?)
}

/// Deletes the messages that the client has seen: a token shows that its response arrived.
pub(super) async fn acknowledge(syncs: &Syncs, request: &SyncRequest) -> Result<(), SyncError> {
    if let (Some(since), Some(device)) = (&request.since, &request.device) {
        let env = &syncs.rooms.env;
        to_device::acknowledge(env, &request.user, device, since.to_device).await?;
    }
    Ok(())
}
