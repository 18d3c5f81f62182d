//! Asking other servers for events of a room, within limits.
//!
//! Answers are not believed: what comes is checked ([`crate::Federation::check_pdus`]), and only what
//! was asked for is taken.

use std::collections::{HashMap, HashSet};

use futures::{FutureExt, StreamExt, stream};
use millrace_domain::rooms::receive::unknown;
use millrace_model::Pdu;
use millrace_store::{
    Read, Scan,
    tables::{ROOM_SERVERS, TIMELINE},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName,
    UInt,
    api::{
        Direction,
        federation::{
            authorization::get_event_authorization::v1 as get_event_auth,
            backfill::get_backfill::v1 as get_backfill,
            event::{
                get_event::v1 as get_event, get_event_by_timestamp::v1 as get_event_by_timestamp,
                get_missing_events::v1 as get_missing_events, get_room_state::v1 as get_state,
                get_room_state_ids::v1 as get_state_ids,
            },
        },
    },
};
use serde_json::value::RawValue;

use super::{
    FetchLimits, Inbound,
    order::{closed, reached},
};
use crate::{PeerError, transport::ExchangeLimits};

/// Servers that are asked for one thing, one after the other.
const SERVERS_MAX: usize = 4;
/// Events that are asked for one by one for the sake of one event, at most.
pub(super) const ONE_BY_ONE_MAX: usize = 100;
/// Events of history that are asked for at once, and so many beginnings of it.
const BACKFILL_MAX: usize = 100;
const BACKFILL_FROM_MAX: usize = 20;
/// How often it is asked for auth events of auth events.
const AUTH_ROUNDS_MAX: usize = 5;

/// Nobody could be asked, or nobody had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// Servers that may have it cannot be reached now.
    Unreachable,
    /// Whoever was asked does not have it, or answered something else.
    NotHad,
}

/// What is asked about one room.
pub(super) struct Fetcher<'a> {
    inbound: &'a Inbound,
    pub room: &'a RoomId,
    pub version: &'a RoomVersionId,
    servers: Vec<OwnedServerName>,
}

/// A state, as another server told it.
pub(super) struct ToldState {
    /// IDs of its events.
    pub state: Vec<OwnedEventId>,
    /// IDs of the events of their auth chains.
    pub auth_chain: Vec<OwnedEventId>,
}

impl<'a> Fetcher<'a> {
    /// Asks `first` before some of the other servers in the room.
    pub async fn new(
        inbound: &'a Inbound,
        (room, version): (&'a RoomId, &'a RoomVersionId),
        first: &[&ServerName],
    ) -> Result<Self, millrace_store::Error> {
        let us = &inbound.env().identity.name;
        let mut candidates: Vec<OwnedServerName> =
            first.iter().map(|server| (*server).to_owned()).collect();
        let rows = inbound.env().store.snapshot().scan(&ROOM_SERVERS, room, Scan::all()).await?;
        let mut others: Vec<_> = rows.into_iter().filter(|(_, row)| row.joined > 0).collect();
        // Who has more users there is more likely to be up, and to know the room for long.
        others.sort_by_key(|(_, row)| std::cmp::Reverse(row.joined));
        candidates.extend(others.into_iter().map(|(server, _)| server));
        let mut met = HashSet::new();
        candidates.retain(|server| server != us && met.insert(server.clone()));
        candidates.truncate(SERVERS_MAX);
        Ok(Self { inbound, room, version, servers: candidates })
    }

    /// Asks `first` and other servers in the room, on each attempt others of them, if there are many.
    pub async fn on_attempt(
        inbound: &'a Inbound,
        (room, version): (&'a RoomId, &'a RoomVersionId),
        first: Option<&ServerName>,
        attempt: usize,
    ) -> Result<Self, millrace_store::Error> {
        let us = &inbound.env().identity.name;
        let rows = inbound.env().store.snapshot().scan(&ROOM_SERVERS, room, Scan::all()).await?;
        let others = rows.into_iter().filter(|(_, row)| row.joined > 0).map(|(server, _)| server);
        let mut servers: Vec<OwnedServerName> =
            first.iter().map(|server| (*server).to_owned()).collect();
        servers.extend(others.filter(|server| server != us && Some(&**server) != first));
        if let Some(turn) = (attempt * SERVERS_MAX).checked_rem(servers.len()) {
            servers.rotate_left(turn);
        }
        servers.truncate(SERVERS_MAX);
        Ok(Self { inbound, room, version, servers })
    }

    fn limits(&self) -> FetchLimits {
        self.inbound.settings.fetch
    }

    fn exchange(&self) -> ExchangeLimits {
        ExchangeLimits { timeout: self.limits().timeout, ..ExchangeLimits::default() }
    }

    /// The depth of the first event that came live: what lies before it is history, to be filled in
    /// where somebody reads it, and is not received as news.
    async fn first_depth(&self) -> Option<u64> {
        let rooms = &self.inbound.federation.rooms;
        let snapshot = rooms.env.store.snapshot();
        let first = snapshot.get(&TIMELINE, self.room, (1, 0)).await.ok()??;
        let event = rooms.events.load_one(&snapshot, self.room, self.version, first.event).await;
        Some(event.ok()?.pdu.depth)
    }

    /// The events between `earliest` and `latest`, as the first server has them that has any of good
    /// form. Empty where those that answered gave none; an error where nobody answered.
    pub async fn missing(
        &self,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
    ) -> Result<HashMap<OwnedEventId, Pdu>, Lacking> {
        let mut lacking = Lacking::NotHad;
        let mut answered = false;
        let min_depth = self.first_depth().await.unwrap_or(1);
        for server in &self.servers {
            let (room, latest) = (self.room.to_owned(), latest.to_vec());
            let mut request = get_missing_events::Request::new(room, earliest.to_vec(), latest);
            request.min_depth = UInt::new_saturating(min_depth);
            request.limit = UInt::new_saturating(limit as u64);
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(answer) => {
                    answered = true;
                    let mut events = answer.events;
                    events.truncate(limit);
                    let found = self.checked(events).await;
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
                Err(error) => note(&mut lacking, &error),
            }
        }
        if answered { Ok(HashMap::new()) } else { Err(lacking) }
    }

    /// Events of which some are `missing`, and what comes before those, as the first server has them
    /// that has any.
    pub async fn backfill(&self, missing: &[OwnedEventId]) -> Result<Vec<Pdu>, Lacking> {
        let mut lacking = Lacking::NotHad;
        let from: Vec<OwnedEventId> = missing.iter().take(BACKFILL_FROM_MAX).cloned().collect();
        for server in &self.servers {
            let limit = UInt::new_saturating(BACKFILL_MAX as u64);
            let request = get_backfill::Request::new(self.room.to_owned(), from.clone(), limit);
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(answer) => {
                    let mut events = answer.pdus;
                    events.truncate(BACKFILL_MAX);
                    let mut found = self.checked(events).await;
                    let found = reached(&mut found, &from, |pdu| &pdu.prev_events);
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
                Err(error) => note(&mut lacking, &error),
            }
        }
        Err(lacking)
    }

    /// The event closest to a time, as the first server tells that knows one.
    pub async fn closest(
        &self,
        wanted: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Option<get_event_by_timestamp::Response> {
        for server in &self.servers {
            let room = self.room.to_owned();
            let request = get_event_by_timestamp::Request::new(room, wanted, direction);
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(found) => return Some(found),
                Err(error) => note(&mut Lacking::NotHad, &error),
            }
        }
        None
    }

    /// The IDs of the state before an event.
    pub async fn state_ids(&self, event: &OwnedEventId) -> Result<ToldState, Lacking> {
        let mut lacking = Lacking::NotHad;
        for server in &self.servers {
            let request = get_state_ids::Request::new(event.clone(), self.room.to_owned());
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(told) if told.pdu_ids.is_empty() => {}
                Ok(told) => {
                    let count = told.pdu_ids.len() + told.auth_chain_ids.len();
                    if count > self.limits().state_events_max {
                        tracing::warn!(%server, room = %self.room, count, "a state is too large");
                        continue;
                    }
                    return Ok(ToldState { state: told.pdu_ids, auth_chain: told.auth_chain_ids });
                }
                Err(error) => note(&mut lacking, &error),
            }
        }
        Err(lacking)
    }

    /// The whole state before an event, unchecked, what authorises its events first: as the first
    /// server tells it that has any.
    pub async fn whole_state(&self, event: &OwnedEventId) -> Vec<Box<RawValue>> {
        let limits = ExchangeLimits {
            timeout: self.limits().timeout.saturating_mul(4),
            answer_bytes_max: self.limits().state_bytes_max,
        };
        for server in &self.servers {
            let request = get_state::Request::new(event.clone(), self.room.to_owned());
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, limits).await {
                Ok(answer) => {
                    let mut events = answer.auth_chain;
                    events.extend(answer.pdus);
                    events.truncate(self.limits().state_events_max);
                    if !events.is_empty() {
                        return events;
                    }
                }
                Err(error) => note(&mut Lacking::NotHad, &error),
            }
        }
        Vec::new()
    }

    /// Events of the state before `event` and of its auth chains that are missing here: few are asked
    /// for one by one, many come with the whole state.
    pub async fn parts_of_state(
        &self,
        event: &OwnedEventId,
        mut missing: Vec<OwnedEventId>,
    ) -> Result<Vec<Pdu>, Lacking> {
        let mut found = HashMap::new();
        if missing.len() > ONE_BY_ONE_MAX {
            found = self.checked(self.whole_state(event).await).await;
            let wanted: HashSet<&OwnedEventId> = missing.iter().collect();
            found.retain(|id, _| wanted.contains(id));
            missing.retain(|id| !found.contains_key(id));
        }
        missing.truncate(ONE_BY_ONE_MAX);
        if !missing.is_empty() {
            found.extend(self.events(&missing).await?);
        }
        Ok(found.into_values().collect())
    }

    /// The events with those that authorise them, and so on, as far as they are not stored. What
    /// lacks some of them for good is left out.
    pub async fn with_auth_events(
        &self,
        mut events: Vec<Pdu>,
    ) -> Result<Vec<Pdu>, millrace_store::Error> {
        let mut asked: HashSet<OwnedEventId> = HashSet::new();
        for _ in 0..AUTH_ROUNDS_MAX {
            let mut lacked = self.lacked_auth_events(&events).await?;
            lacked.retain(|id| asked.insert(id.clone()));
            lacked.truncate(ONE_BY_ONE_MAX);
            if lacked.is_empty() {
                break;
            }
            match self.events(&lacked).await {
                Ok(found) => events.extend(found.into_values()),
                Err(_) => break,
            }
        }
        let lacked: HashSet<OwnedEventId> =
            self.lacked_auth_events(&events).await?.into_iter().collect();
        let named = events.iter().flat_map(|pdu| &pdu.auth_events);
        let known = named.filter(|id| !lacked.contains(*id)).cloned().collect();
        let events_there: HashSet<OwnedEventId> =
            events.iter().map(|pdu| pdu.event_id.clone()).collect();
        let stored: HashSet<OwnedEventId> =
            HashSet::difference(&known, &events_there).cloned().collect();
        Ok(closed(events, &stored))
    }

    /// Auth events of these that are neither among them nor stored.
    pub async fn lacked_auth_events(
        &self,
        events: &[Pdu],
    ) -> Result<Vec<OwnedEventId>, millrace_store::Error> {
        let ids: HashSet<&OwnedEventId> = events.iter().map(|pdu| &pdu.event_id).collect();
        let named: HashSet<&OwnedEventId> =
            events.iter().flat_map(|pdu| &pdu.auth_events).collect();
        let others: Vec<OwnedEventId> = named.difference(&ids).map(|id| (*id).clone()).collect();
        unknown(&self.inbound.env().store.snapshot(), self.room, &others).await
    }

    /// The events of an event's auth chain, as the first server has it that answers.
    pub async fn auth_chain(
        &self,
        event: &OwnedEventId,
    ) -> Result<HashMap<OwnedEventId, Pdu>, Lacking> {
        let mut lacking = Lacking::NotHad;
        for server in &self.servers {
            let request = get_event_auth::Request::new(self.room.to_owned(), event.clone());
            let peers = &self.inbound.federation.peers;
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(answer) => {
                    let mut events = answer.auth_chain;
                    events.truncate(self.limits().state_events_max);
                    let found = self.checked(events).await;
                    if !found.is_empty() {
                        return Ok(found);
                    }
                }
                Err(error) => note(&mut lacking, &error),
            }
        }
        Err(lacking)
    }

    /// Events by their IDs, several at once and from several servers.
    pub async fn events(
        &self,
        ids: &[OwnedEventId],
    ) -> Result<HashMap<OwnedEventId, Pdu>, Lacking> {
        // Boxed and collected, as the compiler cannot yet see else that it can be sent to a thread.
        let asked: Vec<_> =
            ids.iter().enumerate().map(|(at, id)| self.event(at, id).boxed()).collect();
        let answers: Vec<Result<Box<RawValue>, Lacking>> =
            stream::iter(asked).buffered(self.limits().at_once).collect().await;
        let unreachable = answers.contains_unreachable();
        let mut found = self.checked(answers.into_iter().flatten().collect()).await;
        let wanted: HashSet<&OwnedEventId> = ids.iter().collect();
        found.retain(|id, _| wanted.contains(id));
        if found.is_empty() && unreachable {
            return Err(Lacking::Unreachable);
        }
        Ok(found)
    }

    /// One event. Different ones are first asked of different servers, but most of the first.
    async fn event(&self, at: usize, id: &OwnedEventId) -> Result<Box<RawValue>, Lacking> {
        let mut lacking = Lacking::NotHad;
        let begin = if at.is_multiple_of(2) { 0 } else { at % self.servers.len().max(1) };
        for server in self.servers.iter().cycle().skip(begin).take(self.servers.len()) {
            let peers = &self.inbound.federation.peers;
            let request = get_event::Request::new(id.clone());
            match peers.ask_within(server, request, self.exchange()).await {
                Ok(answer) => return Ok(answer.pdu),
                Err(error) => note(&mut lacking, &error),
            }
        }
        Err(lacking)
    }

    /// Those of the events that are events of the room.
    pub async fn checked(&self, events: Vec<Box<RawValue>>) -> HashMap<OwnedEventId, Pdu> {
        let checked = self.inbound.federation.check_pdus(self.version, events).await;
        let of_room = checked.into_iter().flatten().filter(|pdu| pdu.room_id == self.room);
        of_room.map(|pdu| (pdu.event_id.clone(), pdu)).collect()
    }
}

/// Whether any answer failed because nobody could be reached.
trait ContainsUnreachable {
    fn contains_unreachable(&self) -> bool;
}

impl<T> ContainsUnreachable for Vec<Result<T, Lacking>> {
    fn contains_unreachable(&self) -> bool {
        self.iter().any(|answer| matches!(answer, Err(Lacking::Unreachable)))
    }
}

fn note(lacking: &mut Lacking, error: &PeerError) {
    match error {
        PeerError::Down { .. } | PeerError::Transport { .. } => *lacking = Lacking::Unreachable,
        PeerError::Closed
        | PeerError::Ourselves
        | PeerError::Request(_)
        | PeerError::Refused { .. }
        | PeerError::Unreadable { .. } => {}
    }
    tracing::debug!(%error, "another server does not help");
}
