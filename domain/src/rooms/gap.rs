//! Gaps in a room's timeline, and filling them with what other servers still have (spec:
//! Server-Server API, Backfilling and retrieving missing events).

use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use millrace_model::Pdu;
use millrace_store::{
    Read, Scan, Tx,
    rows::{
        partial::{Before, Ending},
        room::{EventHeader, Gap as GapRow, TimelineRow},
    },
    tables::{GAPS, MISSING_EVENTS, TIMELINE},
};
use ruma::{EventId, OwnedEventId, RoomId};

use super::{
    AppendError, Numbers, ReceiveError, RoomTx, Rooms,
    accept::{placed, unplaced},
    events,
    judge::Verdict,
    receive::without_state,
    retention,
};

/// So many missing events of one gap are remembered at most.
const MISSING_MAX: usize = 100;
/// So many gaps at most may lack one event.
const GAPS_OF_EVENT_MAX: usize = 100;

/// A hole in a timeline: before live event `n` and what was filled in before that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// `n` of the live event after the gap.
    pub n: i64,
    /// `k` of the oldest event after the gap: 0 where nothing has been filled in.
    pub filled_to: i32,
    /// Events that are known to be missing: predecessors of those after the gap.
    pub missing: Vec<OwnedEventId>,
}

/// The nearest gap at or before a place of the timeline, going back in time.
///
/// # Errors
/// Where the store cannot be read.
pub async fn before(
    read: &impl Read,
    room: &RoomId,
    (n, _): (i64, i32),
) -> millrace_store::Result<Option<Gap>> {
    let scan = Scan::all().up_to(n).reverse().limit(1);
    let found = read.scan(&GAPS, room, scan).await?.pop();
    Ok(found.map(|(n, row)| Gap { n, filled_to: row.filled_to, missing: row.missing }))
}

/// Fills the gap before live event `n` with older events, whose form, signatures and hashes were
/// checked. `states` tells the IDs of the events of the state before those whose predecessors are
/// not known; what has neither predecessors nor state, or is no predecessor of what is missing, is
/// left out. At most some hundred events at once; all or none of them are written. Returns how many
/// have got a place in the timeline.
///
/// # Errors
/// [`ReceiveError::MissingAuthEvents`] where auth events or events of a state are not stored.
pub async fn fill(
    rooms: &Rooms,
    room_id: &RoomId,
    n: i64,
    events: Vec<Pdu>,
    states: &HashMap<OwnedEventId, Vec<OwnedEventId>>,
) -> Result<usize, ReceiveError> {
    let events = &newest_first(events);
    let numbers = &Numbers::draw(rooms, events.len()).await?;
    let body = |tx: Tx| {
        async move {
            let room = RoomTx::open(&tx, rooms, room_id, numbers).await?;
            let mut room = room.ok_or_else(|| ReceiveError::UnknownRoom(room_id.to_owned()))?;
            let filled = room.fill(n, events, states).await?;
            room.finish();
            Ok(filled)
        }
        .boxed()
    };
    rooms.env.store.transact_in(room_id, body).await
}

impl RoomTx<'_> {
    async fn fill(
        &mut self,
        n: i64,
        events: &[Pdu],
        states: &HashMap<OwnedEventId, Vec<OwnedEventId>>,
    ) -> Result<usize, ReceiveError> {
        let Some(gap) = self.tx.get(&GAPS, &self.room_id, n).await? else { return Ok(0) };
        let events = in_gap(events, &gap.missing);
        let (mut filled, mut kept, mut filled_to) = (0, Vec::new(), gap.filled_to);
        // The oldest first, as each has its state from those before it.
        for (k, pdu) in (1..=i32::MAX).zip(&events).collect::<Vec<_>>().into_iter().rev() {
            let k = gap.filled_to.saturating_sub(k);
            let placed = self.fill_one(pdu, (n, k), states).await?;
            if placed != Filled::LeftOut {
                kept.push(*pdu);
            }
            if placed == Filled::Placed {
                filled += 1;
                filled_to = filled_to.min(k);
            }
        }
        if filled > 0 {
            retention::look_again_from(self.tx, &self.room_id, (n, filled_to)).await?;
        }
        let mut missing = gap.missing.clone();
        missing.extend(kept.iter().flat_map(|pdu| &pdu.prev_events).cloned());
        let missing = self.unplaced_among(&missing).await?;
        for pdu in kept {
            self.found_missing(&pdu.event_id, &[]).await?;
        }
        self.put_gap(n, &gap.missing, GapRow { missing, filled_to });
        Ok(filled)
    }

    async fn fill_one(
        &mut self,
        pdu: &Pdu,
        place: (i64, i32),
        states: &HashMap<OwnedEventId, Vec<OwnedEventId>>,
    ) -> Result<Filled, ReceiveError> {
        let found = events::find(self.tx, &self.room_id, &pdu.event_id).await?;
        let (number, mut pdu) = match &found {
            Some((_, header)) if !header.outlier => return Ok(Filled::Kept),
            Some((number, _)) => (*number, self.event(*number).await?.pdu.clone()),
            None => (self.next_number(), pdu.clone()),
        };
        let auth_events = self.auth_events_of(&pdu).await?;
        let (before, from) = match self.state_before(&pdu).await {
            Err(ReceiveError::MissingPrevEvents(_)) => match states.get(&pdu.event_id) {
                Some(state) => (self.state_of(state).await?, Before::Told),
                None => return Ok(Filled::LeftOut),
            },
            before => (before?, Before::Predecessors),
        };
        self.note_partial(number, from, Ending::Past);
        if let Verdict::Rejected(refused) = self.judge_past(&pdu, &auth_events, before).await? {
            tracing::info!(event = %pdu.event_id, %refused, "an event of the past was rejected");
            pdu.rejected = true;
            let event = self.body(number, pdu).await?;
            self.write_header(number, unplaced(&event, before)).await?;
            return Ok(Filled::Kept);
        }
        let event = self.body(number, pdu).await?;
        let replaces = self.replaced_by(&event, before).await?;
        let header = EventHeader { replaces, ..placed(&event, before, place) };
        self.write_header(number, header).await?;
        let after = self.state_after(&event, before).await?;
        let row = TimelineRow { event: number, before, after };
        self.tx.put(&TIMELINE, &self.room_id, place, &row);
        self.write_relations(&event, place).await?;
        self.write_redaction(&event, before).await?;
        self.settle_late(&event, found.as_ref().map(|(_, header)| header)).await?;
        Ok(Filled::Placed)
    }

    /// Notes that events are missing before live event `n`.
    pub(super) fn open_gap(&self, n: i64, missing: Vec<OwnedEventId>) {
        self.put_gap(n, &[], GapRow { missing, filled_to: 0 });
    }

    fn put_gap(&self, n: i64, old: &[OwnedEventId], mut gap: GapRow) {
        let (tx, room) = (self.tx, &self.room_id);
        gap.missing.truncate(MISSING_MAX);
        for id in old.iter().filter(|id| !gap.missing.contains(id)) {
            tx.delete(&MISSING_EVENTS, room, (id, n));
        }
        for id in gap.missing.iter().filter(|id| !old.contains(id)) {
            tx.put(&MISSING_EVENTS, room, (id, n), &());
        }
        match gap.missing.is_empty() {
            true => tx.delete(&GAPS, room, n),
            false => tx.put(&GAPS, room, n, &gap),
        }
    }

    /// Whether an event is known to be followed by one that is here.
    pub(super) async fn is_missing(&self, event: &EventId) -> Result<bool, AppendError> {
        Ok(!self.gaps_of(event).await?.is_empty())
    }

    async fn gaps_of(&self, event: &EventId) -> Result<Vec<i64>, AppendError> {
        let scan = Scan::prefix(event).limit(GAPS_OF_EVENT_MAX);
        let rows = self.tx.scan(&MISSING_EVENTS, &self.room_id, scan).await?;
        Ok(rows.into_iter().map(|((_, n), ())| n).collect())
    }

    /// Takes an event that has come out of the gaps that lack it. `before` are its predecessors that
    /// are missing in its place.
    pub(super) async fn found_missing(
        &self,
        event: &EventId,
        before: &[OwnedEventId],
    ) -> Result<(), AppendError> {
        for n in self.gaps_of(event).await? {
            let Some(gap) = self.tx.get(&GAPS, &self.room_id, n).await? else { continue };
            let others = gap.missing.iter().filter(|id| *id != event).cloned();
            let mut missing: Vec<_> = others.collect();
            missing.extend(before.iter().filter(|id| !gap.missing.contains(id)).cloned());
            self.put_gap(n, &gap.missing, GapRow { missing, filled_to: gap.filled_to });
        }
        Ok(())
    }

    /// Those of the events that are not part of the graph here, each once.
    pub(super) async fn unplaced_among(
        &self,
        ids: &[OwnedEventId],
    ) -> Result<Vec<OwnedEventId>, AppendError> {
        let mut met = HashSet::new();
        let ids: Vec<OwnedEventId> = ids.iter().filter(|id| met.insert(*id)).cloned().collect();
        Ok(without_state(self.tx, &self.room_id, &ids).await?)
    }
}

/// What became of an event of the past.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// It has a place in the timeline.
    Placed,
    /// It is here and has none: it was rejected, or was here before.
    Kept,
    /// Its state could not be told.
    LeftOut,
}

/// Those of the events that are missing or come before one that is, in their order: newest first.
fn in_gap<'a>(events: &'a [Pdu], missing: &'a [OwnedEventId]) -> Vec<&'a Pdu> {
    let mut wanted: HashSet<&OwnedEventId> = missing.iter().collect();
    let mut reached = Vec::new();
    for pdu in events {
        if wanted.contains(&pdu.event_id) {
            wanted.extend(&pdu.prev_events);
            reached.push(pdu);
        }
    }
    reached
}

/// Orders events so that each comes before those that it follows.
pub(super) fn newest_first(mut events: Vec<Pdu>) -> Vec<Pdu> {
    let mut ids = HashSet::new();
    events.retain(|pdu| ids.insert(pdu.event_id.clone()));
    // What nothing else here follows comes next; of several the deepest, then the latest.
    let mut followers: HashMap<&OwnedEventId, usize> = HashMap::new();
    for id in events.iter().flat_map(|pdu| &pdu.prev_events) {
        *followers.entry(id).or_default() += 1;
    }
    let at: HashMap<&OwnedEventId, usize> =
        events.iter().enumerate().map(|(at, pdu)| (&pdu.event_id, at)).collect();
    let rank = |at: usize| {
        let pdu = &events[at];
        (pdu.depth, pdu.origin_server_ts, pdu.event_id.clone(), at)
    };
    let is_last = |pdu: &&Pdu| !followers.contains_key(&pdu.event_id);
    let mut open: std::collections::BinaryHeap<_> =
        events.iter().filter(is_last).map(|pdu| rank(at[&pdu.event_id])).collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some((.., next)) = open.pop() {
        order.push(next);
        for id in &events[next].prev_events {
            if let (Some(count), Some(at)) = (followers.get_mut(id), at.get(id)) {
                *count -= 1;
                if *count == 0 {
                    open.push(rank(*at));
                }
            }
        }
    }
    let mut events: Vec<Option<Pdu>> = events.into_iter().map(Some).collect();
    // Events that follow each other in a circle, as only made-up IDs can, are left out.
    order.into_iter().filter_map(|at| events[at].take()).collect()
}
