//! A template of a member event that another server made for a user of ours, and what we sign of it
//! (spec: Server-Server API, Joining Rooms, Knocking upon a room, Leaving Rooms).

use millrace_domain::Env;
use millrace_model::{
    Pdu,
    json::{NotCanonical, canonical_object},
    pdu::InvalidPdu,
    rules::{
        build::{AUTH_EVENTS_MAX, EVENT_BYTES_MAX, PREV_EVENTS_MAX},
        room_version,
    },
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, RoomVersionId, ServerName,
    UserId,
    events::room::member::MembershipState,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    signatures,
};
use serde_json::value::RawValue;

/// Where a member event names who admitted the user to a restricted room.
pub(super) const AUTHORISED_VIA: &str = "join_authorised_via_users_server";

/// Why a template is not signed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The room has a version that this server does not have.
    #[error("room version {0} is not supported")]
    Version(RoomVersionId),
    /// Not canonical JSON.
    #[error("the template is malformed: {0}")]
    Json(#[from] NotCanonical),
    /// It would make us sign something else than what was asked for.
    #[error("the template's {0} is not what was asked for")]
    Field(&'static str),
    /// It could not be signed.
    #[error("the event cannot be signed: {0}")]
    Sign(#[from] signatures::JsonError),
    /// The finished event is not one of its room version.
    #[error(transparent)]
    Invalid(#[from] InvalidPdu),
    /// The finished event is larger than events may be.
    #[error("the event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
}

/// What was asked for: a member event of a user of ours about themselves.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub room: &'a RoomId,
    pub user: &'a UserId,
    pub membership: MembershipState,
    /// What the event shall say beside its membership: profile and reason.
    pub content: &'a CanonicalJsonObject,
}

impl Wanted<'_> {
    /// The event that `server`'s template makes, signed by us. Of the template only the place in the
    /// room's graph is taken over, and for restricted rooms who of that server admits the user.
    pub fn sign(
        &self,
        env: &Env,
        server: &ServerName,
        version: &RoomVersionId,
        template: &RawValue,
    ) -> Result<Pdu, TemplateError> {
        let rules =
            room_version::rules(version).ok_or_else(|| TemplateError::Version(version.clone()))?;
        let template = canonical_object(template.get())?;
        self.check(&template)?;
        let mut event = place(&template)?;
        let mut content = self.content.clone();
        content.insert("membership".to_owned(), self.membership.as_str().into());
        content.remove(AUTHORISED_VIA);
        if let Some(user) = admitted_by(&template, server, rules, &self.membership)? {
            content.insert(AUTHORISED_VIA.to_owned(), user.as_str().into());
        }
        let mut put = |field: &str, value: CanonicalJsonValue| {
            event.insert(field.to_owned(), value);
        };
        put("type", "m.room.member".into());
        put("room_id", self.room.as_str().into());
        put("sender", self.user.as_str().into());
        put("state_key", self.user.as_str().into());
        put("origin_server_ts", CanonicalJsonValue::Integer(env.now().0.into()));
        put("content", CanonicalJsonValue::Object(content));
        if rules.event_id_format == EventIdFormatVersion::V1 {
            let id = format!("${}:{}", env.random_text(18), env.identity.name);
            put("event_id", id.into());
        }
        let (name, key) = (env.identity.name.as_str(), &env.identity.key);
        signatures::hash_and_sign_event(name, key, &mut event, &rules.redaction)?;
        let pdu = Pdu::from_canonical(&event, rules)?;
        if pdu.json().len() > EVENT_BYTES_MAX { Err(TemplateError::TooLarge) } else { Ok(pdu) }
    }

    /// The joining server MUST verify these.
    fn check(&self, template: &CanonicalJsonObject) -> Result<(), TemplateError> {
        let text = |field: &str| template.get(field).and_then(CanonicalJsonValue::as_str);
        let membership = template
            .get("content")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|content| content.get("membership")?.as_str());
        for (field, found, wanted) in [
            ("type", text("type"), "m.room.member"),
            ("room_id", text("room_id"), self.room.as_str()),
            ("sender", text("sender"), self.user.as_str()),
            ("state_key", text("state_key"), self.user.as_str()),
            ("membership", membership, self.membership.as_str()),
        ] {
            if found != Some(wanted) {
                return Err(TemplateError::Field(field));
            }
        }
        Ok(())
    }
}

/// Where in the room's graph the template puts the event.
fn place(template: &CanonicalJsonObject) -> Result<CanonicalJsonObject, TemplateError> {
    let mut place = CanonicalJsonObject::new();
    for (field, most) in [("prev_events", PREV_EVENTS_MAX), ("auth_events", AUTH_EVENTS_MAX)] {
        let references = template
            .get(field)
            .filter(|value| value.as_array().is_some_and(|references| references.len() <= most));
        let references = references.ok_or(TemplateError::Field(field))?;
        place.insert(field.to_owned(), references.clone());
    }
    let depth = template.get("depth").filter(|depth| depth.is_integer());
    place.insert("depth".to_owned(), depth.ok_or(TemplateError::Field("depth"))?.clone());
    Ok(place)
}

/// Who admits the user. It must be a user of the server that made the template, since that server
/// signs the admission.
fn admitted_by(
    template: &CanonicalJsonObject,
    server: &ServerName,
    rules: &RoomVersionRules,
    membership: &MembershipState,
) -> Result<Option<OwnedUserId>, TemplateError> {
    if *membership != MembershipState::Join || !rules.authorization.restricted_join_rule {
        return Ok(None);
    }
    let content = template.get("content").and_then(CanonicalJsonValue::as_object);
    let Some(user) = content.and_then(|content| content.get(AUTHORISED_VIA)) else {
        return Ok(None);
    };
    let user = user.as_str().and_then(|user| UserId::parse(user).ok());
    match user.filter(|user| user.server_name() == server) {
        Some(user) => Ok(Some(user)),
        None => Err(TemplateError::Field(AUTHORISED_VIA)),
    }
}
