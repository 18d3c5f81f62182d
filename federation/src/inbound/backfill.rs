//! Filling gaps of a room's history for those who read it (spec: Server-Server API, Backfilling and
//! retrieving missing events).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lru::LruCache;
use millrace_domain::rooms::{
    events,
    gap::{self, Gap},
    partial::{
        self,
        waiting::{self, MOMENT},
    },
};
use millrace_model::Pdu;
use millrace_store::{Read, tables::ROOM_HEAD};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

use super::{Inbound, fetch::Fetcher, receive::NotReceived};

/// Gaps whose being filled in vain is remembered.
const FAILURES_MAX: usize = 10_000;
/// A gap that was filled in vain is left alone for so long.
const FAILURE_MS: u64 = 60_000;
/// Events of one answer before which the state is fetched.
const STATES_MAX: usize = 3;
/// How often a gap is filled for the sake of one event.
const ROUNDS_FOR_EVENT: usize = 10;

type Place = (OwnedRoomId, i64);

/// Gaps that are being filled, and those for which nobody had anything.
pub(super) struct Gaps {
    open: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
    failed: Mutex<LruCache<Place, u64>>,
}

impl Default for Gaps {
    fn default() -> Self {
        let kept = FAILURES_MAX.try_into().expect("not zero");
        Self { open: Mutex::default(), failed: Mutex::new(LruCache::new(kept)) }
    }
}

impl Gaps {
    fn gate(&self, place: &Place) -> Arc<tokio::sync::Mutex<()>> {
        let mut open = self.open.lock();
        open.retain(|_, gate| Arc::strong_count(gate) > 1);
        Arc::clone(open.entry(place.clone()).or_default())
    }
}

impl Inbound {
    /// Asks other servers for the history in the nearest gap at or before a place of a room's
    /// timeline. Whether there is more to read there now; who waited while somebody else filled the
    /// same gap is told `true` too. Takes no longer than configured; what takes longer goes on.
    pub async fn fill_gap(self: &Arc<Self>, room: &RoomId, place: (i64, i32)) -> bool {
        let snapshot = self.env().store.snapshot();
        let found = gap::before(&snapshot, room, place).await.ok().flatten();
        let Some(gap) = found.filter(|gap| !gap.missing.is_empty()) else { return false };
        let (inbound, room) = (Arc::clone(self), room.to_owned());
        let task = tokio::spawn(async move { inbound.fill_once(room, gap).await });
        matches!(tokio::time::timeout(self.settings.backfill_timeout, task).await, Ok(Ok(true)))
    }

    /// Fills gaps before a place until an event is known. Whether it is.
    pub async fn fill_up_to(
        self: &Arc<Self>,
        room: &RoomId,
        place: (i64, i32),
        event: &EventId,
    ) -> bool {
        // A room that was just joined is whole in a moment, or will not be for long.
        _ = waiting::completed(self.rooms(), room, MOMENT).await;
        let snapshot = self.env().store.snapshot();
        let is_partial = partial::is_partial(&snapshot, room).await.unwrap_or(true);
        let known = events::find(&snapshot, room, event).await.unwrap_or_default();
        if is_partial || known.is_some_and(|(_, header)| !header.outlier) {
            // What is known and not shown is refused. While members are missing, history would be
            // judged by too little, and servers have enough to do for us.
            return self.has_place(room, event).await;
        }
        for _ in 0..ROUNDS_FOR_EVENT {
            if self.has_place(room, event).await {
                return true;
            }
            if !self.fill_gap(room, place).await {
                return false;
            }
        }
        self.has_place(room, event).await
    }

    async fn has_place(&self, room: &RoomId, event: &EventId) -> bool {
        let snapshot = self.env().store.snapshot();
        let found = events::find(&snapshot, room, event).await;
        matches!(found, Ok(Some((_, header))) if header.place.is_some())
    }

    async fn fill_once(&self, room: OwnedRoomId, seen: Gap) -> bool {
        let place = (room, seen.n);
        let gate = self.gaps.gate(&place);
        let _turn = gate.lock().await;
        let now = u64::from(self.env().now().get());
        let failed = self.gaps.failed.lock().get(&place).copied();
        let snapshot = self.env().store.snapshot();
        let gap = gap::before(&snapshot, &place.0, (seen.n, 0)).await.ok().flatten();
        if gap.as_ref() != Some(&seen) {
            return true; // Somebody else has filled it, or some of it.
        }
        if failed.is_some_and(|at| now < at.saturating_add(FAILURE_MS)) {
            return false;
        }
        match self.fill(&place.0, &seen).await {
            Ok(filled) if filled > 0 => return true,
            Ok(_) => tracing::info!(room = %place.0, "nobody has what is missing"),
            Err(error) => tracing::info!(room = %place.0, %error, "history cannot be had"),
        }
        self.gaps.failed.lock().put(place, now);
        false
    }

    async fn fill(&self, room: &RoomId, gap: &Gap) -> Result<usize, NotReceived> {
        let snapshot = self.env().store.snapshot();
        let Some(head) = snapshot.get(&ROOM_HEAD, room, ()).await? else { return Ok(0) };
        let fetcher = Fetcher::new(self, (room, &head.version), &[]).await?;
        let events = fetcher.backfill(&gap.missing).await?;
        let events = self.with_auth_stored(&fetcher, events).await?;
        let mut states: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
        for event in self.without_predecessors(room, &events).await? {
            if states.len() == STATES_MAX {
                break;
            }
            let state = self.fetch_state_before(&fetcher, &event).await?;
            states.insert(event, state);
        }
        Ok(gap::fill(self.rooms(), room, gap.n, events, &states).await?)
    }

    /// Those of the events whose auth events are stored now or are among them.
    async fn with_auth_stored(
        &self,
        fetcher: &Fetcher<'_>,
        events: Vec<Pdu>,
    ) -> Result<Vec<Pdu>, NotReceived> {
        let ids: HashSet<OwnedEventId> = events.iter().map(|pdu| pdu.event_id.clone()).collect();
        let all = fetcher.with_auth_events(events).await?;
        let (events, mut others): (Vec<Pdu>, Vec<Pdu>) =
            all.into_iter().partition(|pdu| ids.contains(&pdu.event_id));
        // What authorises others and is itself part of this history is stored with it first, as
        // the others may build on it.
        let named: HashSet<&OwnedEventId> =
            others.iter().flat_map(|pdu| &pdu.auth_events).collect();
        if events.iter().any(|pdu| named.contains(&pdu.event_id)) {
            others.extend(events.iter().cloned());
        }
        self.store_outliers_of(fetcher, others).await?;
        Ok(events)
    }

    /// Those of the events of which a predecessor is neither among them nor here.
    async fn without_predecessors(
        &self,
        room: &RoomId,
        events: &[Pdu],
    ) -> Result<Vec<OwnedEventId>, NotReceived> {
        let ids: HashSet<&OwnedEventId> = events.iter().map(|pdu| &pdu.event_id).collect();
        let before: HashSet<&OwnedEventId> =
            events.iter().flat_map(|pdu| &pdu.prev_events).collect();
        let others: Vec<OwnedEventId> = before.difference(&ids).map(|id| (*id).clone()).collect();
        let snapshot = self.env().store.snapshot();
        let lacked = millrace_domain::rooms::receive::without_state(&snapshot, room, &others);
        let lacked: HashSet<OwnedEventId> = lacked.await?.into_iter().collect();
        let lacks = |pdu: &&Pdu| pdu.prev_events.iter().any(|id| lacked.contains(id));
        Ok(events.iter().filter(lacks).map(|pdu| pdu.event_id.clone()).collect())
    }
}
