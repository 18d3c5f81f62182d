//! One room of a response.

use std::{collections::BTreeSet, sync::Arc};

use millrace_model::{PageToken, TimelineIndex};
use millrace_store::{
    View,
    rows::room::UserRoom,
    state_tree::{Difference, StateRoot},
    tables::RECEIPTS,
};
use ruma::{
    OwnedEventId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use rustc_hash::FxHashSet;

use super::{
    connections::{Shown, Told, Until},
    lists::{Entry, Wanted},
    naming,
};
use crate::{
    json::{Object, push_array},
    rooms::{RoomView, Seen},
    sync::{
        Step, SyncError,
        joined::{RoomNews, first_after, news_since, root_before},
        partial,
        timeline::{self, Timeline},
    },
};

const MEMBER: &str = "m.room.member";
/// So many members are noted as known of a room; then they are told again.
const MEMBERS_MAX: usize = 1_000;

/// Adds a room as far as there is something to tell of it. Returns what the client was told of it, this
/// response included, and what happened in it; `None` where it is not to be told of yet.
pub(super) async fn put(
    step: &Step<'_>,
    wanted: &Wanted<'_>,
    (told, is_direct): (Option<&Told>, bool),
    rooms: &mut Object<'_>,
) -> Result<Option<(Told, RoomNews)>, SyncError> {
    let Entry { room, row, .. } = wanted.entry;
    if wanted.entry.joined.is_none() && !row.was_joined {
        put_outside(step, wanted, rooms).await?;
        let shown = if is_open(row) { Shown::Stripped } else { Shown::Left };
        return Ok(Some((told_now(wanted, shown, told), RoomNews::whole())));
    }
    let Some(view) = step.view(room, row).await? else { return Ok(None) };
    let required = &wanted.config.required_state;
    if view.head.partial.is_some() && required.wants_all_members() {
        // As a sync does for who does not load members lazily.
        return Ok(None);
    }
    let end = match wanted.entry.joined {
        Some(_) => (view.head.root, view.head.last),
        // As of the leaving: what came later is not the user's to see.
        None => (root_before(step, room, row.n + 1).await?, row.n),
    };
    let told = told.filter(|told| told.shown == Shown::Room);
    let news = match told {
        Some(told) => news_since(step, room, &view.head, &since(step, told)).await?,
        None => RoomNews::whole(),
    };
    let room = RoomStep { step, wanted, view, end, told, news };
    let mut object = rooms.object(wanted.entry.room.as_str());
    let looked = room.put(is_direct, &mut object).await?;
    object.end_unless_empty();
    Ok(Some(looked))
}

/// Up to when a client was told of a room.
fn since(step: &Step<'_>, told: &Told) -> View {
    match &told.until {
        Until::Now => step.since_view(),
        Until::View(view) => view.clone(),
    }
}

/// Adds a room that the user was never in: an invitation or a knock, or the end of one.
async fn put_outside(
    step: &Step<'_>,
    wanted: &Wanted<'_>,
    rooms: &mut Object<'_>,
) -> Result<(), SyncError> {
    let Entry { room, row, facts, .. } = wanted.entry;
    let mut object = rooms.object(room.as_str());
    object.put("initial", &true);
    object.put_str("membership", row.membership.as_str());
    object.put("bump_stamp", &facts.last_activity);
    if is_open(row) {
        push_array(object.field("invite_state"), &row.stripped);
    } else {
        let own = own_leaving(step, wanted).await?;
        for field in ["required_state", "timeline"] {
            push_array(object.field(field), &own);
        }
    }
    object.end();
    Ok(())
}

/// Whether somebody may still answer an invitation or a knock.
const fn is_open(row: &UserRoom) -> bool {
    matches!(row.membership, MembershipState::Invite | MembershipState::Knock)
}

/// The event by which an invitation or knock ended, as the user sees it.
async fn own_leaving(step: &Step<'_>, wanted: &Wanted<'_>) -> Result<Vec<String>, SyncError> {
    let Entry { room, row, .. } = wanted.entry;
    if row.event == 0 {
        return Ok(row.stripped.clone());
    }
    let Some(view) = step.view(room, row).await? else { return Ok(row.stripped.clone()) };
    let seen = view.state_events(&[row.event]).await?;
    let events = view.render_as(&seen, step.request.filter.form).await?;
    Ok(events.into_iter().map(|event| event.get().to_owned()).collect())
}

fn told_now(wanted: &Wanted<'_>, shown: Shown, before: Option<&Told>) -> Told {
    Told {
        until: Until::Now,
        shown,
        timeline: wanted.config.timeline_limit,
        config: Arc::clone(&wanted.config),
        members: Arc::default(),
        receipts: before.is_some_and(|told| told.receipts),
        account_data: before.is_some_and(|told| told.account_data),
    }
}

/// A room whose history the user may read.
struct RoomStep<'a, 's> {
    step: &'a Step<'s>,
    wanted: &'a Wanted<'a>,
    view: RoomView<'a>,
    /// The state that the user is to have, and the last event of theirs.
    end: (StateRoot, i64),
    /// What the client was told of it; `None` where it has nothing.
    told: Option<&'a Told>,
    news: RoomNews,
}

impl RoomStep<'_, '_> {
    async fn put(
        self,
        is_direct: bool,
        object: &mut Object<'_>,
    ) -> Result<(Told, RoomNews), SyncError> {
        let config = &*self.wanted.config;
        let expanded = self.told.is_some_and(|told| config.timeline_limit > told.timeline);
        let timeline = self.timeline(expanded).await?;
        if let Some(telling) = &self.step.telling {
            telling.note(self.wanted.entry.room, &self.view.head, &timeline.events);
        }
        let changes = self.changes().await?;
        let lazy = self.lazy_members(&timeline, expanded).await?;
        let state = self.state(&timeline, &changes, &lazy).await?;
        let whole = self.told.is_none();
        if whole {
            object.put("initial", &true);
        }
        let (end, is_joined) = (self.end.0, self.wanted.entry.joined.is_some());
        naming::put(self.step, &self.view, (end, changes.as_deref()), is_joined, object).await?;
        if !state.is_empty() {
            self.put_events(object.field("required_state"), &state).await?;
        }
        self.put_timeline(&timeline, (whole, expanded), object).await?;
        self.put_unread(object).await?;
        if !object.is_empty() {
            object.put("bump_stamp", &self.wanted.entry.facts.last_activity);
            if is_direct {
                object.put("is_dm", &true);
            }
            object.put_str("membership", self.view.membership().as_str());
        }
        let told = self.told_now(&timeline, (whole, expanded), &lazy);
        Ok((told, self.news))
    }

    async fn timeline(&self, expanded: bool) -> Result<Timeline, SyncError> {
        let first_new = if expanded { 1 } else { self.news.first_new };
        let wanted = timeline::Wanted {
            first_new,
            last: self.end.1,
            limit: self.wanted.config.timeline_limit,
            filter: &self.step.request.filter.timeline,
        };
        timeline::read(&self.view, &wanted).await
    }

    /// How the state changed; `None` where all of it is new.
    async fn changes(&self) -> Result<Option<Vec<Difference>>, SyncError> {
        let Some(before) = self.news.before else { return Ok(None) };
        let (states, snapshot) = (&self.step.syncs.rooms.states, &self.step.snapshot);
        Ok(Some(states.diff(snapshot, self.view.room_id, before, self.end.0).await?))
    }

    /// The members that the timeline is about and that the client does not know, where it wants them.
    async fn lazy_members(
        &self,
        timeline: &Timeline,
        expanded: bool,
    ) -> Result<Vec<Seen>, SyncError> {
        let config = &*self.wanted.config;
        if !config.required_state.lazy_members {
            return Ok(Vec::new());
        }
        let mut users = BTreeSet::new();
        for seen in &timeline.events {
            let pdu = &seen.event.pdu;
            users.insert(pdu.sender.as_str());
            if pdu.kind == TimelineEventType::RoomMember {
                users.extend(pdu.state_key.as_deref());
            }
        }
        let places: Vec<_> = users.into_iter().map(|user| (MEMBER, user)).collect();
        let (states, room) = (&self.step.syncs.rooms.states, self.view.room_id);
        let found = states.get_many(&self.step.snapshot, room, self.end.0, &places).await?;
        // With a gap in the timeline clients drop what they know of members.
        let told = self.told.filter(|_| !timeline.limited || expanded);
        let is_known = |number: &u64| told.is_some_and(|told| told.members.contains(number));
        let missing: Vec<u64> =
            found.into_iter().flatten().filter(|number| !is_known(number)).collect();
        let mut members = self.view.state_events(&missing).await?;
        partial::add_senders(self.step, &self.view, timeline, (&mut members, None)).await?;
        Ok(members)
    }

    /// The state that the client is told.
    async fn state(
        &self,
        timeline: &Timeline,
        changes: &Option<Vec<Difference>>,
        lazy: &[Seen],
    ) -> Result<Vec<Seen>, SyncError> {
        let (rooms, required) = (&self.step.syncs.rooms, &self.wanted.config.required_state);
        let mut state = match changes {
            None => required.read(rooms, &self.view, self.end.0).await?,
            Some(changes) => self.changed_state(timeline, changes).await?,
        };
        if let Some(told) = self.told
            && !told.config.required_state.covers(required)
        {
            let more = required.read(rooms, &self.view, self.end.0).await?.into_iter();
            state.extend(more.filter(|seen| !told.config.required_state.wants_event(seen)));
        }
        if let Some(told) = self.told {
            let since = since(self.step, told);
            partial::add_turned(self.step, &self.view, &since, &mut state).await?;
            let lazily = required.lazy_members;
            state.retain(|seen| required.wants_event(seen) || (lazily && is_member(seen)));
        }
        state.extend(lazy.iter().cloned());
        if self.wanted.entry.joined.is_none() {
            // Whoever is in it no more is told so, whatever they want.
            state.extend(self.view.state_events(&[self.wanted.entry.row.event]).await?);
        }
        let mut numbers = FxHashSet::default();
        state.retain(|seen| numbers.insert(seen.event.number));
        Ok(state)
    }

    async fn changed_state(
        &self,
        timeline: &Timeline,
        changes: &[Difference],
    ) -> Result<Vec<Seen>, SyncError> {
        let required = &self.wanted.config.required_state;
        // Without a gap clients keep what they know of members, and are told how it changes.
        let all_members = required.lazy_members && !timeline.limited;
        let wanted = changes.iter().filter(|change| {
            let (kind, key) = (&*change.key.event_type, &*change.key.state_key);
            required.wants(kind, key) || (all_members && kind == MEMBER)
        });
        let numbers: Vec<u64> = wanted.filter_map(|change| change.new).collect();
        Ok(self.view.state_events(&numbers).await?)
    }

    async fn put_timeline(
        &self,
        timeline: &Timeline,
        (whole, expanded): (bool, bool),
        object: &mut Object<'_>,
    ) -> Result<(), SyncError> {
        if timeline.events.is_empty() && !timeline.limited && !whole {
            return Ok(());
        }
        self.put_events(object.field("timeline"), &timeline.events).await?;
        object.put("limited", &timeline.limited);
        object.put("num_live", &self.live(timeline).await?);
        let (n, k) = timeline.start;
        object.put_str("prev_batch", &PageToken::before(TimelineIndex { n, k }).to_string());
        if expanded {
            object.put("unstable_expanded_timeline", &true);
        }
        Ok(())
    }

    /// How many events of the timeline happened since the last response of the connection.
    async fn live(&self, timeline: &Timeline) -> Result<usize, SyncError> {
        let first = match (self.step.since, self.told) {
            (None, _) => return Ok(0),
            (Some(_), Some(_)) => self.news.first_new,
            (Some(since), None) => {
                first_after(self.step, self.view.room_id, &self.view.head, &since.view).await?
            }
        };
        Ok(timeline.events.iter().filter(|seen| seen.index().n >= first).count())
    }

    /// What is unread outside of threads, where it may have changed.
    async fn put_unread(&self, object: &mut Object<'_>) -> Result<(), SyncError> {
        let (step, user) = (self.step, &self.step.request.user);
        let has_changed = !object.is_empty() || has_read(&self.news, user)?;
        if self.wanted.entry.joined.is_none() || !has_changed {
            return Ok(());
        }
        let (unreads, place) = (&step.syncs.unreads, (self.view.room_id, &self.view.head));
        let counts = unreads.counts(&step.syncs.rooms, &step.snapshot, user, place).await?;
        object.put("notification_count", &counts.main.notify);
        object.put("highlight_count", &counts.main.highlight);
        Ok(())
    }

    fn told_now(
        &self,
        timeline: &Timeline,
        (whole, expanded): (bool, bool),
        lazy: &[Seen],
    ) -> Told {
        let shown = if self.wanted.entry.joined.is_some() { Shown::Room } else { Shown::Left };
        let mut now = told_now(self.wanted, shown, self.told);
        let Some(told) = self.told else {
            now.members = Arc::new(lazy.iter().map(|seen| seen.event.number).collect());
            return now;
        };
        if !whole && !expanded && !timeline.limited {
            now.timeline = told.timeline;
        }
        let keeps = !timeline.limited || expanded;
        if keeps && lazy.is_empty() {
            now.members = Arc::clone(&told.members);
        } else {
            let known = told.members.iter().copied().filter(|_| keeps);
            let known = known.chain(lazy.iter().map(|seen| seen.event.number));
            let known: FxHashSet<u64> = known.collect();
            now.members =
                Arc::new(if known.len() > MEMBERS_MAX { FxHashSet::default() } else { known });
        }
        now
    }

    async fn put_events(&self, out: &mut String, seen: &[Seen]) -> Result<(), SyncError> {
        Ok(self.view.write_array(out, seen, self.step.request.filter.form).await?)
    }
}

/// The newest events of a room, as many as are wanted of it.
pub(super) async fn newest_events(
    step: &Step<'_>,
    wanted: &Wanted<'_>,
) -> Result<BTreeSet<OwnedEventId>, SyncError> {
    let Some(view) = step.view(wanted.entry.room, wanted.entry.row).await? else {
        return Ok(BTreeSet::new());
    };
    let newest = timeline::Wanted {
        first_new: 1,
        last: view.head.last,
        limit: wanted.config.timeline_limit,
        filter: &step.request.filter.timeline,
    };
    let timeline = timeline::read(&view, &newest).await?;
    Ok(timeline.events.iter().map(|seen| seen.event.pdu.event_id.clone()).collect())
}

/// Whether the user read something.
fn has_read(news: &RoomNews, user: &UserId) -> Result<bool, SyncError> {
    for change in news.changes.iter().filter(|change| change.table == RECEIPTS.info().id) {
        if RECEIPTS.decode_key(&change.key)?.0 == user {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_member(seen: &Seen) -> bool {
    seen.event.pdu.kind == TimelineEventType::RoomMember
}
