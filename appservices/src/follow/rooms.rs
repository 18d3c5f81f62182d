//! What is new in a room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_domain::rooms::Event;
use millrace_store::{
    Read, Snapshot,
    one_writer::view,
    rows::{
        appservice::Queued,
        room::{RoomHead, TimelineRow},
    },
    tables::{RECEIPTS, ROOM_HEAD, TIMELINE},
};
use ruma::{RoomId, UserId};

use super::{
    FollowError, Follower, News,
    interest::{Interest, services_of},
};

/// A live event that is new: its place, commit and row.
struct Live {
    n: i64,
    seq: u64,
    row: TimelineRow,
    event: Arc<Event>,
}

impl Follower<'_> {
    /// Queues the live events of a room that came after `since`, and tells of its receipts.
    pub(super) async fn room(
        &mut self,
        snapshot: &Snapshot,
        room: &RoomId,
        since: u64,
        news: &mut Vec<News>,
    ) -> Result<(), FollowError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(()) };
        let changes = snapshot.changes(room, &view(since), usize::MAX).await?;
        let (mut places, mut receipts) = (BTreeMap::new(), BTreeSet::new());
        for change in &changes {
            if change.table == TIMELINE.info().id {
                let (n, k) = TIMELINE.decode_key(&change.key)?;
                if k == 0 {
                    places.insert(n, change.position.seq);
                }
            } else if change.table == RECEIPTS.info().id {
                receipts.insert(RECEIPTS.decode_key(&change.key)?);
            }
        }
        let always = self.interested_always(snapshot, room).await?;
        if let Some((first, _)) = places.first_key_value() {
            let interest = self.interest_before(snapshot, (room, &head), *first).await?;
            let live = self.load(snapshot, (room, &head), &places).await?;
            let interest =
                self.walk(snapshot, (room, &head), (interest, &always), (live, news)).await?;
            self.remember(room, interest);
        }
        if !receipts.is_empty() {
            self.tell_receipts(snapshot, room, (&always, receipts)).await?;
        }
        Ok(())
    }

    async fn load(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        places: &BTreeMap<i64, u64>,
    ) -> Result<Vec<Live>, FollowError> {
        let keys = places.keys().map(|n| (*n, 0));
        let rows = snapshot.get_many(&TIMELINE, room, keys).await?;
        let places = places.iter().zip(rows);
        let placed: Vec<_> = places.filter_map(|((n, seq), row)| Some((*n, *seq, row?))).collect();
        let numbers: Vec<u64> = placed.iter().map(|(.., row)| row.event).collect();
        let events = &self.services.rooms.events;
        let events = events.load(snapshot, room, &head.version, &numbers).await?;
        let live = |((n, seq, row), event)| Live { n, seq, row, event };
        Ok(placed.into_iter().zip(events).map(live).collect())
    }

    /// Goes along the room's new events; who is in the room changes on the way.
    async fn walk(
        &self,
        snapshot: &Snapshot,
        (room, head): (&RoomId, &RoomHead),
        (mut interest, always): (Interest, &BTreeSet<usize>),
        (live, news): (Vec<Live>, &mut Vec<News>),
    ) -> Result<Interest, FollowError> {
        for Live { n, seq, row, event } in live {
            let mut told = always.clone();
            told.extend(interest.services());
            let mut devices = Vec::new();
            if row.after != interest.root {
                let place = (interest.root, row.after);
                devices =
                    self.shift(snapshot, (room, head), place, (&mut interest, &event)).await?;
                told.extend(interest.services());
            }
            (interest.n, interest.root) = (n, row.after);
            told.extend(self.targets(&event));
            for service in told.into_iter().filter(|at| self.is_listening(*at)) {
                let what = Queued::Event { room: room.to_owned(), number: event.number };
                news.push(News { seq, service, what });
            }
            news.extend(devices.into_iter().map(|(service, what)| News { seq, service, what }));
        }
        Ok(interest)
    }

    /// The services whose user has sent an event, or whose membership it is about.
    fn targets(&self, event: &Event) -> BTreeSet<usize> {
        let pdu = &event.pdu;
        let mut found = BTreeSet::new();
        if self.is_local(&pdu.sender) {
            found.extend(services_of(&self.registry, &pdu.sender));
        }
        if pdu.kind == ruma::events::TimelineEventType::RoomMember
            && let Some(target) = pdu.state_key.as_deref()
            && let Ok(target) = UserId::parse(target)
            && self.is_local(&target)
        {
            found.extend(services_of(&self.registry, &target));
        }
        found
    }

    pub(super) fn is_listening(&self, service: usize) -> bool {
        self.registry.all()[service].url.is_some()
    }
}
