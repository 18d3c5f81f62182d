//! Appending an event: selecting what authorises it, making it, checking it, writing it.

use std::sync::Arc;

use millrace_model::{
    Pdu,
    pdu::{EventReference, InvalidPdu},
    rules::{
        auth::{self, Refused},
        build::{self, BuildError, NewEvent},
    },
};
use millrace_store::{
    Error, Read,
    rows::partial::{Before, Ending},
    state_tree::StateRoot,
    tables::{ANNOTATIONS, EVENT_HEADERS},
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomVersionId,
    UserId, events::TimelineEventType,
};

use super::{
    Event, RoomTx, accept::Followed, events::LoadError, judge::look_up, policy::NotVouched,
    resolve::ResolveStateError, states::StateError,
};

/// A new event follows so many ends of the graph at most.
const FOLLOWED_MAX: usize = 10;

/// An event to be made.
#[derive(Debug, Clone, PartialEq)]
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
    /// The room's policy server is to be asked first, which this change of the room does not do.
    #[error("the room's policy server has not vouched for the event")]
    Unvouched,
    /// The room's policy server does not vouch for the event.
    #[error(transparent)]
    NotVouched(#[from] NotVouched),
    /// The room has a version that this program does not know.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// An earlier event cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Forks of the room cannot be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveStateError),
    /// An event's reference could not be made.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl RoomTx<'_> {
    /// Makes an event on top of the room, checks it against the auth rules, and writes it.
    ///
    /// # Errors
    /// [`AppendError::Refused`] where the rules do not allow it; then nothing may be committed.
    pub async fn append(&mut self, draft: Draft) -> Result<Arc<Event>, AppendError> {
        let annotation = self.new_annotation(&draft).await?;
        let (pdu, before) = self.make_vouched(draft).await?;
        if self.head.last == 0 {
            self.room_id.clone_from(&pdu.room_id);
        }
        self.turned_away = None;
        let had_servers = self.head.remote_servers > 0;
        let number = self.next_number();
        let event = self.accept(number, pdu, before, Followed::No).await?;
        self.note_partial(number, Before::Predecessors, Ending::New);
        self.queue(&event, had_servers);
        if let Some((target, key)) = annotation {
            let place = (&target, &event.pdu.sender, &event.pdu.kind.to_string(), &key);
            self.tx.put(&ANNOTATIONS, &self.room_id, place, &event.number);
        }
        Ok(event)
    }

    /// Makes an event on top of the room and checks it against the auth rules, without writing it.
    /// With the event comes the state before it.
    pub(super) async fn make(&self, draft: Draft) -> Result<(Pdu, StateRoot), AppendError> {
        let (ends, before) = self.ends_to_follow().await?;
        let auth_events = self.select_auth_events(&draft, before).await?;
        let references = auth_events
            .iter()
            .map(|event| event.pdu.reference(self.rules))
            .collect::<Result<Vec<_>, _>>()?;
        let at = draft.at.or(self.rooms.sent_at);
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
            origin_server_ts: at.unwrap_or_else(|| self.rooms.env.now()),
            prev_events: &ends,
            auth_events: &references,
            local_id: &local_id,
        };
        let identity = &self.rooms.env.identity;
        let pdu = build::build(new, self.rules, &identity.name, &identity.key)?;
        self.check(&pdu, &auth_events).await?;
        Ok((pdu, before))
    }

    /// The ends of the graph that a new event follows, and the state after them.
    pub(super) async fn ends_to_follow(
        &self,
    ) -> Result<(Vec<EventReference>, StateRoot), AppendError> {
        let mut ends: Vec<_> = self.head.extremities.iter().collect();
        if ends.len() <= FOLLOWED_MAX {
            let ends = ends.into_iter().map(|end| end.event.clone()).collect();
            return Ok((ends, self.head.root));
        }
        ends.sort_by_key(|end| std::cmp::Reverse(end.event.depth));
        ends.truncate(FOLLOWED_MAX);
        let roots: Vec<_> = ends.iter().map(|end| end.after).collect();
        let ends = ends.into_iter().map(|end| end.event.clone()).collect();
        Ok((ends, self.resolved(&roots).await?))
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers.next().expect("as many numbers were drawn as events are made")
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
        before: StateRoot,
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
        let places: Vec<_> = keys.iter().map(|(kind, key)| (kind.as_str(), *key)).collect();
        let numbers = self.at_places(before, &places).await?;
        let numbers: Vec<u64> = numbers.into_iter().flatten().collect();
        let events = &self.rooms.events;
        Ok(events.load(self.tx, &self.room_id, &self.head.version, &numbers).await?)
    }

    async fn check(&self, pdu: &Pdu, auth_events: &[Arc<Event>]) -> Result<(), AppendError> {
        if pdu.kind == TimelineEventType::RoomCreate {
            // Which create events there can be, and that there is one only, is told by no state.
            auth::check_auth_events(pdu, self.rules, |_| None::<&Pdu>)?;
        }
        // The create event is looked at also where it is not among the auth events (version 12).
        let create = match self.head.create {
            0 => None,
            _ => Some(self.create_event().await?),
        };
        let known = || auth_events.iter().chain(&create).map(|event| &event.pdu);
        auth::check(pdu, self.rules, |kind, key| look_up(known(), kind, key))?;
        Ok(())
    }
}
