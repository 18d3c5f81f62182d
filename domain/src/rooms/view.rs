//! A room as one user may read it (spec: Client-Server API, Room History Visibility).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_model::{
    TimelineIndex,
    pdu::InvalidPdu,
    rules::{
        room_version,
        visibility::{self, AtEvent, Reach},
    },
};
use millrace_store::{
    Read, Snapshot,
    rows::room::{EventHeader, RoomHead, TimelineRow, UserRoom},
    state_tree::StateRoot,
    tables::{ACCOUNT_DATA, CURRENT_STATE, ROOM_HEAD, TIMELINE, USER_ROOMS},
};
use ruma::{
    DeviceId, OwnedDeviceId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::{
        TimelineEventType,
        room::{history_visibility::HistoryVisibility, member::MembershipState},
    },
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use super::{
    Event, Rooms,
    events::{self, LoadError},
    retention,
    states::StateError,
};

/// Who reads.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The user.
    pub user: OwnedUserId,
    /// The device, which is told the transaction IDs of what it sent.
    pub device: Option<OwnedDeviceId>,
    /// Users whose messages are kept from the user.
    pub ignored: Arc<BTreeSet<OwnedUserId>>,
}

#[derive(Deserialize)]
struct IgnoredContent {
    ignored_users: BTreeMap<OwnedUserId, serde::de::IgnoredAny>,
}

impl Viewer {
    /// A user's device, with whom the user ignores.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load(
        snapshot: &Snapshot,
        user: &UserId,
        device: Option<&DeviceId>,
    ) -> millrace_store::Result<Self> {
        let row = snapshot.get(&ACCOUNT_DATA, user, ("", "m.ignored_user_list")).await?;
        // A list that is no list ignores nobody.
        let content = row.and_then(|row| serde_json::from_str::<IgnoredContent>(&row).ok());
        let mut ignored: BTreeSet<OwnedUserId> =
            content.map(|content| content.ignored_users.into_keys().collect()).unwrap_or_default();
        ignored.remove(user);
        let (user, device) = (user.to_owned(), device.map(ToOwned::to_owned));
        Ok(Self { user, device, ignored: Arc::new(ignored) })
    }
}

/// Why a room cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
    /// A stored event cannot be redacted.
    #[error("a stored event is malformed: {0}")]
    Malformed(#[from] InvalidPdu),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
}

/// A room at one snapshot, as one user reads it.
#[derive(Clone)]
pub struct RoomView<'a> {
    pub(super) rooms: &'a Rooms,
    /// What is read from.
    pub snapshot: &'a Snapshot,
    /// The room.
    pub room_id: &'a RoomId,
    /// Who reads.
    pub viewer: &'a Viewer,
    /// The newest of the room.
    pub head: RoomHead,
    /// The room as the user has it, if they have or had to do with it.
    pub user_room: Option<UserRoom>,
    /// How far the user may read at all.
    pub reach: Reach,
    /// Messages sent before this moment have expired, in milliseconds since 1970.
    expired_before: Option<u64>,
    /// Rules of the room's version.
    pub rules: &'static RoomVersionRules,
}

/// An event as the viewer meets it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The event.
    pub event: Arc<Event>,
    /// What is known beside it.
    pub header: Arc<EventHeader>,
    /// The viewer's membership at the event, its own change included; none for events that are
    /// shown as state and not as history.
    pub membership: Option<MembershipState>,
}

impl Seen {
    /// The event's place in the timeline; `MIN` where it has none.
    #[must_use]
    pub fn index(&self) -> TimelineIndex {
        self.header.place.map_or(TimelineIndex::MIN, |(n, k)| TimelineIndex { n, k })
    }
}

/// What decides about visibility at one state, with the numbers of the events that say so.
#[derive(Clone)]
struct Deciders {
    numbers: [Option<u64>; 2],
    visibility: HistoryVisibility,
    membership: MembershipState,
}

#[derive(Deserialize)]
struct VisibilityContent {
    history_visibility: HistoryVisibility,
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

impl<'a> RoomView<'a> {
    /// Opens a room for a viewer; `None` where this server does not have the room.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(
        rooms: &'a Rooms,
        snapshot: &'a Snapshot,
        room_id: &'a RoomId,
        viewer: &'a Viewer,
    ) -> Result<Option<Self>, ReadError> {
        let user_room = snapshot.get(&USER_ROOMS, &viewer.user, room_id).await?;
        Self::open_as(rooms, snapshot, room_id, viewer, user_room).await
    }

    /// As [`RoomView::open`], where it is known how the viewer has the room at the snapshot.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open_as(
        rooms: &'a Rooms,
        snapshot: &'a Snapshot,
        room_id: &'a RoomId,
        viewer: &'a Viewer,
        user_room: Option<UserRoom>,
    ) -> Result<Option<Self>, ReadError> {
        let Some(head) = snapshot.get(&ROOM_HEAD, room_id, ()).await? else { return Ok(None) };
        let rules = room_version::rules(&head.version)
            .ok_or_else(|| ReadError::Version(head.version.clone()))?;
        let reach = Reach::Nothing;
        let expired_before = retention::expired_before(rooms, snapshot, (room_id, &head)).await?;
        let mut view = Self {
            rooms,
            snapshot,
            room_id,
            viewer,
            head,
            user_room,
            reach,
            expired_before,
            rules,
        };
        view.reach = view.reach_now().await?;
        Ok(Some(view))
    }

    async fn reach_now(&self) -> Result<Reach, ReadError> {
        let membership = self.membership();
        if membership == MembershipState::Join {
            return Ok(Reach::UpToNow);
        }
        let place = ("m.room.history_visibility", "");
        let number = self.snapshot.get(&CURRENT_STATE, self.room_id, place).await?;
        let was_joined =
            self.user_room.as_ref().is_some_and(|row| row.was_joined && !row.forgotten);
        Ok(visibility::may_read(&membership, was_joined, &self.visibility_in(number).await?))
    }

    /// The viewer's membership now; `leave` where they have none.
    #[must_use]
    pub fn membership(&self) -> MembershipState {
        self.user_room.as_ref().map_or(MembershipState::Leave, |row| row.membership.clone())
    }

    /// The last place of the timeline that the viewer may read, and the state that they are shown
    /// as the room's: up to now, or up to their leaving. `None` where they may read nothing.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn end(&self) -> Result<Option<(TimelineIndex, StateRoot)>, ReadError> {
        let now = (TimelineIndex::live(self.head.last), self.head.root);
        match (self.reach, self.left()) {
            (Reach::UpToNow, _) => Ok(Some(now)),
            (Reach::UpToLeaving, Some(left)) => {
                let row = self.snapshot.get(&TIMELINE, self.room_id, (left, 0)).await?;
                Ok(row.map(|row| (TimelineIndex::live(left), row.after)))
            }
            (Reach::UpToLeaving, None) | (Reach::Nothing, _) => Ok(None),
        }
    }

    fn left(&self) -> Option<i64> {
        self.user_room.as_ref().and_then(|row| row.left)
    }

    /// Whether a place is within what the viewer may read, before any look at visibility.
    pub(super) fn reaches(&self, index: TimelineIndex) -> bool {
        match (self.reach, self.left()) {
            (Reach::UpToNow, _) => true,
            (Reach::UpToLeaving, Some(left)) => index <= TimelineIndex::live(left),
            (Reach::UpToLeaving, None) | (Reach::Nothing, _) => false,
        }
    }

    /// Those of the events that the viewer may see, in the order given. Left out are those that
    /// are not part of the timeline, expired messages, and those of users whom the viewer ignores.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn look(&self, numbers: &[u64]) -> Result<Vec<Seen>, ReadError> {
        let loaded = self.load(numbers).await?;
        let mut roots: Vec<StateRoot> = Vec::with_capacity(loaded.len());
        let mut within = Vec::with_capacity(loaded.len());
        for (event, header) in loaded {
            let (Some((n, k)), Some(before)) = (header.place, header.before) else { continue };
            let index = TimelineIndex { n, k };
            let ignored = !event.pdu.is_state() && self.viewer.ignored.contains(&event.pdu.sender);
            if ignored || !self.reaches(index) || self.is_expired(&event) {
                continue;
            }
            // Events between two changes of state have the same before them.
            if roots.last() != Some(&before) {
                roots.push(before);
            }
            within.push((event, header, index, roots.len() - 1));
        }
        let deciders = self.deciders(&roots).await?;
        let judged = within.into_iter().filter_map(|(event, header, index, at)| {
            let membership = self.judge(&event, index, &deciders[at])?;
            Some(Seen { event, header, membership: Some(membership) })
        });
        Ok(judged.collect())
    }

    /// Whether a message has outlived the room's policy.
    fn is_expired(&self, event: &Event) -> bool {
        let sent: u64 = event.pdu.origin_server_ts.get().into();
        !event.pdu.is_state() && self.expired_before.is_some_and(|before| sent < before)
    }

    /// As [`RoomView::look`], for rows of the timeline.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn look_at_rows(
        &self,
        rows: &[((i64, i32), TimelineRow)],
    ) -> Result<Vec<Seen>, ReadError> {
        let numbers: Vec<u64> = rows.iter().map(|(_, row)| row.event).collect();
        self.look(&numbers).await
    }

    /// Events that are shown as state: whoever may read the state may see them.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn state_events(&self, numbers: &[u64]) -> Result<Vec<Seen>, ReadError> {
        let loaded = self.load(numbers).await?.into_iter();
        Ok(loaded.map(|(event, header)| Seen { event, header, membership: None }).collect())
    }

    /// Events by number with their headers, in their order, unjudged.
    pub(super) async fn load(
        &self,
        numbers: &[u64],
    ) -> Result<Vec<(Arc<Event>, Arc<EventHeader>)>, LoadError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let events = &self.rooms.events;
        events.load_with_headers(self.snapshot, self.room_id, &self.head, numbers).await
    }

    /// Events by number, in their order, unjudged.
    pub(super) async fn load_events(&self, numbers: &[u64]) -> Result<Vec<Arc<Event>>, LoadError> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let (events, version) = (&self.rooms.events, &self.head.version);
        events.load(self.snapshot, self.room_id, version, numbers).await
    }

    /// The viewer's membership at an event that they may see.
    fn judge(&self, event: &Event, index: TimelineIndex, at: &Deciders) -> Option<MembershipState> {
        let pdu = &event.pdu;
        let own = pdu.is_state_of(&TimelineEventType::RoomMember, self.viewer.user.as_str());
        let membership_set = own
            .then(|| pdu.content_as::<MemberContent>().ok())
            .flatten()
            .map(|content| content.membership);
        let visibility_set = pdu
            .is_state_of(&TimelineEventType::RoomHistoryVisibility, "")
            .then(|| pdu.content_as::<VisibilityContent>().ok())
            .flatten()
            .map(|content| content.history_visibility);
        let joined_since = self.membership() == MembershipState::Join
            || self.left().is_some_and(|left| index < TimelineIndex::live(left));
        let at = AtEvent {
            visibility: at.visibility.clone(),
            visibility_set,
            membership: at.membership.clone(),
            membership_set,
            joined_since,
        };
        visibility::may_see(&at).then(|| at.membership_set.unwrap_or(at.membership))
    }

    /// What decides at each of the states; where the events that say so are those of the state
    /// before, nothing is parsed.
    async fn deciders(&self, roots: &[StateRoot]) -> Result<Vec<Deciders>, ReadError> {
        let user = self.viewer.user.as_str();
        let places = [("m.room.history_visibility", ""), ("m.room.member", user)];
        let states = &self.rooms.states;
        let numbers = states.get_in_each(self.snapshot, self.room_id, roots, places).await?;
        let mut all: Vec<Deciders> = Vec::with_capacity(roots.len());
        for numbers in numbers {
            let known = all.last().filter(|last| last.numbers == numbers).cloned();
            all.push(match known {
                Some(known) => known,
                None => Deciders {
                    numbers,
                    visibility: self.visibility_in(numbers[0]).await?,
                    membership: self.membership_in(numbers[1]).await?,
                },
            });
        }
        Ok(all)
    }

    async fn membership_in(&self, number: Option<u64>) -> Result<MembershipState, ReadError> {
        let Some(number) = number else { return Ok(MembershipState::Leave) };
        let event = self.load_events(&[number]).await?;
        let content = event.first().map(|event| event.pdu.content_as::<MemberContent>());
        Ok(content
            .and_then(Result::ok)
            .map_or(MembershipState::Leave, |content| content.membership))
    }

    async fn visibility_in(&self, number: Option<u64>) -> Result<HistoryVisibility, ReadError> {
        let Some(number) = number else { return Ok(HistoryVisibility::Shared) };
        let event = self.load_events(&[number]).await?;
        let content = event.first().map(|event| event.pdu.content_as::<VisibilityContent>());
        Ok(content
            .and_then(Result::ok)
            .map_or(HistoryVisibility::Shared, |content| content.history_visibility))
    }

    /// One event of the room by its ID, if the viewer may see it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find(&self, event_id: &ruma::EventId) -> Result<Option<Seen>, ReadError> {
        let found = events::find(self.snapshot, self.room_id, event_id).await?;
        let Some((number, _)) = found else { return Ok(None) };
        Ok(self.look(&[number]).await?.pop())
    }
}
