//! A room as another server may read it (spec: Server-Server API, Backfilling and retrieving missing
//! events; Client-Server API, Room History Visibility).

use std::sync::Arc;

use millrace_model::rules::{
    room_version,
    visibility::{self, AtEvent},
};
use millrace_store::{
    Read, Snapshot,
    rows::{
        outbox::ServerInRoom,
        room::{EventHeader, RoomHead},
    },
    state_tree::StateRoot,
    tables::{EVENT_NUMBERS, ROOM_HEAD, ROOM_SERVERS},
};
use parking_lot::Mutex;
use ruma::{
    EventId, OwnedEventId, RoomId, ServerName, UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use super::{Event, ReadError, Rooms};

/// Events that are loaded at once.
const EVENTS_PER_STEP: usize = 500;

/// A room at one snapshot, as another server reads it.
pub struct ServerView<'a> {
    /// Rooms and their caches.
    pub rooms: &'a Rooms,
    /// What is read from.
    pub snapshot: &'a Snapshot,
    /// The room.
    pub room_id: &'a RoomId,
    /// Who reads.
    pub server: &'a ServerName,
    /// The newest of the room.
    pub head: RoomHead,
    stays: ServerInRoom,
    rules: &'static RoomVersionRules,
    /// What states were found to say, by their root.
    known: Mutex<Vec<(StateRoot, HistoryVisibility, MembershipState)>>,
}

#[derive(Deserialize)]
struct VisibilityContent {
    history_visibility: HistoryVisibility,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

impl<'a> ServerView<'a> {
    /// Opens a room for a server; `None` where we do not have the room.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(
        rooms: &'a Rooms,
        snapshot: &'a Snapshot,
        room_id: &'a RoomId,
        server: &'a ServerName,
    ) -> Result<Option<Self>, ReadError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room_id, ()).await? else { return Ok(None) };
        let stays = snapshot.get(&ROOM_SERVERS, room_id, server).await?.unwrap_or_default();
        let rules = room_version::rules(&head.version)
            .ok_or_else(|| ReadError::Version(head.version.clone()))?;
        let known = Mutex::default();
        Ok(Some(Self { rooms, snapshot, room_id, server, head, stays, rules, known }))
    }

    /// Whether the server has users in the room.
    #[must_use]
    pub const fn is_in_room(&self) -> bool {
        self.stays.joined > 0
    }

    /// One event of the room and what is known beside it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find(
        &self,
        event: &EventId,
    ) -> Result<Option<(Arc<Event>, Arc<EventHeader>)>, ReadError> {
        let number = self.snapshot.get(&EVENT_NUMBERS, self.room_id, event).await?;
        let Some(number) = number else { return Ok(None) };
        Ok(self.load(&[number]).await?.pop())
    }

    /// Those of the events that we have.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find_many(
        &self,
        events: &[OwnedEventId],
    ) -> Result<Vec<(Arc<Event>, Arc<EventHeader>)>, ReadError> {
        let numbers = self.snapshot.get_many(&EVENT_NUMBERS, self.room_id, events.iter()).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        self.load(&numbers).await
    }

    /// Events by number.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load(
        &self,
        numbers: &[u64],
    ) -> Result<Vec<(Arc<Event>, Arc<EventHeader>)>, ReadError> {
        let mut loaded = Vec::with_capacity(numbers.len());
        for step in numbers.chunks(EVENTS_PER_STEP) {
            let events = &self.rooms.events;
            loaded.extend(
                events.load_with_headers(self.snapshot, self.room_id, &self.head, step).await?,
            );
        }
        Ok(loaded)
    }

    /// An event as the server is given it: redacted where it is, and where the server may not see
    /// it. Canonical JSON.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn show(&self, event: &Event, header: &EventHeader) -> Result<Arc<str>, ReadError> {
        if header.redacted_by.is_none() && self.sees(event, header).await? {
            return Ok(Arc::clone(event.pdu.json()));
        }
        Ok(Arc::clone(event.redacted(self.rules)?.pdu.json()))
    }

    /// Whether the server may see what an event says.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn sees(&self, event: &Event, header: &EventHeader) -> Result<bool, ReadError> {
        let pdu = &event.pdu;
        if pdu.sender.server_name() == self.server {
            return Ok(true);
        }
        if header.place.is_some_and(|(n, k)| k == 0 && self.stays.sees(n)) {
            return Ok(true);
        }
        let Some(before) = header.before else {
            // Known as a part of states only; those are told whole.
            return Ok(pdu.is_state());
        };
        let (visibility, membership) = self.deciders(before).await?;
        let member = pdu.kind == TimelineEventType::RoomMember;
        let own = member && pdu.state_key.as_deref().is_some_and(|user| self.is_theirs(user));
        let membership_set = own
            .then(|| pdu.content_as::<MemberContent>().ok())
            .flatten()
            .map(|content| content.membership);
        let visibility_set = pdu
            .is_state_of(&TimelineEventType::RoomHistoryVisibility, "")
            .then(|| pdu.content_as::<VisibilityContent>().ok())
            .flatten()
            .map(|content| content.history_visibility);
        let joined_since = self.is_in_room();
        Ok(visibility::may_see(&AtEvent {
            visibility,
            visibility_set,
            membership,
            membership_set,
            joined_since,
        }))
    }

    fn is_theirs(&self, user: &str) -> bool {
        UserId::parse(user).is_ok_and(|user| user.server_name() == self.server)
    }

    /// The history visibility of a state, and the strongest membership of the server's users in it.
    async fn deciders(
        &self,
        root: StateRoot,
    ) -> Result<(HistoryVisibility, MembershipState), ReadError> {
        let found = self.known.lock().iter().find(|(known, ..)| *known == root).cloned();
        if let Some((_, visibility, membership)) = found {
            return Ok((visibility, membership));
        }
        let visibility = self.visibility_at(root).await?;
        let hidden = matches!(visibility, HistoryVisibility::Invited | HistoryVisibility::Joined);
        let membership =
            if hidden { self.membership_at(root).await? } else { MembershipState::Leave };
        self.known.lock().push((root, visibility.clone(), membership.clone()));
        Ok((visibility, membership))
    }

    async fn visibility_at(&self, root: StateRoot) -> Result<HistoryVisibility, ReadError> {
        let place = ("m.room.history_visibility", "");
        let number = self.rooms.states.get(self.snapshot, self.room_id, root, place).await?;
        let Some(number) = number else { return Ok(HistoryVisibility::Shared) };
        let event = self.load(&[number]).await?.pop();
        let content = event.and_then(|(event, _)| event.pdu.content_as::<VisibilityContent>().ok());
        Ok(content.map_or(HistoryVisibility::Shared, |content| content.history_visibility))
    }

    async fn membership_at(&self, root: StateRoot) -> Result<MembershipState, ReadError> {
        let states = &self.rooms.states;
        let members = states.list(self.snapshot, self.room_id, root, Some("m.room.member")).await?;
        let theirs = members.into_iter().filter(|(key, _)| self.is_theirs(&key.state_key));
        let theirs: Vec<u64> = theirs.map(|(_, number)| number).collect();
        let mut strongest = MembershipState::Leave;
        for (event, _) in self.load(&theirs).await? {
            match event.pdu.content_as::<MemberContent>().map(|content| content.membership) {
                Ok(MembershipState::Join) => return Ok(MembershipState::Join),
                Ok(MembershipState::Invite) => strongest = MembershipState::Invite,
                _ => {}
            }
        }
        Ok(strongest)
    }
}
