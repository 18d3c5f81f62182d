//! Fetching what is missing of rooms of which only a part of the state is known (spec: Server-Server
//! API, `send_join` with `omit_members`; Retrieving events).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use millrace_domain::rooms::{
    partial::{
        self, CompleteError,
        complete::{self, Pace, Progress},
        settle::{self, Incomplete, ToldState, Want},
    },
    receive::unknown,
};
use millrace_model::Pdu;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::value::RawValue;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Inbound,
    fetch::{Fetcher, Lacking, ONE_BY_ONE_MAX},
    receive::NotReceived,
};

/// Rooms that are completed at once; others wait.
const ROOMS_AT_ONCE: usize = 4;
/// Events of a state that are checked and stored at once: so many lie in memory parsed.
const EVENTS_PER_CHUNK: usize = 2000;
/// After so many failures a state is taken although much of it cannot be had.
const PATIENT_ATTEMPTS: usize = 5;
/// Of a state, one in so many events may be impossible to have, as its server is gone.
const ABSENT_SHARE: usize = 10;
/// As often as it is joined anew meanwhile, a room is gone on with at once.
const ROUNDS_MAX: usize = 10;
/// The pause after a first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// How often it is looked for rooms that wait, if nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a room is not complete yet.
#[derive(Debug, thiserror::Error)]
enum NotCompleted {
    /// What is missing cannot be had now.
    #[error(transparent)]
    Fetch(#[from] NotReceived),
    /// What was told cannot be used.
    #[error(transparent)]
    Complete(#[from] CompleteError),
}

impl From<Lacking> for NotCompleted {
    fn from(lacking: Lacking) -> Self {
        Self::Fetch(lacking.into())
    }
}

impl From<millrace_store::Error> for NotCompleted {
    fn from(error: millrace_store::Error) -> Self {
        Self::Fetch(error.into())
    }
}

/// A room that could not be completed.
#[derive(Debug, Clone, Copy)]
struct Failed {
    times: usize,
    again: Instant,
}

impl Inbound {
    /// Completes rooms for ever, beginning with those that were not complete when the server stopped.
    pub async fn run_partial_rooms(self: Arc<Self>) {
        let mut tasks: JoinSet<(OwnedRoomId, Result<(), NotCompleted>)> = JoinSet::new();
        let mut under_way: HashSet<OwnedRoomId> = HashSet::new();
        let mut failed: HashMap<OwnedRoomId, Failed> = HashMap::new();
        loop {
            let waiting = partial::rooms(&self.env().store.snapshot()).await;
            let waiting = waiting.unwrap_or_else(|error| {
                tracing::error!(%error, "the rooms that are not complete cannot be read");
                Vec::new()
            });
            failed.retain(|room, _| waiting.contains(room));
            let some_failed = !failed.is_empty();
            for room in waiting {
                let is_due = failed.get(&room).is_none_or(|failed| failed.again <= Instant::now());
                if tasks.len() < ROOMS_AT_ONCE && is_due && under_way.insert(room.clone()) {
                    let attempt = failed.get(&room).map_or(0, |failed| failed.times);
                    let inbound = Arc::clone(&self);
                    tasks.spawn(async move {
                        let completed = inbound.complete_room(&room, attempt).await;
                        (room, completed)
                    });
                }
            }
            tokio::select! {
                // Who joins a room anew can be told of it again.
                () = self.federation.partial_room.notified() => failed.clear(),
                () = tokio::time::sleep(LOOK_EVERY), if some_failed => {}
                Some(ended) = tasks.join_next() => match ended {
                    Ok((room, completed)) => {
                        under_way.remove(&room);
                        note_end(&mut failed, room, completed);
                    }
                    Err(error) => {
                        tracing::error!(%error, "completing a room failed");
                        under_way.clear();
                    }
                },
            }
        }
    }

    /// Completes a room, as far as other servers tell what is missing.
    async fn complete_room(&self, room: &RoomId, attempt: usize) -> Result<(), NotCompleted> {
        for _ in 0..ROUNDS_MAX {
            let Some(want) = settle::wanted(self.rooms(), room).await? else { return Ok(()) };
            for event in &want.events {
                self.settle_one(room, &want, event, attempt).await?;
            }
            loop {
                match complete::step(self.rooms(), room, Pace::default()).await? {
                    Progress::GoesOn => tokio::task::yield_now().await,
                    Progress::Wanting => break,
                    Progress::Complete => return Ok(()),
                }
            }
        }
        Err(Lacking::Unreachable.into())
    }

    async fn settle_one(
        &self,
        room: &RoomId,
        want: &Want,
        event: &Incomplete,
        attempt: usize,
    ) -> Result<(), NotCompleted> {
        if !want.is_resident {
            // Nobody tells a server of the state of a room that it is not in.
            return Err(Lacking::NotHad.into());
        }
        let first = want.told_by.as_deref();
        let fetcher = Fetcher::on_attempt(self, (room, &want.version), first, attempt).await?;
        let told = match self.told_state(&fetcher, event, attempt).await {
            Ok(told) => told,
            // It matters for the history of an earlier stay only.
            Err(NotCompleted::Fetch(NotReceived::Lacking(_))) if event.superseded => {
                return Ok(settle::give_up(self.rooms(), room, event.number).await?);
            }
            Err(error) => return Err(error),
        };
        Ok(settle::settle(self.rooms(), room, event.number, &told).await?)
    }

    /// The state before an event, as another server tells it; its events are stored. Where it follows
    /// one other event only, that is asked for the state before that: it has been known for longer.
    async fn told_state(
        &self,
        fetcher: &Fetcher<'_>,
        event: &Incomplete,
        attempt: usize,
    ) -> Result<ToldState, NotCompleted> {
        let then = match &*event.prev_events {
            [only] => Some(only),
            _ => None,
        };
        let mut told = fetcher.state_ids(then.unwrap_or(&event.event_id)).await?;
        let mut ids = told.state.clone();
        ids.append(&mut told.auth_chain);
        ids.extend(then.cloned());
        let missing = unknown(&self.env().store.snapshot(), fetcher.room, &ids).await?;
        let missing = match missing.len() {
            ..=ONE_BY_ONE_MAX => missing,
            _ => {
                let raw = fetcher.whole_state(then.unwrap_or(&event.event_id)).await;
                let wanted = missing.iter().cloned().collect();
                self.store_in_chunks(fetcher, raw, &wanted).await?;
                unknown(&self.env().store.snapshot(), fetcher.room, &missing).await?
            }
        };
        if !missing.is_empty() {
            let some = &missing[..missing.len().min(ONE_BY_ONE_MAX)];
            let found = fetcher.events(some).await?;
            self.store_with_auth(fetcher, found.into_values().collect()).await?;
        }
        let snapshot = self.env().store.snapshot();
        let absent = unknown(&snapshot, fetcher.room, &told.state).await?;
        // Few were asked for one by one, and came not as they are signed.
        let many = ONE_BY_ONE_MAX.max(told.state.len() / ABSENT_SHARE);
        let lacks_much = absent.len() > many;
        if lacks_much && attempt < PATIENT_ATTEMPTS {
            return Err(Lacking::Unreachable.into());
        }
        if !absent.is_empty() {
            let (room, count) = (fetcher.room, absent.len());
            tracing::info!(%room, count, "a room is completed without what cannot be had");
        }
        let absent: HashSet<OwnedEventId> = absent.into_iter().collect();
        told.state.retain(|id| !absent.contains(id));
        let mut then = then.cloned();
        if !unknown(&snapshot, fetcher.room, then.as_slice()).await?.is_empty() {
            then = None;
        }
        Ok(ToldState { state: told.state, then })
    }

    /// Checks and stores those of the events that are wanted, few at once.
    async fn store_in_chunks(
        &self,
        fetcher: &Fetcher<'_>,
        raw: Vec<Box<RawValue>>,
        wanted: &HashSet<OwnedEventId>,
    ) -> Result<(), NotCompleted> {
        let mut later: Vec<Pdu> = Vec::new();
        let mut raw = raw.into_iter();
        while raw.len() > 0 {
            let chunk = raw.by_ref().take(EVENTS_PER_CHUNK).collect();
            let found = fetcher.checked(chunk).await.into_values();
            later.extend(found.filter(|pdu| wanted.contains(&pdu.event_id)));
            let lacked = fetcher.lacked_auth_events(&later).await?;
            let (founded, unfounded) = founded(later, lacked.into_iter().collect());
            later = unfounded;
            self.store_outliers_of(fetcher, founded).await?;
        }
        Ok(self.store_with_auth(fetcher, later).await?)
    }
}

/// Parts events: those whose auth events are stored or among them, and those that lack some.
fn founded(mut events: Vec<Pdu>, mut lacked: HashSet<OwnedEventId>) -> (Vec<Pdu>, Vec<Pdu>) {
    let mut unfounded = Vec::new();
    loop {
        let lacks = |pdu: &Pdu| pdu.auth_events.iter().any(|id| lacked.contains(id));
        let (some, rest): (Vec<Pdu>, Vec<Pdu>) = events.into_iter().partition(lacks);
        events = rest;
        if some.is_empty() {
            return (events, unfounded);
        }
        lacked.extend(some.iter().map(|pdu| pdu.event_id.clone()));
        unfounded.extend(some);
    }
}

/// Notes how work on a room has ended.
fn note_end(
    failed: &mut HashMap<OwnedRoomId, Failed>,
    room: OwnedRoomId,
    completed: Result<(), NotCompleted>,
) {
    let Err(error) = completed else {
        tracing::info!(%room, "a room is complete");
        failed.remove(&room);
        return;
    };
    let times = failed.get(&room).map_or(1, |failed| failed.times + 1);
    tracing::info!(%room, %error, times, "a room cannot be completed yet");
    let doubled = FIRST_PAUSE.saturating_mul(1 << times.min(16));
    failed.insert(room, Failed { times, again: Instant::now() + doubled.min(LONGEST_PAUSE) });
}
