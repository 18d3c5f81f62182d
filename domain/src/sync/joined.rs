//! The rooms that the user is in.

use std::collections::BTreeSet;

use millrace_store::{
    Change, Read, View,
    rows::{receipt::UnreadCount, room::RoomHead},
    state_tree::StateRoot,
    tables::{CURRENT_STATE, TIMELINE},
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    api::client::sync::sync_events::UnreadNotificationsCount,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::{
    Step, SyncError, ephemeral,
    lazy::Afresh,
    partial,
    state::{self, Lazy},
    summary,
    timeline::{self, Timeline},
    user::{self, News},
};
use crate::{
    json::Object,
    rooms::{RoomView, Seen},
};

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

/// So many changes of a room are looked at one by one; beyond, its timeline is searched.
const CHANGES_MAX: usize = 1_000;

/// What happened in one room since the token.
pub(super) struct RoomNews {
    /// The newest changes of its partition, at most [`CHANGES_MAX`].
    pub changes: Vec<Change>,
    /// First live event the client has not seen, were it in the room all the time.
    pub first_new: i64,
    /// Whether the client gets all of the room, as it has nothing of it or asked for it.
    pub whole: bool,
    /// The state that the client has; `None` where it has nothing of the room.
    pub before: Option<StateRoot>,
}

impl RoomNews {
    /// All of a room is new.
    pub const fn whole() -> Self {
        Self { changes: Vec::new(), first_new: 1, whole: true, before: None }
    }
}

/// What was told of the joined rooms, and what else is to be told because of them.
#[derive(Default)]
pub(super) struct Told {
    /// The users whose member events are among it.
    pub members: BTreeSet<OwnedUserId>,
    /// Rooms that may have news, as indexes.
    pub candidates: Vec<usize>,
    /// Rooms whose state has changed.
    pub shifts: Vec<Shift>,
}

/// A joined room whose state has changed since the token.
pub(super) struct Shift {
    /// The room.
    pub room: OwnedRoomId,
    /// Its head.
    pub head: RoomHead,
    /// The state at the token; `None` where the client had nothing of the room.
    pub old: Option<StateRoot>,
}

/// Adds the joined rooms.
pub(super) async fn put(
    step: &Step<'_>,
    news: &News,
    rooms: &mut Object<'_>,
) -> Result<Told, SyncError> {
    let mut told = Told { candidates: candidates(step, news), ..Told::default() };
    let mut join = rooms.object("join");
    for index in told.candidates.clone() {
        let (room, row) = &step.interest.joined[index];
        let Some(view) = step.view(room, row).await? else { continue };
        let joined = JoinedStep { step, room, view };
        let room_news = joined.news(news).await?;
        if room_news.changes.is_empty() && !joined.is_wanted(news, &room_news) {
            continue;
        }
        if partial::is_hidden(step, &joined.view) {
            // All of its members are told of with the room, once.
            continue;
        }
        told.shifts.extend(joined.shift(&room_news));
        if step.request.filter.rooms.admits(room) {
            let mut object = join.object(room.as_str());
            joined.put(news, &room_news, (&mut object, &mut told.members)).await?;
            object.end_unless_empty();
        }
    }
    join.end_unless_empty();
    Ok(told)
}

/// Which joined rooms have changed, of which nothing is told.
pub(super) async fn look(step: &Step<'_>, news: &News) -> Result<Told, SyncError> {
    let mut told = Told { candidates: candidates(step, news), ..Told::default() };
    for index in told.candidates.clone() {
        let (room, row) = &step.interest.joined[index];
        let Some(view) = step.view(room, row).await? else { continue };
        let joined = JoinedStep { step, room, view };
        let room_news = joined.news(news).await?;
        told.shifts.extend(joined.shift(&room_news));
    }
    Ok(told)
}

/// The joined rooms that may have news, as indexes: all at an initial sync.
fn candidates(step: &Step<'_>, news: &News) -> Vec<usize> {
    let count = step.interest.joined.len();
    let Some(since) = step.since else { return (0..count).collect() };
    if step.request.full_state {
        return (0..count).collect();
    }
    let store = &step.syncs.rooms.env.store;
    let mut found: BTreeSet<usize> =
        store.news(&step.interest.joined_partitions, &since.view).into_iter().collect();
    let typing = step.syncs.typing.since(step.ephemeral);
    let named = news.rooms.iter().chain(&typing).map(|room| room.as_str());
    let delivered = news.delivered.keys().map(|room| room.as_str());
    for room in named.chain(news.rooms_with_account_data()).chain(delivered) {
        // Sorted, as it comes from a scan.
        let joined = &step.interest.joined;
        found.extend(joined.binary_search_by(|(other, _)| other.as_str().cmp(room)).ok());
    }
    found.into_iter().collect()
}

struct JoinedStep<'a> {
    step: &'a Step<'a>,
    room: &'a OwnedRoomId,
    view: RoomView<'a>,
}

impl JoinedStep<'_> {
    /// Whether there may be something to tell though no row of the room has changed: it may have
    /// been announced for what is told elsewhere.
    fn is_wanted(&self, user_news: &News, news: &RoomNews) -> bool {
        let typing = || self.step.syncs.typing.since(self.step.ephemeral);
        news.whole
            || user_news.rooms.contains(self.room)
            || user_news.delivered.contains_key(self.room)
            || user_news.rooms_with_account_data().any(|room| room == self.room.as_str())
            || typing().iter().any(|room| room == self.room)
    }

    /// How the room's state has changed, where the client is to be told of changes at all.
    fn shift(&self, news: &RoomNews) -> Option<Shift> {
        let moved = news.before != Some(self.view.head.root);
        let (room, head) = (self.room.clone(), self.view.head.clone());
        (self.step.since.is_some() && moved).then_some(Shift { room, head, old: news.before })
    }

    async fn put(
        &self,
        user_news: &News,
        news: &RoomNews,
        (joined, members): (&mut Object<'_>, &mut BTreeSet<OwnedUserId>),
    ) -> Result<(), SyncError> {
        let timeline = self.timeline(news).await?;
        if let Some(telling) = &self.step.telling {
            telling.note(self.room, &self.view.head, &timeline.events);
        }
        let state = self.state(news, &timeline).await?;
        let told = timeline.events.iter().chain(&state);
        let told = told.filter(|seen| seen.event.pdu.kind == TimelineEventType::RoomMember);
        let told = told.filter_map(|seen| seen.event.pdu.state_key.as_deref());
        members.extend(told.filter_map(|user| UserId::parse(user).ok()));
        let (step, room) = (self.step, self.room);
        if self.members_changed(news, &timeline, &state) {
            let (named, place) = (self.is_named().await?, (&**room, &self.view.head));
            let summary = summary::read(&step.snapshot, place, &step.request.user, named).await?;
            joined.put("summary", &summary);
        }
        self.put_unread(joined, news).await?;
        if news.first_new <= self.view.head.last {
            timeline::put(step, &self.view, &timeline, joined).await?;
        }
        let account_data = user::room_account_data(step, room, user_news, news.whole).await?;
        joined.put_events("account_data", &account_data);
        let ephemeral = ephemeral::of_room(step, room, (news, user_news)).await?;
        joined.put_events("ephemeral", &ephemeral);
        // Last: a room of which there is nothing to tell is not told of for its unchanged state.
        state::put(step, &self.view, &state, joined).await?;
        if !joined.is_empty() {
            // Clients and tests of theirs look into them unasked.
            for (section, told) in [("account_data", &account_data), ("ephemeral", &ephemeral)] {
                if told.is_empty() {
                    joined.put(section, &serde_json::json!({ "events": [] }));
                }
            }
        }
        Ok(())
    }

    async fn news(&self, user_news: &News) -> Result<RoomNews, SyncError> {
        let since = self.step.since_view();
        let whole_all = self.step.since.is_none();
        let is_new = whole_all
            || self.is_new_to_client(user_news, &since).await?
            || partial::was_hidden(self.step, &self.view, &since).await?;
        if is_new {
            return Ok(RoomNews::whole());
        }
        let news = news_since(self.step, self.room, &self.view.head, &since).await?;
        Ok(RoomNews { whole: self.step.request.full_state, ..news })
    }

    /// Whether the user was not in the room at the token, and so has nothing of it.
    async fn is_new_to_client(&self, user_news: &News, since: &View) -> Result<bool, SyncError> {
        if !user_news.rooms.contains(self.room) {
            return Ok(false);
        }
        let first_new = first_after(self.step, self.room, &self.view.head, since).await?;
        let root = root_before(self.step, self.room, first_new).await?;
        let user = self.step.request.user.as_str();
        let rooms = &self.step.syncs.rooms;
        let place = ("m.room.member", user);
        let Some(number) = rooms.states.get(&self.step.snapshot, self.room, root, place).await?
        else {
            return Ok(true);
        };
        let version = &self.view.head.version;
        let event = rooms.events.load_one(&self.step.snapshot, self.room, version, number).await?;
        let member: Result<MemberContent, _> = event.pdu.content_as();
        Ok(!member.is_ok_and(|member| member.membership == MembershipState::Join))
    }

    async fn timeline(&self, news: &RoomNews) -> Result<Timeline, SyncError> {
        let filter = &self.step.request.filter;
        let wanted = timeline::Wanted {
            first_new: news.first_new,
            last: self.view.head.last,
            limit: filter.timeline_limit,
            filter: &filter.timeline,
        };
        let mut timeline = timeline::read(&self.view, &wanted).await?;
        // Of a room that is new to it a client has nothing that could join on to this.
        timeline.limited |= self.step.since.is_some() && news.before.is_none();
        Ok(timeline)
    }

    async fn state(&self, news: &RoomNews, timeline: &Timeline) -> Result<Vec<Seen>, SyncError> {
        let (step, request) = (self.step, self.step.request);
        let old = news.before.filter(|_| !news.whole);
        let new = match old {
            _ if request.state_after => self.view.head.root,
            // All that is new is in the timeline.
            Some(old) if !timeline.limited => old,
            _ => timeline.state_before,
        };
        let Some(lazy_step) = &step.lazy else {
            let wanted = state::Wanted { old, new, filter: &request.filter.state, lazy: None };
            let state = state::read(&step.syncs.rooms, &self.view, &wanted).await?;
            return self.with_turned_over(state, new, timeline).await;
        };
        let renewed = news.whole || timeline.limited;
        let known = (!renewed && !request.filter.redundant_members).then_some(&*lazy_step.known);
        let senders = timeline.events.iter().map(|seen| seen.event.pdu.sender.clone());
        let lazy = Some(Lazy { members: senders.chain([request.user.clone()]).collect(), known });
        let wanted = state::Wanted { old, new, filter: &request.filter.state, lazy };
        let mut state = state::read(&step.syncs.rooms, &self.view, &wanted).await?;
        partial::add_senders(step, &self.view, timeline, (&mut state, known)).await?;
        if !news.whole {
            partial::add_turned(step, &self.view, &step.since_view(), &mut state).await?;
        }
        let state = self.with_turned_over(state, new, timeline).await?;
        let told = state.iter().chain(&timeline.events);
        let told = told.filter(|seen| seen.event.pdu.kind == TimelineEventType::RoomMember);
        let afresh = if renewed { Afresh::Yes } else { Afresh::No };
        lazy_step.told.lock().add(self.room, afresh, told.map(|seen| seen.event.number));
        Ok(state)
    }

    /// Adds what the timeline does not show, though it made it so: where a room has forks, an event
    /// that joins them may turn over state that none of the events shown sets.
    async fn with_turned_over(
        &self,
        mut state: Vec<Seen>,
        start: StateRoot,
        timeline: &Timeline,
    ) -> Result<Vec<Seen>, SyncError> {
        let begins_elsewhere = !timeline.limited && timeline.state_before != start;
        if !timeline.forked && (!begins_elsewhere || self.step.request.state_after) {
            return Ok(state);
        }
        let (snapshot, now) = (&self.step.snapshot, self.view.head.root);
        let states = &self.step.syncs.rooms.states;
        let changes = states.diff(snapshot, self.room, start, now).await?;
        let told: BTreeSet<u64> =
            state.iter().chain(&timeline.events).map(|seen| seen.event.number).collect();
        let turned = changes.into_iter().filter_map(|change| change.new);
        let turned: Vec<u64> = turned.filter(|number| !told.contains(number)).collect();
        let filter = &self.step.request.filter.state;
        let turned = self.view.state_events(&turned).await?.into_iter();
        state.extend(turned.filter(|seen| filter.admits_in_room(&seen.event.pdu)));
        Ok(state)
    }

    fn members_changed(&self, news: &RoomNews, timeline: &Timeline, state: &[Seen]) -> bool {
        let concerns = |seen: &Seen| {
            matches!(
                seen.event.pdu.kind,
                TimelineEventType::RoomMember
                    | TimelineEventType::RoomName
                    | TimelineEventType::RoomCanonicalAlias
            )
        };
        news.whole || state.iter().any(concerns) || timeline.events.iter().any(concerns)
    }

    async fn is_named(&self) -> Result<bool, SyncError> {
        let places = [("m.room.name", ""), ("m.room.canonical_alias", "")];
        let named = self.step.snapshot.get_many(&CURRENT_STATE, self.room, places).await?;
        Ok(named.iter().any(Option::is_some))
    }

    async fn put_unread(&self, joined: &mut Object<'_>, news: &RoomNews) -> Result<(), SyncError> {
        if !news.whole && news.changes.is_empty() {
            return Ok(());
        }
        let (step, user) = (self.step, &self.step.request.user);
        let place = (&**self.room, &self.view.head);
        let unreads = &step.syncs.unreads;
        let counts = unreads.counts(&step.syncs.rooms, &step.snapshot, user, place).await?;
        if step.request.filter.threads {
            joined.put("unread_notifications", &unread(counts.main));
            let mut threads = joined.object("unread_thread_notifications");
            for (root, count) in &counts.threads {
                threads.put(root.as_str(), &unread(*count));
            }
            threads.end_unless_empty();
        } else {
            joined.put("unread_notifications", &unread(counts.total()));
        }
        Ok(())
    }
}

fn unread(count: UnreadCount) -> UnreadNotificationsCount {
    let mut wire = UnreadNotificationsCount::new();
    wire.notification_count = Some(UInt::new_saturating(count.notify));
    wire.highlight_count = Some(UInt::new_saturating(count.highlight));
    wire
}

/// What happened in a room of which the client has all that `since` covers.
pub(super) async fn news_since(
    step: &Step<'_>,
    room: &RoomId,
    head: &RoomHead,
    since: &View,
) -> Result<RoomNews, SyncError> {
    let changes = step.snapshot.changes(room, since, CHANGES_MAX).await?;
    let first_new = if changes.len() < CHANGES_MAX {
        let live = changes.iter().filter(|change| change.table == TIMELINE.info().id);
        let places = live.filter_map(|change| TIMELINE.decode_key(&change.key).ok());
        let first = places.filter(|(_, k)| *k == 0).map(|(n, _)| n).min();
        first.unwrap_or(head.last + 1)
    } else {
        first_after(step, room, head, since).await?
    };
    let before = Some(root_before(step, room, first_new).await?);
    Ok(RoomNews { changes, first_new, whole: false, before })
}

/// `n` of the first live event that `view` does not cover: the live rows it covers are a prefix.
pub(super) async fn first_after(
    step: &Step<'_>,
    room: &RoomId,
    head: &RoomHead,
    view: &View,
) -> Result<i64, SyncError> {
    let (mut low, mut high) = (1, head.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = step.snapshot.get_stamped(&TIMELINE, room, (middle, 0)).await?;
        match row {
            Some((position, _)) if !view.covers(position) => high = middle,
            _ => low = middle + 1,
        }
    }
    Ok(low)
}

/// The room's current state just before live event `n`.
pub(super) async fn root_before(
    step: &Step<'_>,
    room: &RoomId,
    n: i64,
) -> Result<StateRoot, SyncError> {
    let row = step.snapshot.get(&TIMELINE, room, (n - 1, 0)).await?;
    Ok(row.map_or(StateRoot::EMPTY, |row| row.after))
}
