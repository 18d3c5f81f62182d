//! What belongs to the user and the device: account data and messages from other devices.

use std::collections::{BTreeMap, BTreeSet};

use millrace_model::filter::EventFilter;
use millrace_store::{
    Change, Read, Scan, Snapshot,
    rows::user::ToDevice,
    tables::{
        ACCOUNT_DATA, DEVICE_STREAM, SIGNING_KEYS_CHANGED, THREAD_SUBSCRIPTIONS, USER_ROOMS,
        USER_SIGNATURES,
    },
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::{
    Step, SyncError, SyncRequest, Syncs,
    deliveries::{self, Delivered},
};
use crate::{
    account_data::PUSH_RULES,
    json::Object,
    push_rules,
    to_device::{self, Pending},
};

/// So many changes of a user's partition are looked at one by one; beyond, all of it is new.
const CHANGES_MAX: usize = 5_000;
/// So many messages to the device are in one response.
const MESSAGES_MAX: usize = 100;

/// What happened in the user's own partition since the token.
#[derive(Default)]
pub(super) struct News {
    /// Rooms whose membership row changed.
    pub rooms: BTreeSet<OwnedRoomId>,
    /// Account data that changed: type and content, by room; `""` for the user's own.
    account_data: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether the user's own devices or keys changed.
    pub devices: bool,
    /// Whether what the user wants to hear of threads changed.
    pub threads: bool,
    /// Users whose keys the user has signed.
    pub signed: BTreeSet<OwnedUserId>,
    /// How far the user's messages have come, by room.
    pub delivered: Delivered,
}

impl News {
    /// Reads what changed; at an initial sync, all account data.
    pub async fn read(step: &Step<'_>) -> Result<Self, SyncError> {
        let mut news = Self { delivered: deliveries::read(step).await?, ..Self::default() };
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
            news.devices = true;
            news.threads = true;
            news.add_all_account_data(&step.snapshot, user).await?;
        }
        // Of account data that was deleted, only the changes tell.
        news.add_changes(&step.snapshot, user, &changes).await?;
        Ok(news)
    }

    /// Rooms of which account data changed.
    pub fn rooms_with_account_data(&self) -> impl Iterator<Item = &str> {
        self.account_data.keys().map(String::as_str).filter(|room| !room.is_empty())
    }

    /// The user's own account data that changed, or all of it, as JSON.
    pub fn global_account_data(&self, filter: &EventFilter) -> Vec<String> {
        let changed = self.account_data.get("").into_iter().flatten();
        let admitted = changed.filter(|(kind, _)| filter.admits_type(kind));
        admitted.map(|(kind, content)| account_data(kind, content)).collect()
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
            } else if change.table == THREAD_SUBSCRIPTIONS.info().id {
                self.threads = true;
            } else if change.table == USER_SIGNATURES.info().id {
                self.signed.insert(USER_SIGNATURES.decode_key(&change.key)?.0);
            } else if [DEVICE_STREAM.info().id, SIGNING_KEYS_CHANGED.info().id]
                .contains(&change.table)
            {
                self.devices = true;
            }
        }
        let rows = snapshot.get_many(&ACCOUNT_DATA, user, keys.iter()).await?;
        for ((room, kind), content) in keys.into_iter().zip(rows) {
            // What was deleted is told as empty.
            let content = content.unwrap_or_else(|| "{}".to_owned());
            self.account_data.entry(room).or_default().insert(kind, content);
        }
        Ok(())
    }

    /// As if all account data were new.
    pub async fn add_all_account_data(
        &mut self,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> Result<(), SyncError> {
        for ((room, kind), content) in snapshot.scan(&ACCOUNT_DATA, user, Scan::all()).await? {
            self.account_data.entry(room).or_default().insert(kind, content);
        }
        let own = self.account_data.entry(String::new()).or_default();
        // Who has no row has the default rules.
        own.insert(PUSH_RULES.to_owned(), push_rules::account_data(snapshot, user).await?);
        Ok(())
    }
}

/// Global account data and messages to the device.
pub(super) fn put(step: &Step<'_>, news: &News, body: &mut Object<'_>) {
    body.put_events("account_data", &news.global_account_data(&step.request.filter.account_data));
    let messages = step.messages.iter().map(|waiting| to_device_event(&waiting.message));
    body.put_events("to_device", &messages.collect::<Vec<_>>());
}

/// A room's account data that changed, or all of it, as JSON.
pub(super) async fn room_account_data(
    step: &Step<'_>,
    room: &RoomId,
    news: &News,
    whole: bool,
) -> Result<Vec<String>, SyncError> {
    let filter = &step.request.filter.room_account_data;
    let admitted = |kind: &str| filter.admits_type(kind) && filter.admits_room(room);
    if whole && step.since.is_some() {
        let scan = Scan::prefix(room.as_str());
        let rows = step.snapshot.scan(&ACCOUNT_DATA, &step.request.user, scan).await?;
        let rows = rows.iter().filter(|((_, kind), _)| admitted(kind));
        return Ok(rows.map(|((_, kind), content)| account_data(kind, content)).collect());
    }
    let changed = news.account_data.get(room.as_str()).into_iter().flatten();
    let changed = changed.filter(|(kind, _)| admitted(kind));
    Ok(changed.map(|(kind, content)| account_data(kind, content)).collect())
}

fn account_data(kind: &str, content: &str) -> String {
    let mut text = String::new();
    let mut event = Object::begin(&mut text);
    event.put_str("type", kind);
    event.field("content").push_str(content);
    event.end();
    text
}

pub(super) fn to_device_event(message: &ToDevice) -> String {
    let mut text = String::new();
    let mut event = Object::begin(&mut text);
    event.put_str("type", &message.kind);
    event.put_str("sender", message.sender.as_str());
    event.field("content").push_str(&message.content);
    event.end();
    text
}

/// The oldest messages to the device after the `seen`th of its queue. Those beyond
/// [`MESSAGES_MAX`] are left to the next responses.
pub(super) async fn messages(
    snapshot: &Snapshot,
    request: &SyncRequest,
    seen: u64,
) -> Result<Vec<Pending>, SyncError> {
    let Some(device) = &request.device else { return Ok(Vec::new()) };
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
