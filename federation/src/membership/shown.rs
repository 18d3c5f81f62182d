//! What another server shows our user of a room that we are not in (spec: Server-Server API,
//! `invite_room_state`, `knock_room_state`; Client-Server API, Stripped state).

use millrace_domain::rooms::stripped;
use millrace_model::{Pdu, rules::room_version};
use ruma::{
    OwnedEventId, OwnedUserId, RoomId, RoomVersionId,
    api::federation::membership::RawStrippedState, room_version_rules::RoomIdFormatVersion,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Federation, check::Refusal};

/// So many events are shown at most; the specification lists nine.
const SHOWN_MAX: usize = 50;

/// Why what is shown is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BadShownState {
    /// Something that is not an event of the room's version.
    #[error("one of the events shown of the room is no event of its version")]
    Form,
    /// An event whose signatures do not hold.
    #[error("one of the events shown of the room cannot be accepted: {0}")]
    Check(#[from] Refusal),
    /// An event of another room.
    #[error("{0}, which is shown of the room, belongs to another")]
    OtherRoom(OwnedEventId),
    /// The create event is not there.
    #[error("the events shown of the room lack its m.room.create")]
    NoCreate,
}

/// An event as clients outside of its room see it.
#[derive(Debug, Serialize, Deserialize)]
struct Stripped<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    sender: OwnedUserId,
    state_key: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The stripped events that the user is shown, their own member event last.
///
/// # Errors
/// In rooms whose ID is that of their create event, where the create event is missing or any event
/// is not what it must be. In older ones, whose servers may not send whole events yet, what cannot
/// be used is left out.
pub(super) async fn shown(
    federation: &Federation,
    (room, version): (&RoomId, &RoomVersionId),
    state: Vec<RawStrippedState>,
    member: &Pdu,
) -> Result<Vec<String>, BadShownState> {
    let rules = room_version::rules(version);
    let strict = rules.is_some_and(|rules| rules.room_id_format == RoomIdFormatVersion::V2);
    let mut shown = Vec::new();
    let mut pdus = Vec::new();
    for event in state.into_iter().take(SHOWN_MAX) {
        match event {
            RawStrippedState::Pdu(pdu) => pdus.push(pdu),
            _ if strict => return Err(BadShownState::Form),
            #[expect(deprecated, reason = "servers from before version 1.16 send this form")]
            RawStrippedState::Stripped(raw) => shown.extend(restripped(raw.json())),
            _ => {}
        }
    }
    let mut created = false;
    for checked in federation.check_pdus(version, pdus).await {
        match checked {
            Ok(pdu) if pdu.room_id == room => {
                created |= pdu.is_state_of(&"m.room.create".into(), "");
                shown.extend(pdu.state_key.is_some().then(|| stripped(&pdu)));
            }
            Ok(pdu) if strict => return Err(BadShownState::OtherRoom(pdu.event_id)),
            Err(error) if strict => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    if strict && !created {
        return Err(BadShownState::NoCreate);
    }
    shown.push(stripped(member));
    Ok(shown)
}

/// Nothing but the user's own member event.
pub(super) fn only(member: &Pdu) -> Vec<String> {
    vec![stripped(member)]
}

/// An event of the older form, without what does not belong there.
fn restripped(raw: &RawValue) -> Option<String> {
    let event: Stripped<'_> = serde_json::from_str(raw.get()).ok()?;
    if !event.content.get().starts_with('{') {
        return None;
    }
    serde_json::to_string(&event).ok()
}
