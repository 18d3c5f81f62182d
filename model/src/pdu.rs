//! An event as servers exchange it (a PDU), parsed once, with its text kept as it was signed.

use std::{borrow::Cow, sync::Arc};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
    signatures, state_res,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// An event's identity inside the server: drawn when it is first stored, never changed, without order
/// and never shown to anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventNumber(pub u64);

/// Why a text is not an event of its room version.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPdu {
    /// Not JSON, or a field is missing or has the wrong type.
    #[error("the event is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The event has no `room_id` although its room version wants one, or one that is not a room ID.
    #[error("the event has no valid room_id")]
    NoRoomId,
    /// The event has no `event_id` although its room version wants one.
    #[error("the event has no event_id")]
    NoEventId,
    /// The event's reference hash, and so its ID, could not be made.
    #[error("the event's reference hash could not be made: {0}")]
    Hash(#[from] signatures::JsonError),
}

/// One reference to an earlier event, as a new event needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReference {
    /// The event referred to.
    pub event_id: OwnedEventId,
    /// Its depth; a new event lies one deeper than its deepest predecessor.
    pub depth: u64,
    /// Its reference hash, unpadded standard base64. Only room versions 1 and 2 send it.
    pub sha256: Option<Box<str>>,
}

/// An event, parsed once. The fields are those of its room version's event format; `json` is the
/// whole of it as canonical JSON, with its hashes and signatures.
#[derive(Debug, Clone)]
pub struct Pdu {
    /// The event's ID: in the event itself in room versions 1 and 2, its reference hash since.
    pub event_id: OwnedEventId,
    /// The room it belongs to, also for a create event that does not say so (room version 12).
    pub room_id: OwnedRoomId,
    /// The user who sent it.
    pub sender: OwnedUserId,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key; `None` for a message event.
    pub state_key: Option<Box<str>>,
    /// The `content` object, unparsed.
    pub content: Box<RawValue>,
    /// When its server says that it was sent. Not to be trusted for anything but display.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// How deep in the room's graph its server put it. Room versions before 6 do not bound it.
    pub depth: u64,
    /// The events just before it.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that authorise it.
    pub auth_events: Vec<OwnedEventId>,
    /// What an `m.room.redaction` redacts, wherever its room version keeps it.
    pub redacts: Option<OwnedEventId>,
    /// Whether the auth rules refused it. Not part of the event: set by whoever loads it.
    pub rejected: bool,
    json: Arc<str>,
    names_room: bool,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    room_id: Option<Cow<'a, str>>,
    sender: OwnedUserId,
    #[serde(rename = "type", deserialize_with = "kind")]
    kind: TimelineEventType,
    state_key: Option<Box<str>>,
    #[serde(borrow)]
    content: &'a RawValue,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: &'a RawValue,
    auth_events: &'a RawValue,
    #[serde(borrow)]
    redacts: Option<Cow<'a, str>>,
}

/// The type of an event by its name, which it keeps: ruma takes some older names of types for the newer
/// ones, but for the state of a room they are two.
#[must_use]
pub fn event_type(name: &str) -> TimelineEventType {
    let kind = TimelineEventType::from(name);
    if kind.to_string() == name {
        return kind;
    }
    // These are names of messages. As that of a state event it is an unknown one, kept as it is.
    StateEventType::from(name).into()
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimelineEventType, D::Error> {
    let name = ruma::serde::deserialize_cow_str(deserializer)?;
    Ok(event_type(&name))
}

/// `[event_id, {"sha256": hash}]`, of which only the ID is of use.
#[derive(Deserialize)]
struct HashedReference(OwnedEventId, serde::de::IgnoredAny);

#[derive(Deserialize)]
struct RedactsContent<'a> {
    #[serde(borrow)]
    redacts: Option<Cow<'a, str>>,
}

impl Pdu {
    /// Parses an event that was received or just made, putting it into canonical form and working out
    /// its ID and, for a create event of room version 12, its room's.
    ///
    /// Checks the form only: neither hashes, signatures nor auth rules.
    ///
    /// # Errors
    /// Where a field is missing or of the wrong type, or no ID can be made.
    pub fn parse(json: &str, rules: &RoomVersionRules) -> Result<Self, InvalidPdu> {
        let object: CanonicalJsonObject = serde_json::from_str(json)?;
        Self::from_canonical(&object, rules)
    }

    /// Like [`Pdu::parse`], from an object that is already canonical.
    ///
    /// # Errors
    /// As [`Pdu::parse`].
    pub fn from_canonical(
        object: &CanonicalJsonObject,
        rules: &RoomVersionRules,
    ) -> Result<Self, InvalidPdu> {
        let text = serde_json::to_string(object)?;
        let wire: Wire<'_> = serde_json::from_str(&text)?;
        let event_id = match rules.event_id_format {
            EventIdFormatVersion::V1 => wire
                .event_id
                .as_deref()
                .and_then(|id| EventId::parse(id).ok())
                .ok_or(InvalidPdu::NoEventId)?,
            _ => {
                let hash = signatures::reference_hash(object, rules)?;
                EventId::parse(format!("${hash}")).map_err(|_| InvalidPdu::NoEventId)?
            }
        };
        let room_id = match wire.room_id.as_deref() {
            Some(id) => RoomId::parse(id).map_err(|_| InvalidPdu::NoRoomId)?,
            None if is_room_naming_create(&wire, rules) => room_named_by(&event_id)?,
            None => return Err(InvalidPdu::NoRoomId),
        };
        Self::assemble(Arc::from(text.as_str()), wire, event_id, room_id, rules)
    }

    /// Parses an event from the store, whose ID and room are known and whose text is canonical.
    ///
    /// # Errors
    /// Where a field is missing or of the wrong type: the stored text is not what was stored.
    pub fn from_stored(
        json: Arc<str>,
        event_id: OwnedEventId,
        room_id: OwnedRoomId,
        rules: &RoomVersionRules,
    ) -> Result<Self, InvalidPdu> {
        let text = Arc::clone(&json);
        let wire: Wire<'_> = serde_json::from_str(&text)?;
        Self::assemble(json, wire, event_id, room_id, rules)
    }

    fn assemble(
        json: Arc<str>,
        wire: Wire<'_>,
        event_id: OwnedEventId,
        room_id: OwnedRoomId,
        rules: &RoomVersionRules,
    ) -> Result<Self, InvalidPdu> {
        if !wire.content.get().starts_with('{') {
            return Err(InvalidPdu::Malformed(serde::de::Error::custom("content is no object")));
        }
        let redacts = redacts(&wire, rules);
        Ok(Self {
            event_id,
            room_id,
            names_room: wire.room_id.is_some(),
            prev_events: references(wire.prev_events, rules)?,
            auth_events: references(wire.auth_events, rules)?,
            sender: wire.sender,
            kind: wire.kind,
            state_key: wire.state_key,
            content: wire.content.to_owned(),
            origin_server_ts: wire.origin_server_ts,
            depth: wire.depth,
            redacts,
            rejected: false,
            json,
        })
    }

    /// The whole event as canonical JSON, as it was received or made.
    pub fn json(&self) -> &Arc<str> {
        &self.json
    }

    /// The whole event, as requests and answers hold it.
    ///
    /// # Errors
    /// Where the text is no JSON, which only a damaged store causes.
    pub fn to_raw(&self) -> serde_json::Result<Box<RawValue>> {
        RawValue::from_string(self.json.to_string())
    }

    /// The whole event as an object, for hashing, signing and redacting.
    ///
    /// # Errors
    /// Where the text is not canonical, which only a damaged store causes.
    pub fn to_canonical(&self) -> serde_json::Result<CanonicalJsonObject> {
        serde_json::from_str(&self.json)
    }

    /// Whether it has a state key, and so is part of the room's state.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// The place in the room's state that it sets; `None` for a message event.
    pub fn state_place(&self) -> Option<(StateEventType, &str)> {
        let key = self.state_key.as_deref()?;
        Some((StateEventType::from(self.kind.to_string()), key))
    }

    /// Whether it is the state event of `kind` with `state_key`.
    pub fn is_state_of(&self, kind: &TimelineEventType, state_key: &str) -> bool {
        self.kind == *kind && self.state_key.as_deref() == Some(state_key)
    }

    /// Parses its content as `T`, borrowing from the event.
    ///
    /// # Errors
    /// Where the content lacks what `T` needs.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_str(self.content.get())
    }

    /// How a later event refers to this one.
    ///
    /// # Errors
    /// Where the reference hash, which room versions 1 and 2 send along, cannot be made.
    pub fn reference(&self, rules: &RoomVersionRules) -> Result<EventReference, InvalidPdu> {
        let sha256 = match rules.events_reference_format {
            EventsReferenceFormatVersion::V1 => {
                Some(signatures::reference_hash(&self.to_canonical()?, rules)?.into())
            }
            _ => None,
        };
        Ok(EventReference { event_id: self.event_id.clone(), depth: self.depth, sha256 })
    }
}

fn is_room_naming_create(wire: &Wire<'_>, rules: &RoomVersionRules) -> bool {
    rules.authorization.room_create_event_id_as_room_id
        && wire.kind == TimelineEventType::RoomCreate
        && wire.state_key.as_deref() == Some("")
}

/// The ID of the room that a create event of room version 12 makes: its own ID with another sigil.
pub(crate) fn room_named_by(create: &EventId) -> Result<OwnedRoomId, InvalidPdu> {
    RoomId::parse(format!("!{}", &create.as_str()[1..])).map_err(|_| InvalidPdu::NoRoomId)
}

fn references(raw: &RawValue, rules: &RoomVersionRules) -> serde_json::Result<Vec<OwnedEventId>> {
    match rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => {
            let pairs: Vec<HashedReference> = serde_json::from_str(raw.get())?;
            Ok(pairs.into_iter().map(|HashedReference(id, _)| id).collect())
        }
        _ => serde_json::from_str(raw.get()),
    }
}

fn redacts(wire: &Wire<'_>, rules: &RoomVersionRules) -> Option<OwnedEventId> {
    if wire.kind != TimelineEventType::RoomRedaction {
        return None;
    }
    if !rules.redaction.content_field_redacts {
        return EventId::parse(wire.redacts.as_deref()?).ok();
    }
    let content: RedactsContent<'_> = serde_json::from_str(wire.content.get()).ok()?;
    EventId::parse(content.redacts?).ok()
}

impl state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        // The auth rules of room version 12 look at what the create event itself says.
        self.names_room.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

#[cfg(test)]
mod tests;
