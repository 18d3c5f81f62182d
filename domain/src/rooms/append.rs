//! Appending an event: selecting what authorises it, making it, checking it, writing it.

use std::sync::Arc;

use millrace_model::{
    Pdu,
    pdu::InvalidPdu,
    rules::{
        auth::{self, Refused},
        build::{self, BuildError, NewEvent},
    },
};
use millrace_store::{
    Error, Read,
    rows::room::{EventHeader, Member, TimelineRow, UserRoom},
    state_tree::Change,
    tables::{
        ANNOTATIONS, CURRENT_STATE, EVENT_HEADERS, EVENT_NUMBERS, EVENTS, MEMBERS, TIMELINE,
        USER_ROOMS,
    },
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomVersionId,
    UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;

use super::{Event, RoomTx, events::LoadError, states::StateError};

/// An event to be made.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The sender, a user of this server.
    pub sender: OwnedUserId,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key; `None` for a message.
    pub state_key: Option<String>,
    /// The content.
    pub content: CanonicalJsonObject,
    /// What a redaction redacts.
    pub redacts: Option<OwnedEventId>,
    /// When it was sent, where that is not now.
    pub at: Option<MilliSecondsSinceUnixEpoch>,
}

impl Draft {
    /// A state event.
    #[must_use]
    pub fn state(
        sender: &UserId,
        kind: impl Into<TimelineEventType>,
        state_key: &str,
        content: CanonicalJsonObject,
    ) -> Self {
        let (sender, state_key) = (sender.to_owned(), Some(state_key.to_owned()));
        Self { sender, kind: kind.into(), state_key, content, redacts: None, at: None }
    }

    /// A message event.
    #[must_use]
    pub fn message(
        sender: &UserId,
        kind: impl Into<TimelineEventType>,
        content: CanonicalJsonObject,
    ) -> Self {
        let sender = sender.to_owned();
        Self { sender, kind: kind.into(), state_key: None, content, redacts: None, at: None }
    }
}

/// Why an event cannot be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The room's rules do not allow it.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// It would break a limit of the specification.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A relation that cannot be, such as a second identical annotation.
    #[error("you have already reacted with this")]
    DuplicateAnnotation,
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// An earlier event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// An event's reference could not be made.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

#[derive(Deserialize)]
struct MemberContent {
    membership: MembershipState,
}

impl RoomTx<'_> {
    /// Makes an event on top of the room, checks it against the auth rules, and writes it.
    ///
    /// # Errors
    /// [`AppendError::Refused`] where the rules do not allow it; then nothing may be committed.
    pub async fn append(&mut self, draft: Draft) -> Result<Arc<Event>, AppendError> {
        let annotation = self.new_annotation(&draft).await?;
        let auth_events = self.select_auth_events(&draft).await?;
        let references = auth_events
            .iter()
            .map(|event| event.pdu.reference(self.rules))
            .collect::<Result<Vec<_>, _>>()?;
        let local_id = self.rooms.env.random_text(18);
        let creates = draft.kind == TimelineEventType::RoomCreate && self.head.last == 0;
        let unnamed = creates && self.rules.authorization.room_create_event_id_as_room_id;
        let new = NewEvent {
            room_id: (!unnamed).then_some(&*self.room_id),
            sender: &draft.sender,
            kind: &draft.kind,
            state_key: draft.state_key.as_deref(),
            content: draft.content,
            redacts: draft.redacts.as_deref(),
            origin_server_ts: draft.at.unwrap_or_else(|| self.rooms.env.now()),
            prev_events: &self.head.extremities,
            auth_events: &references,
            local_id: &local_id,
        };
        let identity = &self.rooms.env.identity;
        let pdu = build::build(new, self.rules, &identity.name, &identity.key)?;
        self.check(&pdu, &auth_events).await?;
        if creates {
            self.room_id.clone_from(&pdu.room_id);
        }
        self.turned_away = None;
        let had_servers = self.head.remote_servers > 0;
        let event = self.write(pdu).await?;
        self.queue(&event, had_servers);
        if let Some((target, key)) = annotation {
            let place = (&target, &event.pdu.sender, &event.pdu.kind.to_string(), &key);
            self.tx.put(&ANNOTATIONS, &self.room_id, place, &event.number);
        }
        Ok(event)
    }

    /// What an event annotates, and with what; an error where its sender has said that already
    /// (spec: Client-Server API, Event annotations and reactions).
    async fn new_annotation(
        &self,
        draft: &Draft,
    ) -> Result<Option<(OwnedEventId, String)>, AppendError> {
        let relates_to = draft.content.get("m.relates_to").and_then(|value| value.as_object());
        let text = |field| relates_to.and_then(|object| object.get(field)?.as_str());
        if draft.state_key.is_some() || text("rel_type") != Some("m.annotation") {
            return Ok(None);
        }
        let target = text("event_id").and_then(|id| OwnedEventId::try_from(id).ok());
        let Some((target, key)) = target.zip(text("key")) else { return Ok(None) };
        let place = (&target, &draft.sender, &draft.kind.to_string(), key);
        if let Some(number) = self.tx.get(&ANNOTATIONS, &self.room_id, place).await?
            && let Some(header) = self.tx.get(&EVENT_HEADERS, &self.room_id, number).await?
            && header.redacted_by.is_none()
        {
            return Err(AppendError::DuplicateAnnotation);
        }
        Ok(Some((target, key.to_owned())))
    }

    pub(super) async fn select_auth_events(
        &self,
        draft: &Draft,
    ) -> Result<Vec<Arc<Event>>, AppendError> {
        let content = serde_json::value::to_raw_value(&draft.content)
            .map_err(|error| AppendError::Refused(Refused(error.to_string())))?;
        let state_key = draft.state_key.as_deref();
        let places = auth::auth_types_for_event(
            &draft.kind,
            &draft.sender,
            state_key,
            &content,
            self.rules,
        )?;
        let keys = places.iter().map(|(kind, key)| (kind.to_string(), key.as_str()));
        let keys: Vec<_> = keys.collect();
        let places = keys.iter().map(|(kind, key)| (kind.as_str(), *key));
        let numbers = self.tx.get_many(&CURRENT_STATE, &self.room_id, places).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let events = &self.rooms.events;
        Ok(events.load(self.tx, &self.room_id, &self.head.version, &numbers).await?)
    }

    async fn check(&self, pdu: &Pdu, auth_events: &[Arc<Event>]) -> Result<(), AppendError> {
        if pdu.kind == TimelineEventType::RoomCreate {
            // Which create events there can be, and that there is one only, is told by no state.
            auth::check_auth_events(pdu, self.rules, |_| None)?;
        }
        // The create event is looked at also where it is not among the auth events (version 12).
        let create = match self.head.create {
            0 => None,
            _ => Some(self.create_event().await?),
        };
        let known = || auth_events.iter().chain(&create);
        auth::check(pdu, self.rules, |kind: &StateEventType, key| {
            let kind = TimelineEventType::from(kind.to_string());
            let found = known().find(|event| event.pdu.is_state_of(&kind, key))?;
            Some(Arc::new(found.pdu.clone()))
        })?;
        Ok(())
    }

    /// Writes an event that has been checked, as the room's newest.
    async fn write(&mut self, pdu: Pdu) -> Result<Arc<Event>, AppendError> {
        let number = self.numbers.next().expect("as many numbers were drawn as events are made");
        let (tx, room) = (self.tx, self.room_id.clone());
        let event = Arc::new(Event::new(number, pdu, self.rules));
        self.rooms.events.insert(&event);
        let before = self.head.root;
        let replaces = self.replaced_by(&event).await?;
        self.head.last += 1;
        if self.head.create == 0 {
            self.head.create = number;
        }
        if let Some(state_key) = event.pdu.state_key.as_deref() {
            self.write_state(&event, state_key).await?;
        }
        let n = self.head.last;
        self.write_relations(&event).await?;
        self.write_redaction(&event).await?;
        tx.put(&EVENTS, &room, number, &event.pdu.json().to_string());
        tx.put(&EVENT_NUMBERS, &room, &event.pdu.event_id, &number);
        let header = EventHeader {
            event_id: event.pdu.event_id.clone(),
            place: Some((n, 0)),
            before: Some(before),
            outlier: false,
            rejected: false,
            soft_failed: false,
            redacted_by: None,
            related: false,
            aggregated: false,
            replaces,
        };
        tx.put(&EVENT_HEADERS, &room, number, &header);
        let row = TimelineRow { event: number, before, after: self.head.root };
        tx.put(&TIMELINE, &room, (n, 0), &row);
        self.head.extremities = vec![event.pdu.reference(self.rules)?];
        Ok(event)
    }

    /// The state event whose place a new event takes.
    async fn replaced_by(&self, event: &Event) -> Result<Option<u64>, AppendError> {
        let Some(state_key) = event.pdu.state_key.as_deref() else { return Ok(None) };
        let place = (event.pdu.kind.to_string(), state_key);
        Ok(self.tx.get(&CURRENT_STATE, &self.room_id, place).await?)
    }

    async fn write_state(&mut self, event: &Event, state_key: &str) -> Result<(), AppendError> {
        let kind = event.pdu.kind.to_string();
        let change = Change { event_type: &kind, state_key, event: Some(event.number) };
        let (rooms, tx) = (self.rooms, self.tx);
        self.head.root = rooms.states.set(tx, &self.room_id, self.head.root, change).await?;
        tx.put(&CURRENT_STATE, &self.room_id, (kind.as_str(), state_key), &event.number);
        if event.pdu.kind == TimelineEventType::RoomMember
            && let Ok(user) = UserId::parse(state_key)
        {
            self.write_member(event, &user).await?;
        }
        Ok(())
    }

    async fn write_member(&mut self, event: &Event, user: &UserId) -> Result<(), AppendError> {
        let Ok(MemberContent { membership }) = event.pdu.content_as() else { return Ok(()) };
        let old = self.membership(user).await?;
        self.head.joined -= u64::from(old == MembershipState::Join);
        self.head.joined += u64::from(membership == MembershipState::Join);
        self.head.invited -= u64::from(old == MembershipState::Invite);
        self.head.invited += u64::from(membership == MembershipState::Invite);
        let member = Member { membership: membership.clone(), event: event.number };
        self.tx.put(&MEMBERS, &self.room_id, user, &member);
        self.note_server(user, &old, &member.membership).await?;
        if self.rooms.env.is_local(user) {
            self.write_user_room(event, user, membership).await?;
        }
        Ok(())
    }

    async fn write_user_room(
        &self,
        event: &Event,
        user: &UserId,
        membership: MembershipState,
    ) -> Result<(), AppendError> {
        let old = self.tx.get(&USER_ROOMS, user, &self.room_id).await?;
        let joins = membership == MembershipState::Join;
        let shown = matches!(membership, MembershipState::Invite | MembershipState::Knock);
        let stripped = if shown { self.stripped_state(event).await? } else { Vec::new() };
        let row = UserRoom {
            membership,
            event: event.number,
            sender: event.pdu.sender.clone(),
            n: self.head.last,
            was_joined: joins || old.as_ref().is_some_and(|old| old.was_joined),
            left: match old {
                Some(old) if !joins && old.membership == MembershipState::Join => {
                    Some(self.head.last)
                }
                old => old.and_then(|old| old.left),
            },
            forgotten: false,
            stripped,
        };
        self.tx.put(&USER_ROOMS, user, &self.room_id, &row);
        Ok(())
    }

    /// What somebody outside of the room is shown of it: the state that the specification lists
    /// (Client-Server API, Stripped state), and the member event itself.
    async fn stripped_state(&self, member: &Event) -> Result<Vec<String>, AppendError> {
        const SHOWN: [&str; 8] = [
            "m.room.create",
            "m.room.name",
            "m.room.avatar",
            "m.room.topic",
            "m.room.join_rules",
            "m.room.canonical_alias",
            "m.room.encryption",
            "m.room.history_visibility",
        ];
        let sender = member.pdu.sender.as_str();
        let places = SHOWN.iter().map(|kind| (*kind, "")).chain([("m.room.member", sender)]);
        let numbers = self.tx.get_many(&CURRENT_STATE, &self.room_id, places).await?;
        let mut numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        numbers.retain(|number| *number != member.number);
        let (events, version) = (&self.rooms.events, &self.head.version);
        let shown = events.load(self.tx, &self.room_id, version, &numbers).await?;
        let mut stripped: Vec<String> = shown.iter().map(|event| stripped(&event.pdu)).collect();
        stripped.push(self::stripped(&member.pdu));
        Ok(stripped)
    }
}

/// The stripped form of a state event.
pub(crate) fn stripped(pdu: &Pdu) -> String {
    serde_json::json!({
        "type": pdu.kind.to_string(),
        "state_key": pdu.state_key,
        "sender": pdu.sender,
        "content": pdu.content,
    })
    .to_string()
}
