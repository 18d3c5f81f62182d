//! The first state of a new room: what preset, power levels and wishes amount to (spec:
//! Client-Server API, `POST /createRoom`). Plain functions.

use millrace_model::rules::power_levels::CREATOR_LEVEL;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, RoomAliasId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};

use super::create::{InitialState, NewRoom, Preset};

/// A content that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct MalformedContent {
    /// The field of the request.
    pub field: &'static str,
    /// What it has to be.
    pub expected: &'static str,
}

/// The room's state without members, in the order in which it is sent: the create event, the power
/// levels, the canonical alias, what the preset says, the initial state, name and topic.
pub(super) fn first_state(
    new: &NewRoom,
    rules: &RoomVersionRules,
    alias: Option<&RoomAliasId>,
) -> Result<Vec<InitialState>, MalformedContent> {
    let mut state = vec![
        InitialState::of(TimelineEventType::RoomCreate, create_content(new, rules)?),
        InitialState::of(TimelineEventType::RoomPowerLevels, power_levels(new, rules)),
    ];
    if let Some(alias) = alias {
        let content = object([("alias", alias.as_str().into())]);
        state.push(InitialState::of(TimelineEventType::RoomCanonicalAlias, content));
    }
    let chosen = |kind: &TimelineEventType| {
        new.initial_state.iter().any(|event| event.kind == *kind && event.state_key.is_empty())
    };
    state.extend(preset_state(new.preset).into_iter().filter(|event| !chosen(&event.kind)));
    state.extend(new.initial_state.iter().cloned());
    if let Some(name) = &new.name {
        let content = object([("name", name.as_str().into())]);
        state.push(InitialState::of(TimelineEventType::RoomName, content));
    }
    if let Some(topic) = &new.topic {
        state.push(InitialState::of(TimelineEventType::RoomTopic, topic_content(topic)));
    }
    Ok(state)
}

fn create_content(
    new: &NewRoom,
    rules: &RoomVersionRules,
) -> Result<CanonicalJsonObject, MalformedContent> {
    let mut content = new.creation_content.clone();
    content.insert("room_version".to_owned(), new.version.as_str().into());
    content.remove("creator");
    if !rules.authorization.use_room_create_sender {
        content.insert("creator".to_owned(), new.creator.as_str().into());
    }
    let federates = content.get("m.federate").is_none_or(|value| value.as_bool().is_some());
    if !federates {
        return Err(MalformedContent { field: "m.federate", expected: "a boolean" });
    }
    if rules.authorization.additional_room_creators
        && new.preset == Preset::TrustedPrivate
        && !new.invite.is_empty()
    {
        add_creators(&mut content, new)?;
    }
    Ok(content)
}

/// Who is invited to a trusted private chat becomes a creator of it (room version 12).
fn add_creators(content: &mut CanonicalJsonObject, new: &NewRoom) -> Result<(), MalformedContent> {
    let field = "additional_creators";
    let expected = "an array of user IDs";
    let creators =
        content.entry(field.to_owned()).or_insert_with(|| CanonicalJsonValue::Array(Vec::new()));
    let CanonicalJsonValue::Array(creators) = creators else {
        return Err(MalformedContent { field, expected });
    };
    for invited in new.invite.iter().filter(|invited| **invited != new.creator) {
        let invited = CanonicalJsonValue::from(invited.as_str());
        if !creators.contains(&invited) {
            creators.push(invited);
        }
    }
    Ok(())
}

fn power_levels(new: &NewRoom, rules: &RoomVersionRules) -> CanonicalJsonObject {
    let creators_stand_above = rules.authorization.explicitly_privilege_room_creators;
    let mut users = CanonicalJsonObject::new();
    if !creators_stand_above {
        users.insert(new.creator.to_string(), level(CREATOR_LEVEL));
        if new.preset == Preset::TrustedPrivate {
            let invited = new.invite.iter();
            users.extend(invited.map(|user| (user.to_string(), level(CREATOR_LEVEL))));
        }
    }
    let events = object([
        ("m.room.avatar", level(50)),
        ("m.room.canonical_alias", level(50)),
        ("m.room.encryption", level(100)),
        ("m.room.history_visibility", level(100)),
        ("m.room.name", level(50)),
        ("m.room.power_levels", level(100)),
        ("m.room.server_acl", level(100)),
        // Only who stands above the admins replaces a room that has such people.
        ("m.room.tombstone", level(if creators_stand_above { 150 } else { 100 })),
    ]);
    let mut content = object([
        ("ban", level(50)),
        ("events", CanonicalJsonValue::Object(events)),
        ("events_default", level(0)),
        ("invite", level(if new.preset == Preset::Public { 50 } else { 0 })),
        ("kick", level(50)),
        ("redact", level(50)),
        ("state_default", level(50)),
        ("users", CanonicalJsonValue::Object(users)),
        ("users_default", level(0)),
    ]);
    content.extend(new.power_levels.clone());
    content
}

fn preset_state(preset: Preset) -> Vec<InitialState> {
    let join_rule = match preset {
        Preset::Private | Preset::TrustedPrivate => "invite",
        Preset::Public => "public",
    };
    let one = |kind, field: &str, value: &str| {
        InitialState::of(kind, object([(field, CanonicalJsonValue::from(value))]))
    };
    let mut state = vec![
        one(TimelineEventType::RoomJoinRules, "join_rule", join_rule),
        one(TimelineEventType::RoomHistoryVisibility, "history_visibility", "shared"),
    ];
    if preset != Preset::Public {
        // Where there is none, guests are kept out.
        state.push(one(TimelineEventType::RoomGuestAccess, "guest_access", "can_join"));
    }
    state
}

/// A topic as plain text and in its rich form (spec: m.room.topic).
fn topic_content(topic: &str) -> CanonicalJsonObject {
    let text = object([("body", topic.into()), ("mimetype", "text/plain".into())]);
    let text = CanonicalJsonValue::Array(vec![CanonicalJsonValue::Object(text)]);
    let rich = CanonicalJsonValue::Object(object([("m.text", text)]));
    object([("topic", topic.into()), ("m.topic", rich)])
}

fn level(level: i64) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(ruma::Int::new_saturating(level))
}

fn object<const N: usize>(fields: [(&str, CanonicalJsonValue); N]) -> CanonicalJsonObject {
    fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()
}
