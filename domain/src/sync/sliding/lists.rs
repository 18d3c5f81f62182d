//! The rooms of a user in the order of their last event, and the windows of lists on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_store::{
    Read,
    rows::room::UserRoom,
    tables::{ROOM_HEAD, USER_ROOMS},
};
use ruma::{OwnedRoomId, RoomId, events::room::member::MembershipState};
use serde::Deserialize;

use super::{
    connections::{Shown, Telling},
    facts::{self, Facts},
    request::{Filters, List, RoomConfig, SlidingRequest},
    user_facts::{self, Tags},
};
use crate::sync::{Step, SyncError, outside};

/// A room that the user has to do with.
pub(super) struct Entry<'a> {
    /// The room.
    pub room: &'a OwnedRoomId,
    /// As the user has it.
    pub row: &'a UserRoom,
    /// What it is, and when something happened in it; to who is not in it, when that came to be.
    pub facts: Arc<Facts>,
    /// Its place among the joined rooms of the user; `None` where they are not in it.
    pub joined: Option<usize>,
}

/// A room that is wanted.
pub(super) struct Wanted<'e> {
    /// The room.
    pub entry: &'e Entry<'e>,
    /// What of it.
    pub config: Arc<RoomConfig>,
    /// The lists that show it, by their places among the lists of the request.
    pub lists: BTreeSet<usize>,
    /// Whether it is subscribed to.
    pub subscribed: bool,
}

/// What lists show.
pub(super) struct Windows<'e> {
    /// How many rooms each list has, in the order of the request's lists.
    pub counts: Vec<usize>,
    /// The rooms that any of them shows, or that are subscribed to.
    pub rooms: Vec<Wanted<'e>>,
}

/// The part of stripped state that filters look at.
#[derive(Deserialize)]
struct StrippedEvent {
    #[serde(rename = "type")]
    kind: String,
    content: StrippedContent,
}

#[derive(Deserialize)]
struct StrippedContent {
    #[serde(rename = "type")]
    room_type: Option<String>,
}

#[derive(Deserialize)]
struct ChildContent {
    via: Option<Vec<String>>,
}

/// The user's rooms as far as a request asks for any, those with the newest event first. Those that they left are among them where
/// somebody else made them leave, or the client does not know it yet.
pub(super) async fn entries<'a>(
    step: &'a Step<'_>,
    request: &SlidingRequest,
    telling: &Telling,
) -> Result<Vec<Entry<'a>>, SyncError> {
    // Without lists only subscriptions count; a connection for messages to the device has neither.
    let is_asked_for =
        |room: &RoomId| !request.lists.is_empty() || request.subscriptions.contains_key(room);
    let mut entries = Vec::new();
    for (index, (room, row)) in step.interest.joined.iter().enumerate() {
        if !is_asked_for(room) {
            continue;
        }
        let facts = facts::of(step.syncs, &step.snapshot, room).await?;
        entries.push(Entry { room, row, facts, joined: Some(index) });
    }
    for (room, row) in &step.interest.other {
        if is_asked_for(room) && is_listed(step, telling, (room, row)).await? {
            let facts = Arc::new(facts_outside(step, room, row).await?);
            entries.push(Entry { room, row, facts, joined: None });
        }
    }
    entries.sort_by(|a, b| b.facts.last_event.cmp(&a.facts.last_event).then(a.room.cmp(b.room)));
    Ok(entries)
}

/// Whether a room that the user is not in is among their rooms.
async fn is_listed(
    step: &Step<'_>,
    telling: &Telling,
    (room, row): (&RoomId, &UserRoom),
) -> Result<bool, SyncError> {
    let is_shown = telling.of(room).is_some_and(|told| told.shown != Shown::Left);
    Ok(match row.membership {
        _ if row.forgotten => false,
        MembershipState::Invite => outside::is_wanted(step, row).await?,
        MembershipState::Knock => true,
        _ => is_shown || (row.was_joined && row.sender != step.request.user),
    })
}

async fn facts_outside(step: &Step<'_>, room: &RoomId, row: &UserRoom) -> Result<Facts, SyncError> {
    let stamped = step.snapshot.get_stamped(&USER_ROOMS, &step.request.user, room).await?;
    let since = stamped.map_or(0, |(position, _)| position.seq);
    if row.was_joined {
        let facts = facts::of(step.syncs, &step.snapshot, room).await?;
        return Ok(Facts { last_event: since, last_activity: since, ..(*facts).clone() });
    }
    let stripped = row.stripped.iter();
    let stripped = stripped.filter_map(|text| serde_json::from_str::<StrippedEvent>(text).ok());
    let (mut room_type, mut encrypted) = (None, false);
    for event in stripped {
        match event.kind.as_str() {
            "m.room.create" => room_type = event.content.room_type,
            "m.room.encryption" => encrypted = true,
            _ => {}
        }
    }
    Ok(Facts { last_event: since, last_activity: since, room_type, encrypted })
}

/// What filters compare rooms with, as far as any filter asks for it.
struct Background {
    direct: Arc<BTreeSet<String>>,
    tags: Option<Arc<Tags>>,
    /// The children of spaces that the user is in.
    children: BTreeMap<OwnedRoomId, BTreeSet<String>>,
}

impl Background {
    async fn read(step: &Step<'_>, lists: &BTreeMap<String, List>) -> Result<Self, SyncError> {
        let filters: Vec<_> = lists.values().filter_map(|list| list.filters.as_ref()).collect();
        let by_tags = |filters: &&Filters| filters.tags.is_some() || filters.not_tags.is_some();
        let tags = match filters.iter().any(by_tags) {
            true => Some(user_facts::tags(step).await?),
            false => None,
        };
        let mut children = BTreeMap::new();
        for space in filters.iter().flat_map(|filters| filters.spaces.iter().flatten()) {
            let joined = &step.interest.joined;
            let is_joined = joined.binary_search_by(|(room, _)| room.cmp(space)).is_ok();
            if is_joined && !children.contains_key(space) {
                children.insert(space.clone(), children_of(step, space).await?);
            }
        }
        Ok(Self { direct: user_facts::direct(step).await?, tags, children })
    }

    fn admits(&self, filters: &Filters, entry: &Entry<'_>) -> bool {
        let room = entry.room.as_str();
        let is = |wanted: Option<bool>, given: bool| wanted.is_none_or(|wanted| wanted == given);
        let invited = entry.row.membership == MembershipState::Invite;
        let kind = &entry.facts.room_type;
        let has_any = |tags: &[String]| {
            let own = self.tags.as_ref().and_then(|all| all.get(room));
            own.is_some_and(|own| tags.iter().any(|tag| own.contains(tag)))
        };
        let of_any = |spaces: &[OwnedRoomId]| {
            let children = spaces.iter().filter_map(|space| self.children.get(space));
            children.into_iter().any(|children| children.contains(room))
        };
        is(filters.is_dm, self.direct.contains(room))
            && is(filters.is_encrypted, entry.facts.encrypted)
            && is(filters.is_invite, invited)
            && filters.room_types.as_ref().is_none_or(|kinds| kinds.contains(kind))
            && !filters.not_room_types.as_ref().is_some_and(|kinds| kinds.contains(kind))
            && filters.tags.as_ref().is_none_or(|tags| has_any(tags))
            && !filters.not_tags.as_ref().is_some_and(|tags| has_any(tags))
            && filters.spaces.as_ref().is_none_or(|spaces| of_any(spaces))
    }
}

/// The rooms that a space names as its children.
async fn children_of(step: &Step<'_>, space: &RoomId) -> Result<BTreeSet<String>, SyncError> {
    let rooms = &step.syncs.rooms;
    let Some(head) = step.snapshot.get(&ROOM_HEAD, space, ()).await? else {
        return Ok(BTreeSet::new());
    };
    let listed = rooms.states.list(&step.snapshot, space, head.root, Some("m.space.child")).await?;
    let numbers: Vec<u64> = listed.iter().map(|(_, number)| *number).collect();
    let events = rooms.events.load(&step.snapshot, space, &head.version, &numbers).await?;
    let children = listed.into_iter().zip(events);
    let children = children.filter(|(_, event)| {
        // Without a way there it is no child (spec: m.space.child).
        event.pdu.content_as::<ChildContent>().is_ok_and(|content| content.via.is_some())
    });
    Ok(children.map(|(key, _)| key.0.state_key).collect())
}

/// What the lists and subscriptions of a request show of the rooms.
pub(super) async fn windows<'e>(
    step: &Step<'_>,
    request: &SlidingRequest,
    entries: &'e [Entry<'e>],
) -> Result<Windows<'e>, SyncError> {
    let background = Background::read(step, &request.lists).await?;
    let mut counts = Vec::with_capacity(request.lists.len());
    let mut shown: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (place, list) in request.lists.values().enumerate() {
        let admitted = entries.iter().enumerate().filter(|(_, entry)| {
            list.filters.as_ref().is_none_or(|filters| background.admits(filters, entry))
        });
        let mut count = 0;
        for (index, _) in admitted {
            if list.shows(count) {
                shown.entry(index).or_default().insert(place);
            }
            count += 1;
        }
        counts.push(count);
    }
    for (index, entry) in entries.iter().enumerate() {
        if request.subscriptions.contains_key(entry.room) {
            shown.entry(index).or_default();
        }
    }
    let mut joined = Joined { request, known: BTreeMap::new() };
    let rooms = shown.into_iter().map(|(index, lists)| {
        let entry = &entries[index];
        let subscription = request.subscriptions.get(entry.room);
        let config = joined.config(&lists, subscription);
        Wanted { entry, config, lists, subscribed: subscription.is_some() }
    });
    Ok(Windows { rooms: rooms.collect(), counts })
}

/// Joins what several lists want, once for each set of lists.
struct Joined<'r> {
    request: &'r SlidingRequest,
    known: BTreeMap<BTreeSet<usize>, Arc<RoomConfig>>,
}

impl Joined<'_> {
    fn config(
        &mut self,
        lists: &BTreeSet<usize>,
        subscription: Option<&Arc<RoomConfig>>,
    ) -> Arc<RoomConfig> {
        let of_lists = self.of_lists(lists);
        match (of_lists, subscription) {
            (Some(of_lists), Some(own)) => Arc::new(of_lists.join(own)),
            (Some(one), None) => one,
            (None, own) => Arc::clone(own.expect("whatever is shown has a reason")),
        }
    }

    fn of_lists(&mut self, lists: &BTreeSet<usize>) -> Option<Arc<RoomConfig>> {
        if let Some(config) = self.known.get(lists) {
            return Some(Arc::clone(config));
        }
        let all: Vec<_> = self.request.lists.values().collect();
        let mut configs = lists.iter().map(|place| Arc::clone(&all[*place].config));
        let first = configs.next()?;
        let config = configs.fold(first, |joined, other| Arc::new(joined.join(&other)));
        self.known.insert(lists.clone(), Arc::clone(&config));
        Some(config)
    }
}
