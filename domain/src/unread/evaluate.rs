//! Evaluating events for one recipient, with what recipients have in common made once.

use std::{collections::BTreeSet, sync::Arc};

use lru::LruCache;
use millrace_model::{
    relations::{Relation, RelationKind},
    rules::{
        power_levels::PowerLevels,
        push::{self, Outcome, PushEvent, PushRoom, Recipient},
        room_version,
    },
};
use millrace_store::{
    News, PartitionId, Read, Snapshot, View,
    rows::room::RoomHead,
    state_tree::StateRoot,
    tables::{CURRENT_STATE, MEMBERS},
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, push::Ruleset};
use serde::Deserialize;

use super::UnreadError;
use crate::{
    account_data, push_rules,
    rooms::{Event, Rooms},
    thread_subscriptions,
};

/// So many flattened events are remembered.
const EVENTS_REMEMBERED: usize = 2048;
/// The power levels of so many rooms are remembered.
const ROOMS_REMEMBERED: usize = 4096;

/// The preferences of so many users are remembered.
const USERS_REMEMBERED: usize = 20_000;

/// What evaluations share.
pub(super) struct Shared {
    preferences: Mutex<LruCache<OwnedUserId, Arc<Preferences>>>,
    flattened: Mutex<LruCache<u64, Arc<PushEvent>>>,
    levels: Mutex<LruCache<OwnedRoomId, (StateRoot, Arc<PowerLevels>)>>,
}

fn cache<K: std::hash::Hash + Eq, V>(size: usize) -> Mutex<LruCache<K, V>> {
    Mutex::new(LruCache::new(std::num::NonZeroUsize::new(size).expect("sizes are not zero")))
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            preferences: cache(USERS_REMEMBERED),
            flattened: cache(EVENTS_REMEMBERED),
            levels: cache(ROOMS_REMEMBERED),
        }
    }
}

/// What a user wants to be notified of.
struct Preferences {
    rules: Ruleset,
    ignored: BTreeSet<OwnedUserId>,
    /// Up to when this is known to be so.
    view: View,
}

/// Everything that decides what a room's events mean to one recipient, but the events.
pub(super) struct Evaluator<'a> {
    shared: &'a Shared,
    user: &'a UserId,
    preferences: Arc<Preferences>,
    display_name: Option<String>,
    levels: Option<Arc<PowerLevels>>,
    member_count: u64,
    snapshot: &'a Snapshot,
    room: &'a RoomId,
}

#[derive(Deserialize)]
struct MemberContent {
    displayname: Option<String>,
}

impl<'a> Evaluator<'a> {
    /// Gathers what is needed to evaluate events of a room for `user`.
    pub async fn new(
        shared: &'a Shared,
        rooms: &Rooms,
        snapshot: &'a Snapshot,
        user: &'a UserId,
        (room, head): (&'a RoomId, &RoomHead),
    ) -> Result<Self, UnreadError> {
        let preferences = shared.preferences(rooms, snapshot, user).await?;
        let display_name = display_name(rooms, snapshot, user, (room, head)).await?;
        let levels = shared.levels(rooms, snapshot, (room, head)).await?;
        let member_count = head.joined;
        Ok(Self { shared, user, preferences, display_name, levels, member_count, snapshot, room })
    }

    /// What an event means; `None` where it does not notify.
    pub async fn evaluate(&self, event: &Event) -> millrace_store::Result<Option<Outcome<'_>>> {
        let Preferences { rules, ignored, .. } = &*self.preferences;
        if event.pdu.sender == *self.user || ignored.contains(&event.pdu.sender) {
            return Ok(None);
        }
        let thread = Relation::of(&event.pdu).filter(|it| it.kind == RelationKind::Thread);
        let thread_wanted = match &thread {
            Some(thread) => {
                let key = (self.room, &*thread.parent);
                thread_subscriptions::wanted(self.snapshot, self.user, key).await?
            }
            None => None,
        };
        let flat = self.shared.flat(event);
        let levels = self.levels.as_deref();
        let room = PushRoom { member_count: self.member_count, power_levels: levels };
        let display_name = self.display_name.as_deref();
        let recipient = Recipient { user: self.user, display_name, thread_wanted };
        let outcome = push::evaluate(rules, &flat, room, recipient);
        Ok(outcome.notify.then_some(outcome))
    }
}

/// The display name of a member in the room.
async fn display_name(
    rooms: &Rooms,
    snapshot: &Snapshot,
    user: &UserId,
    (room, head): (&RoomId, &RoomHead),
) -> Result<Option<String>, UnreadError> {
    let Some(member) = snapshot.get(&MEMBERS, room, user).await? else { return Ok(None) };
    let event = rooms.events.load_one(snapshot, room, &head.version, member.event).await?;
    let content = event.pdu.content_as::<MemberContent>().ok();
    Ok(content.and_then(|content| content.displayname))
}

impl Shared {
    /// A user's preferences. They are good as long as there is no news of the user.
    async fn preferences(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> millrace_store::Result<Arc<Preferences>> {
        let partition = PartitionId::of::<OwnedUserId>(&user);
        if let Some(known) = self.preferences.lock().get(user)
            && rooms.env.store.news_of(partition, &known.view) == News::None
        {
            return Ok(Arc::clone(known));
        }
        let rules = push_rules::ruleset(snapshot, user).await?;
        let ignored = account_data::ignored(snapshot, user).await?;
        let view = snapshot.view().clone();
        let preferences = Arc::new(Preferences { rules, ignored, view });
        self.preferences.lock().put(user.to_owned(), Arc::clone(&preferences));
        Ok(preferences)
    }

    fn flat(&self, event: &Event) -> Arc<PushEvent> {
        let mut flattened = self.flattened.lock();
        let flat = flattened.get_or_insert(event.number, || Arc::new(PushEvent::new(&event.pdu)));
        Arc::clone(flat)
    }

    async fn levels(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
    ) -> Result<Option<Arc<PowerLevels>>, UnreadError> {
        if let Some((root, levels)) = self.levels.lock().get(room)
            && *root == head.root
        {
            return Ok(Some(Arc::clone(levels)));
        }
        let Some(rules) = room_version::rules(&head.version) else { return Ok(None) };
        let load = |number| rooms.events.load_one(snapshot, room, &head.version, number);
        let create = load(head.create).await?;
        let levels = match snapshot.get(&CURRENT_STATE, room, ("m.room.power_levels", "")).await? {
            Some(number) => Some(load(number).await?),
            None => None,
        };
        let levels = levels.as_ref().map(|event| &event.pdu);
        let levels = Arc::new(PowerLevels::new(&create.pdu, levels, &rules.authorization));
        self.levels.lock().put(room.to_owned(), (head.root, Arc::clone(&levels)));
        Ok(Some(levels))
    }
}
