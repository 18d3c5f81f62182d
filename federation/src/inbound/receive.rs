//! Receiving the events of a room's queue, and fetching what they build on (spec: Server-Server API,
//! Backfilling and retrieving missing events).

use std::collections::HashSet;

use millrace_domain::rooms::{
    ReadError, ReceiveError,
    outliers::store_outliers,
    partial,
    receive::{receive, receive_after_gap, unknown, without_state},
};
use millrace_model::{Pdu, rules::room_version};
use millrace_store::{Read, rows::inbound::QueuedPdu, tables::ROOM_HEAD};
use ruma::{OwnedEventId, RoomId, RoomVersionId, ServerName};

use super::{
    Inbound,
    fetch::{Fetcher, Lacking},
    order::{oldest_first, reached},
    queue::Outcome,
    vain::Loss,
};

/// Questions for missing events for the sake of one event.
const ROUNDS_MAX: usize = 20;
/// Events that are asked for at once.
const MISSING_AT_ONCE: usize = 100;
/// No server gives fewer of them at once that has more.
const ANSWER_OF_MORE: usize = 10;
/// States that are fetched for the sake of one event.
const GAPS_MAX: usize = 3;
/// Working on one event may take so many times as long as one answer.
const PATIENCE: u32 = 10;

/// Why an event was not received.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReceived {
    /// What it builds on cannot be had.
    #[error("what it builds on cannot be had ({0:?})")]
    Lacking(Lacking),
    /// It cannot be received, whatever else is there.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The room cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

impl From<Lacking> for NotReceived {
    fn from(lacking: Lacking) -> Self {
        Self::Lacking(lacking)
    }
}

impl NotReceived {
    /// Whether it may go better later.
    const fn outcome(&self) -> Outcome {
        match self {
            Self::Lacking(Lacking::Unreachable) | Self::Read(_) | Self::Store(_) => Outcome::PutOff,
            Self::Receive(ReceiveError::Append(_)) => Outcome::PutOff,
            Self::Lacking(Lacking::NotHad) | Self::Receive(_) => Outcome::Done,
        }
    }
}

/// A room whose events are being received.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub room: &'a RoomId,
    pub version: &'a RoomVersionId,
}

/// What is known of the missing events before one.
struct Missing {
    /// The events, the oldest first.
    events: Vec<Pdu>,
    /// Whether any server told what is before the event, whatever it told.
    answered: bool,
}

/// Whether an event may be received whose predecessors are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GapBefore {
    May,
    Never,
}

impl Inbound {
    /// Receives events of a room's queue, each after those that it builds on. What became of each,
    /// in the order of the rows.
    pub(super) async fn receive_all(
        &self,
        room: &RoomId,
        rows: &[(u64, QueuedPdu)],
    ) -> Result<Vec<Outcome>, ReceiveError> {
        let mut outcomes = vec![Outcome::Done; rows.len()];
        let head = self.env().store.snapshot().get(&ROOM_HEAD, room, ()).await?;
        let Some(head) = head else { return Ok(outcomes) };
        let version = &head.version;
        let rules =
            room_version::rules(version).ok_or_else(|| ReceiveError::Version(version.clone()))?;
        let (mut pdus, mut of_row) = (Vec::new(), Vec::new());
        for (at, (_, queued)) in rows.iter().enumerate() {
            let QueuedPdu { json, event_id, .. } = queued;
            let (json, id) = (json.as_str().into(), event_id.clone());
            // What was put there can be read: else the database is damaged, and it is passed over.
            if let Ok(pdu) = Pdu::from_stored(json, id, room.to_owned(), rules) {
                pdus.push(pdu);
                of_row.push(at);
            }
        }
        for next in oldest_first(&pdus) {
            let (pdu, row) = (&pdus[next], of_row[next]);
            let origin = &rows[row].1.origin;
            let place = Place { room, version };
            if let Err(error) = self.receive_one(place, origin, pdu).await {
                outcomes[row] = error.outcome();
                let (event, outcome) = (&pdu.event_id, outcomes[row]);
                tracing::info!(%room, %event, %origin, %error, ?outcome, "an event is not received");
            }
        }
        Ok(outcomes)
    }

    /// Receives one event. Other servers are not asked for the sake of a server for which they were
    /// asked in vain lately: that would hold up what others say in the room.
    async fn receive_one(
        &self,
        place: Place<'_>,
        origin: &ServerName,
        pdu: &Pdu,
    ) -> Result<(), NotReceived> {
        match receive(self.rooms(), place.room, pdu.clone()).await {
            Ok(_) => return Ok(()),
            Err(ReceiveError::MissingPrevEvents(_) | ReceiveError::MissingAuthEvents(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let now = || u64::from(self.env().now().get());
        if !self.vain.is_trusted(place.room, origin, now()) {
            return Err(Lacking::Unreachable.into());
        }
        let first = [origin, pdu.sender.server_name()];
        let fetcher = Fetcher::new(self, (place.room, place.version), &first).await?;
        let longest = self.settings.fetch.timeout.saturating_mul(PATIENCE);
        let fetched = tokio::time::timeout(longest, self.receive_with_missing(&fetcher, pdu));
        let (received, loss) = match fetched.await {
            Ok(received) => (received, Loss::Some),
            Err(_) => (Err(Lacking::Unreachable.into()), Loss::AllTime),
        };
        match &received {
            Ok(()) => self.vain.succeeded(place.room, origin),
            Err(_) => self.vain.failed(place.room, origin, loss, now()),
        }
        received
    }

    /// Receives an event after the missing ones before it.
    async fn receive_with_missing(
        &self,
        fetcher: &Fetcher<'_>,
        pdu: &Pdu,
    ) -> Result<(), NotReceived> {
        let mut gaps = 0;
        let Missing { events, answered } = self.missing_before(fetcher, pdu).await?;
        let mut failed: HashSet<OwnedEventId> = HashSet::new();
        for older in events {
            let follows_failed = older.prev_events.iter().any(|id| failed.contains(id));
            let gap_before = if follows_failed { GapBefore::Never } else { GapBefore::May };
            // What is wrong with one of them, the event itself will show.
            let received = self.receive_over(fetcher, &older, (&mut gaps, gap_before)).await;
            if let Err(error) = received {
                tracing::debug!(event = %older.event_id, %error, "a missing event is not received");
                failed.insert(older.event_id);
            }
        }
        // A server that sends an event has what is before it. If it answers and does not show that,
        // it is not asked for a state which would become that of the whole room.
        let gap_before = if answered { GapBefore::Never } else { GapBefore::May };
        self.receive_over(fetcher, pdu, (&mut gaps, gap_before)).await
    }

    /// The missing events before one, as far as other servers tell.
    async fn missing_before(
        &self,
        fetcher: &Fetcher<'_>,
        pdu: &Pdu,
    ) -> Result<Missing, NotReceived> {
        let room = fetcher.room;
        let snapshot = self.env().store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, room, ()).await?;
        let ends = head.into_iter().flat_map(|head| head.extremities);
        let earliest: Vec<OwnedEventId> = ends.map(|end| end.event.event_id).collect();
        let mut lacked = without_state(&snapshot, room, &pdu.prev_events).await?;
        let mut latest = vec![pdu.event_id.clone()];
        let mut got: Vec<Pdu> = Vec::new();
        let mut answered = lacked.is_empty();
        for round in 0..ROUNDS_MAX {
            let left = self.settings.fetch.missing_events_max.saturating_sub(got.len());
            if lacked.is_empty() || left == 0 {
                break;
            }
            let limit = left.min(MISSING_AT_ONCE);
            let mut found = match fetcher.missing(&earliest, &latest, limit).await {
                Ok(found) => found,
                Err(Lacking::Unreachable) if round == 0 => {
                    return Err(Lacking::Unreachable.into());
                }
                Err(_) => break,
            };
            answered = true;
            let count = found.len();
            for known in &got {
                found.remove(&known.event_id);
            }
            let new = reached(&mut found, &lacked, |pdu| &pdu.prev_events);
            if new.is_empty() {
                break;
            }
            got.extend(new);
            (latest, lacked) = self.still_lacked(room, &got).await?;
            if count < ANSWER_OF_MORE {
                break;
            }
        }
        if !got.is_empty() && !lacked.is_empty() {
            // Other servers may have the next ones where the one that answered does not go on.
            lacked.truncate(GAPS_MAX);
            let mut found = fetcher.events(&lacked).await.unwrap_or_default();
            got.extend(reached(&mut found, &lacked, |_| &[]));
        }
        let order = oldest_first(&got);
        Ok(Missing { events: order.into_iter().map(|at| got[at].clone()).collect(), answered })
    }

    /// Those of the events that lack predecessors, and which.
    async fn still_lacked(
        &self,
        room: &RoomId,
        got: &[Pdu],
    ) -> Result<(Vec<OwnedEventId>, Vec<OwnedEventId>), NotReceived> {
        let snapshot = self.env().store.snapshot();
        let before = got.iter().flat_map(|pdu| &pdu.prev_events);
        let before: Vec<_> =
            before.filter(|id| !got.iter().any(|pdu| pdu.event_id == **id)).cloned().collect();
        let lacked = without_state(&snapshot, room, &before).await?;
        let lacks = |pdu: &&Pdu| pdu.prev_events.iter().any(|id| lacked.contains(id));
        let latest = got.iter().filter(lacks).map(|pdu| pdu.event_id.clone());
        Ok((latest.take(MISSING_AT_ONCE).collect(), lacked))
    }

    /// Receives an event; where its predecessors are missing, over the gap before it; where its auth
    /// events are, after those.
    async fn receive_over(
        &self,
        fetcher: &Fetcher<'_>,
        pdu: &Pdu,
        (gaps, gap_before): (&mut usize, GapBefore),
    ) -> Result<(), NotReceived> {
        let (rooms, room) = (self.rooms(), fetcher.room);
        let lacked = without_state(&self.env().store.snapshot(), room, &pdu.prev_events).await?;
        // A state comes with the auth events of what is after it.
        let state = if lacked.is_empty() {
            None
        } else if gap_before == GapBefore::May && *gaps < GAPS_MAX {
            *gaps += 1;
            Some(self.fetch_state_before(fetcher, &pdu.event_id).await?)
        } else {
            return Err(Lacking::NotHad.into());
        };
        let receive = async || match &state {
            None => receive(rooms, room, pdu.clone()).await,
            Some(state) => receive_after_gap(rooms, room, pdu.clone(), state).await,
        };
        let mut received = receive().await;
        if let Err(ReceiveError::MissingAuthEvents(missing)) = &received {
            self.fetch_auth_events(fetcher, pdu, missing).await?;
            received = receive().await;
        }
        received?;
        Ok(())
    }

    /// Stores what authorises an event, as other servers have it.
    async fn fetch_auth_events(
        &self,
        fetcher: &Fetcher<'_>,
        pdu: &Pdu,
        missing: &[OwnedEventId],
    ) -> Result<(), NotReceived> {
        // Of a room that we know in part we have all of a chain but some members.
        let first = match partial::is_partial(&self.env().store.snapshot(), fetcher.room).await? {
            true => fetcher.events(missing).await,
            false => Err(Lacking::NotHad),
        };
        let mut found = match first {
            Ok(found) if !found.is_empty() => found,
            _ => match fetcher.auth_chain(&pdu.event_id).await {
                Ok(found) => found,
                Err(_) => fetcher.events(missing).await?,
            },
        };
        let chain = reached(&mut found, &pdu.auth_events, |pdu| &pdu.auth_events);
        self.store_with_auth(fetcher, chain).await
    }

    /// The IDs of the state before an event, as another server tells, after all its events were
    /// stored; those that cannot be had are left out.
    pub(super) async fn fetch_state_before(
        &self,
        fetcher: &Fetcher<'_>,
        event: &OwnedEventId,
    ) -> Result<Vec<OwnedEventId>, NotReceived> {
        let mut told = fetcher.state_ids(event).await?;
        let mut ids = told.state.clone();
        ids.append(&mut told.auth_chain);
        let snapshot = self.env().store.snapshot();
        let missing = unknown(&snapshot, fetcher.room, &ids).await?;
        if !missing.is_empty() {
            let found = fetcher.parts_of_state(event, missing).await?;
            self.store_with_auth(fetcher, found).await?;
        }
        let snapshot = self.env().store.snapshot();
        let absent = unknown(&snapshot, fetcher.room, &told.state).await?;
        if !absent.is_empty() {
            let (room, count) = (fetcher.room, absent.len());
            tracing::info!(%room, %event, count, "a state is taken without what cannot be had");
        }
        told.state.retain(|id| !absent.contains(id));
        if told.state.is_empty() {
            return Err(Lacking::NotHad.into());
        }
        Ok(told.state)
    }

    /// Stores events known only as parts of states, after fetching auth events that are missing.
    /// What lacks some for good is left out.
    pub(super) async fn store_with_auth(
        &self,
        fetcher: &Fetcher<'_>,
        events: Vec<Pdu>,
    ) -> Result<(), NotReceived> {
        let events = fetcher.with_auth_events(events).await?;
        self.store_outliers_of(fetcher, events).await
    }

    pub(super) async fn store_outliers_of(
        &self,
        fetcher: &Fetcher<'_>,
        events: Vec<Pdu>,
    ) -> Result<(), NotReceived> {
        if events.is_empty() {
            return Ok(());
        }
        Ok(store_outliers(self.rooms(), fetcher.room, fetcher.version, events).await?)
    }
}
