//! Taking over a room of other servers, which one of our users joins (spec: Server-Server API,
//! Joining Rooms).
//!
//! What is large is written in small commits that nobody sees, and that a later attempt finds and
//! goes on from: outliers, nodes of the state, flat rows. The last commit switches the head, and with
//! it the room is there, or there again.

mod stage;
mod told_servers;

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt;
use millrace_model::{
    Pdu,
    rules::auth::{self, Refused},
};
use millrace_store::{
    Read, Tx,
    rows::{
        partial::{Before, Ending},
        room::{EventHeader, Extremity, RoomHead, TimelineRow},
    },
    state_tree::StateRoot,
    tables::{EVENT_NUMBERS, ROOM_HEAD, TIMELINE},
};
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

pub(super) use self::stage::write_nodes;
use self::stage::{Staged, Target};
use super::{
    AppendError, Numbers, ReceiveError, Received, RoomTx, Rooms,
    accept::placed,
    events,
    flat::membership_of,
    judge::{check_by_auth_events, look_up},
    outliers::store_outliers,
    partial::{is_partial, settle},
    receive::{receive, receive_after_gap, receive_after_gap_without_members},
};

/// So often a room is taken over again that has changed meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// A room of other servers, as one of them told when it let our user join. All of it was checked as
/// far as form, signatures and hashes go.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The room.
    pub room: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// Our user's join.
    pub join: Pdu,
    /// The state before the join.
    pub state: Vec<Pdu>,
    /// The auth chain of the state, and of the join.
    pub auth_chain: Vec<Pdu>,
    /// Where the state is without members: who told it, and the servers in the room.
    pub omitted: Option<Omitted>,
}

/// What is told in the place of a room's members.
#[derive(Debug, Clone)]
pub struct Omitted {
    /// The server that told the state.
    pub told_by: OwnedServerName,
    /// The servers that are in the room.
    pub servers: Vec<OwnedServerName>,
}

/// Why a room could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The state has no create event, or one of another room version.
    #[error("the state that was told of {0} has no create event of its version")]
    NoCreate(OwnedRoomId),
    /// The event is not the join of a user of ours.
    #[error("{0} is no join of a user of this server")]
    NoJoin(OwnedEventId),
    /// The state that was told does not allow the join.
    #[error("the room's state does not allow the join: {0}")]
    Refused(Refused),
    /// The room kept changing.
    #[error("{0} is being joined by others")]
    Busy(OwnedRoomId),
    /// Its events cannot be received.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
}

impl From<millrace_store::Error> for ImportError {
    fn from(error: millrace_store::Error) -> Self {
        Self::Receive(error.into())
    }
}

impl From<AppendError> for ImportError {
    fn from(error: AppendError) -> Self {
        Self::Receive(error.into())
    }
}

/// The rooms that are being taken over, one attempt at a time each.
#[derive(Clone, Default)]
pub struct Imports {
    rooms: Arc<Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Imports {
    /// Waits for the turn to change what a room has under no head, or beside it.
    pub(super) async fn turn(&self, room: &RoomId) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = {
            let mut rooms = self.rooms.lock();
            rooms.retain(|_, gate| Arc::strong_count(gate) > 1);
            Arc::clone(rooms.entry(room.to_owned()).or_default())
        };
        gate.lock_owned().await
    }
}

/// Takes over a room that a user of ours has joined by the help of another server, for the first
/// time or again. Where others of ours are in the room meanwhile, the join is received as any event.
///
/// # Errors
/// Where what was told cannot be; then the room is as it was.
pub async fn import(rooms: &Rooms, admission: Admission) -> Result<(), ImportError> {
    check_form(rooms, &admission)?;
    let Admission { room, version, join, state, auth_chain, omitted } = admission;
    let _turn = rooms.imports.turn(&room).await;
    let entries = stage::entries(&state);
    let mut outliers = auth_chain;
    outliers.extend(state);
    outliers.retain(|pdu| pdu.event_id != join.event_id);
    store_outliers(rooms, &room, &version, outliers).await?;
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = rooms.env.store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, &room, ()).await?;
        if head.as_ref().is_some_and(|head| head.joined_here > 0) {
            return receive_join(rooms, &room, join, (&entries, omitted.as_ref())).await;
        }
        let place = (&*room, &version);
        let target = Target::load(rooms, place, (&entries, omitted.as_ref())).await?;
        check_join(rooms, &target, &join).await?;
        let staged = stage::stage(rooms, &target, head).await?;
        if switch(rooms, &target, &join, &staged).await? {
            return Ok(());
        }
    }
    Err(ImportError::Busy(room))
}

#[derive(Deserialize)]
struct CreateContent {
    #[serde(default = "first_version")]
    room_version: RoomVersionId,
}

const fn first_version() -> RoomVersionId {
    RoomVersionId::V1
}

fn check_form(rooms: &Rooms, admission: &Admission) -> Result<(), ImportError> {
    let Admission { room, version, join, state, .. } = admission;
    let user = join.state_key.as_deref().and_then(|key| UserId::parse(key).ok());
    let joins = join.kind == TimelineEventType::RoomMember
        && user.is_some_and(|user| rooms.env.is_local(&user))
        && membership_of(join) == Some(MembershipState::Join)
        && join.room_id == *room;
    if !joins {
        return Err(ImportError::NoJoin(join.event_id.clone()));
    }
    let create = state.iter().find(|pdu| pdu.is_state_of(&TimelineEventType::RoomCreate, ""));
    let content = create.and_then(|pdu| pdu.content_as::<CreateContent>().ok());
    match content {
        Some(content) if content.room_version == *version => Ok(()),
        _ => Err(ImportError::NoCreate(room.clone())),
    }
}

/// The join, where we are in the room already.
async fn receive_join(
    rooms: &Rooms,
    room: &RoomId,
    join: Pdu,
    (entries, omitted): (&[stage::Entry], Option<&Omitted>),
) -> Result<(), ImportError> {
    let received = match receive(rooms, room, join.clone()).await {
        Err(ReceiveError::MissingPrevEvents(_)) => {
            let state: Vec<_> = entries.iter().map(|entry| entry.event_id.clone()).collect();
            match omitted {
                None => receive_after_gap(rooms, room, join, &state).await?,
                Some(_) if is_partial(&rooms.env.store.snapshot(), room).await? => {
                    receive_after_gap_without_members(rooms, room, join, &state).await?
                }
                Some(_) => return Err(ImportError::Busy(room.to_owned())),
            }
        }
        received => received?,
    };
    match received {
        Received::Accepted | Received::Known => Ok(()),
        Received::SoftFailed | Received::Rejected => {
            let reason = "it is not allowed by the room as this server knows it".to_owned();
            Err(ImportError::Refused(Refused(reason)))
        }
    }
}

async fn check_join(rooms: &Rooms, target: &Target, join: &Pdu) -> Result<(), ImportError> {
    let (sender, state_key) = (&join.sender, join.state_key.as_deref());
    let rules = target.rules;
    let places = auth::auth_types_for_event(&join.kind, sender, state_key, &join.content, rules);
    let mut places = places.map_err(ImportError::Refused)?;
    places.push((StateEventType::RoomCreate, String::new()));
    let numbers = places.iter().filter_map(|(kind, key)| {
        target.state.get(&(kind.to_string(), key.clone())).map(|held| held.number)
    });
    let numbers: Vec<u64> = numbers.collect();
    let snapshot = rooms.env.store.snapshot();
    let loaded = rooms.events.load(&snapshot, &target.room, &target.version, &numbers).await;
    let loaded = loaded.map_err(AppendError::from)?;
    let state = || loaded.iter().map(|event| &event.pdu);
    let cited = snapshot.get_many(&EVENT_NUMBERS, &target.room, join.auth_events.iter()).await?;
    let cited: Vec<u64> = cited.into_iter().flatten().collect();
    let cited = rooms.events.load(&snapshot, &target.room, &target.version, &cited).await;
    let cited = cited.map_err(AppendError::from)?;
    let cited: Vec<&Pdu> = cited.iter().map(|event| &event.pdu).collect();
    // Members whom the state is told without are those that authorise the join.
    let named = || cited.iter().copied().filter(|_| target.omitted.is_some());
    let named = || named().filter(|pdu| pdu.kind == TimelineEventType::RoomMember);
    auth::check(join, rules, |kind, key| look_up(state().chain(named()), kind, key))
        .map_err(ImportError::Refused)?;
    let create = state().find(|pdu| pdu.is_state_of(&TimelineEventType::RoomCreate, ""));
    check_by_auth_events(join, &cited, create, rules).map_err(ImportError::Refused)
}

/// Makes the room what was staged, and puts the join on top; false where it has changed meanwhile.
async fn switch(
    rooms: &Rooms,
    target: &Target,
    join: &Pdu,
    staged: &Staged,
) -> Result<bool, ImportError> {
    let numbers = &Numbers::draw(rooms, 1).await?;
    let body = |tx: Tx| {
        async move {
            if tx.get(&ROOM_HEAD, &target.room, ()).await? != staged.old {
                return Ok(false);
            }
            let head = staged.head.clone();
            let room = target.room.clone();
            let mut room = RoomTx::with_head(&tx, rooms, room, head, numbers)?;
            let missing = room.unplaced_among(&join.prev_events).await?;
            let found = events::find(&tx, &target.room, &join.event_id).await?;
            if let Some((_, EventHeader { place: Some(_), .. })) = found {
                return Ok(true);
            }
            let number = match found {
                Some((number, _)) => number,
                None => room.next_number(),
            };
            if let Some(omitted) = &target.omitted {
                room.begin_partial();
                settle::told_by(&tx, &target.room, &omitted.told_by).await?;
            }
            // First the others of ours, whose invitations show what is staged.
            room.follow(staged.root, &staged.ours).await?;
            room.put_join(number, join.clone(), staged.root).await?;
            let from = match (&target.omitted, missing.is_empty()) {
                // Of an earlier stay we know all that is before it.
                (_, true) => Before::Predecessors,
                (Some(_), false) => Before::Omitted,
                (None, false) => Before::Told,
            };
            room.note_partial(number, from, Ending::Only);
            if !missing.is_empty() {
                room.open_gap(room.head.last, missing);
            }
            room.finish();
            Ok::<_, ImportError>(true)
        }
        .boxed()
    };
    rooms.env.store.transact_in(&target.room, body).await
}

impl RoomTx<'_> {
    /// Writes the join as the room's only end. The head is that of the room before it.
    async fn put_join(
        &mut self,
        number: u64,
        join: Pdu,
        before: StateRoot,
    ) -> Result<(), AppendError> {
        let event = self.body(number, join).await?;
        let place = (self.head.last, 0);
        let replaces = self.replaced_by(&event, before).await?;
        let header = EventHeader { replaces, ..placed(&event, before, place) };
        self.write_header(number, header).await?;
        let after = self.state_after(&event, before).await?;
        let reference = event.pdu.reference(self.rules)?;
        self.head.extremities = vec![Extremity { event: reference, after }];
        self.set_root(after).await?;
        let row = TimelineRow { event: number, before, after };
        self.tx.put(&TIMELINE, &self.room_id, place, &row);
        Ok(())
    }
}

/// The head of a room that is to be: the old one's, if there was one, gone on by the join.
fn next_head(old: Option<&RoomHead>, target: &Target) -> RoomHead {
    let blank = RoomHead::new(target.version.clone());
    let old = old.cloned().unwrap_or(blank);
    RoomHead { version: target.version.clone(), last: old.last + 1, ..old }
}

#[cfg(test)]
mod tests;
