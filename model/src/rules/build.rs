//! Making this server's own events: their form, hashes, signature and ID, for every room version
//! (spec: Server-Server API, Signing Events; each room version's Event format).

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, Int, MilliSecondsSinceUnixEpoch, RoomId,
    ServerName, UserId,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
    signatures,
};

use super::signing_key::ServerSigningKey;
use crate::pdu::{EventReference, InvalidPdu, Pdu};

/// The largest event, in bytes of canonical JSON with hashes and signatures.
pub const EVENT_BYTES_MAX: usize = 65_535;
/// The longest `type`, `state_key` and identifier, in bytes.
pub const FIELD_BYTES_MAX: usize = 255;
/// The most `prev_events` an event may have.
pub const PREV_EVENTS_MAX: usize = 20;
/// The most `auth_events` an event may have.
pub const AUTH_EVENTS_MAX: usize = 10;

/// An event that is about to be made.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// The room; `None` only for the create event of a room version whose rooms are named by it.
    pub room_id: Option<&'a RoomId>,
    /// The sender, a user of the server that signs.
    pub sender: &'a UserId,
    /// The `type`.
    pub kind: &'a TimelineEventType,
    /// The state key; `None` for a message event.
    pub state_key: Option<&'a str>,
    /// The content, as [`crate::json::canonical_object`] parses it.
    pub content: CanonicalJsonObject,
    /// What a redaction redacts; put where the room version keeps it.
    pub redacts: Option<&'a EventId>,
    /// The time of sending.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// The events just before this one: at most [`PREV_EVENTS_MAX`].
    pub prev_events: &'a [EventReference],
    /// The events that authorise it: at most [`AUTH_EVENTS_MAX`].
    pub auth_events: &'a [EventReference],
    /// The unique local part of the event ID, which only room versions 1 and 2 have.
    pub local_id: &'a str,
}

/// Why an event cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A field, or the whole event, is larger than the specification allows (`M_TOO_LARGE`).
    #[error("{field} is {bytes} bytes long; at most {bytes_max} are allowed")]
    TooLarge {
        /// The field, or `event` for the whole.
        field: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        bytes_max: usize,
    },
    /// More references to earlier events than an event can have.
    #[error("{count} {field}; at most {count_max} are allowed")]
    TooManyReferences {
        /// `prev_events` or `auth_events`.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// The event could not be hashed or signed.
    #[error("could not sign the event: {0}")]
    Sign(#[from] signatures::JsonError),
    /// The finished event is not one of its room version.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
}

/// Makes an event: puts it into its room version's form, hashes it, signs it in the name of `server`,
/// and names it.
///
/// # Errors
/// Where the event would break a limit of the specification.
pub fn build(
    new: NewEvent<'_>,
    rules: &RoomVersionRules,
    server: &ServerName,
    key: &ServerSigningKey,
) -> Result<Pdu, BuildError> {
    check_fields(&new)?;
    let mut object = to_object(new, rules, server);
    match signatures::hash_and_sign_event(server.as_str(), key, &mut object, &rules.redaction) {
        Err(signatures::JsonError::PduTooLarge) => return Err(too_large(&object)),
        signed => signed?,
    }
    let pdu = Pdu::from_canonical(&object, rules)?;
    if pdu.json().len() > EVENT_BYTES_MAX {
        return Err(too_large(&object));
    }
    Ok(pdu)
}

/// The same event without hashes, signatures and ID: a template for another server to finish (spec:
/// Server-Server API, `make_join` and its like).
///
/// # Errors
/// As [`build`].
pub fn template(
    new: NewEvent<'_>,
    rules: &RoomVersionRules,
    server: &ServerName,
) -> Result<CanonicalJsonObject, BuildError> {
    check_fields(&new)?;
    let mut object = to_object(new, rules, server);
    object.remove("event_id");
    Ok(object)
}

fn too_large(object: &CanonicalJsonObject) -> BuildError {
    let bytes = serde_json::to_string(object).map_or(0, |text| text.len());
    BuildError::TooLarge { field: "event", bytes, bytes_max: EVENT_BYTES_MAX }
}

fn check_fields(new: &NewEvent<'_>) -> Result<(), BuildError> {
    for (field, bytes) in [
        ("type", new.kind.to_string().len()),
        ("state_key", new.state_key.map_or(0, str::len)),
        ("sender", new.sender.as_str().len()),
        ("room_id", new.room_id.map_or(0, |id| id.as_str().len())),
    ] {
        if bytes > FIELD_BYTES_MAX {
            return Err(BuildError::TooLarge { field, bytes, bytes_max: FIELD_BYTES_MAX });
        }
    }
    for (field, count, count_max) in [
        ("prev_events", new.prev_events.len(), PREV_EVENTS_MAX),
        ("auth_events", new.auth_events.len(), AUTH_EVENTS_MAX),
    ] {
        if count > count_max {
            return Err(BuildError::TooManyReferences { field, count, count_max });
        }
    }
    Ok(())
}

fn to_object(
    new: NewEvent<'_>,
    rules: &RoomVersionRules,
    server: &ServerName,
) -> CanonicalJsonObject {
    let depth = new.prev_events.iter().map(|event| event.depth).max().unwrap_or(0);
    let depth = i64::try_from(depth.saturating_add(1)).ok().and_then(Int::new);
    let ts = Int::from(new.origin_server_ts.0);
    let mut content = new.content;
    let mut object = CanonicalJsonObject::new();
    let mut put = |field: &str, value: CanonicalJsonValue| {
        object.insert(field.to_owned(), value);
    };
    if let Some(redacts) = new.redacts {
        let value = CanonicalJsonValue::String(redacts.to_string());
        if rules.redaction.content_field_redacts {
            content.insert("redacts".to_owned(), value);
        } else {
            put("redacts", value);
        }
    }
    if rules.event_id_format == EventIdFormatVersion::V1 {
        put("event_id", format!("${}:{server}", new.local_id).into());
    }
    if let Some(room_id) = new.room_id {
        put("room_id", room_id.as_str().into());
    }
    if let Some(state_key) = new.state_key {
        put("state_key", state_key.into());
    }
    put("type", new.kind.to_string().into());
    put("sender", new.sender.as_str().into());
    put("origin_server_ts", CanonicalJsonValue::Integer(ts));
    // Where predecessors claim the greatest depth there is, so does this event.
    put("depth", CanonicalJsonValue::Integer(depth.unwrap_or(Int::MAX)));
    put("content", CanonicalJsonValue::Object(content));
    put("prev_events", references(new.prev_events, rules));
    put("auth_events", references(new.auth_events, rules));
    object
}

fn references(events: &[EventReference], rules: &RoomVersionRules) -> CanonicalJsonValue {
    let id = |event: &EventReference| CanonicalJsonValue::from(event.event_id.as_str());
    let hashed = rules.events_reference_format == EventsReferenceFormatVersion::V1;
    let one = |event: &EventReference| {
        if !hashed {
            return id(event);
        }
        let sha256 = CanonicalJsonValue::from(event.sha256.as_deref().unwrap_or_default());
        let hashes = CanonicalJsonObject::from([("sha256".to_owned(), sha256)]);
        CanonicalJsonValue::Array(vec![id(event), CanonicalJsonValue::Object(hashes)])
    };
    CanonicalJsonValue::Array(events.iter().map(one).collect())
}

#[cfg(test)]
mod tests;
