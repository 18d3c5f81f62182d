//! What a client asks of a sync.

use std::time::Duration;

use millrace_model::{
    SyncToken,
    client_event::RoomIdField,
    event_fields::EventFields,
    filter::{EventFilter, RoomSelection},
};
use ruma::{
    OwnedDeviceId, OwnedUserId, UInt,
    api::client::filter::{EventFormat, FilterDefinition, LazyLoadOptions},
};

use crate::{deliveries::DELIVERY, rooms::Form};

/// Events of a room's timeline where the filter does not say.
const TIMELINE_LIMIT_DEFAULT: usize = 10;
/// Events of a room's timeline at most.
const TIMELINE_LIMIT_MAX: usize = 100;

/// A sync.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    /// Who asks.
    pub user: OwnedUserId,
    /// With which device.
    pub device: Option<OwnedDeviceId>,
    /// What they have seen.
    pub since: Option<SyncToken>,
    /// What they want.
    pub filter: SyncFilter,
    /// Whether they want the whole state of every room.
    pub full_state: bool,
    /// Whether state is wanted as it is after the timeline, not before it.
    pub state_after: bool,
    /// How long they wait for news.
    pub timeout: Duration,
}

/// A filter, made ready for matching.
#[derive(Debug, Clone)]
pub struct SyncFilter {
    /// Which rooms.
    pub rooms: RoomSelection,
    /// Whether an initial sync has the rooms that were left.
    pub include_leave: bool,
    /// Which timeline events.
    pub timeline: EventFilter,
    /// How many of them.
    pub timeline_limit: usize,
    /// Which state events.
    pub state: EventFilter,
    /// Whether members are sent only as needed.
    pub lazy_members: bool,
    /// Whether members that were sent before are sent again.
    pub redundant_members: bool,
    /// Which receipts and typing.
    pub ephemeral: EventFilter,
    /// Whether the user is told how far their messages have come: where the types of ephemeral events
    /// have that of such a receipt by name. Others are not even woken by it.
    pub deliveries: bool,
    /// Which account data of rooms.
    pub room_account_data: EventFilter,
    /// Which global account data.
    pub account_data: EventFilter,
    /// Whose presence.
    pub presence: EventFilter,
    /// Whether unread counts are given for each thread.
    pub threads: bool,
    /// In which form room events are.
    pub form: Form,
    /// Which of their fields; all where `None`.
    pub fields: Option<EventFields>,
}

impl SyncFilter {
    /// Makes a filter ready.
    #[must_use]
    pub fn new(filter: &FilterDefinition) -> Self {
        let room = &filter.room;
        let limit = room.timeline.limit.map_or(TIMELINE_LIMIT_DEFAULT, |limit: UInt| {
            usize::try_from(u64::from(limit)).unwrap_or(TIMELINE_LIMIT_MAX)
        });
        let (lazy_members, redundant_members) = match room.state.lazy_load_options {
            LazyLoadOptions::Enabled { include_redundant_members } => {
                (true, include_redundant_members)
            }
            LazyLoadOptions::Disabled => (false, false),
        };
        Self {
            rooms: RoomSelection::new(room.rooms.as_deref(), &room.not_rooms),
            include_leave: room.include_leave,
            timeline: EventFilter::room(&room.timeline),
            timeline_limit: limit.min(TIMELINE_LIMIT_MAX),
            state: EventFilter::room(&room.state),
            lazy_members,
            redundant_members,
            ephemeral: EventFilter::room(&room.ephemeral),
            deliveries: room.ephemeral.types.iter().flatten().any(|kind| kind == DELIVERY),
            room_account_data: EventFilter::room(&room.account_data),
            account_data: EventFilter::roomless(&filter.account_data),
            presence: EventFilter::roomless(&filter.presence),
            threads: room.timeline.unread_thread_notifications,
            form: match filter.event_format {
                EventFormat::Federation => Form::Federation,
                _ => Form::Client(RoomIdField::Absent),
            },
            fields: filter.event_fields.as_deref().map(EventFields::new),
        }
    }

    /// The same filter, for clients that want the room's ID in each event.
    #[must_use]
    pub fn with_room_ids(self) -> Self {
        Self { form: Form::Client(RoomIdField::Present), ..self }
    }
}
