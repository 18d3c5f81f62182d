//! Power levels on both sides of an upgrade (spec: Client-Server API, Room Upgrades). Plain
//! functions.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, OwnedUserId, UserId,
    room_version_rules::RoomVersionRules,
};

/// What a level field means where an event does not say it (spec: m.room.power_levels).
const DEFAULTS: [(&str, i32); 7] = [
    ("ban", 50),
    ("events_default", 0),
    ("invite", 0),
    ("kick", 50),
    ("redact", 50),
    ("state_default", 50),
    ("users_default", 0),
];
/// The level of who creates a room whose version does not put creators above all levels.
const CREATOR_LEVEL: i32 = 100;
/// What a tombstone needs in rooms whose creators stand above all levels.
const TOMBSTONE_LEVEL: i32 = 150;
/// The least that speaking and inviting need in a room that was replaced.
const QUIET_LEVEL: i32 = 50;

/// The new room's power levels, made from the old room's.
///
/// Creators have no level in versions that put them above all; coming from such a version to an
/// older one, whoever upgrades gets the highest one.
pub(super) fn upgraded_levels(
    old: Option<CanonicalJsonObject>,
    creator: &UserId,
    additional_creators: &[OwnedUserId],
    rules: &RoomVersionRules,
) -> CanonicalJsonObject {
    let mut levels: CanonicalJsonObject =
        DEFAULTS.iter().map(|(field, value)| ((*field).to_owned(), level(*value))).collect();
    levels.insert("events".to_owned(), CanonicalJsonValue::Object(CanonicalJsonObject::new()));
    let said = old.is_some();
    levels.extend(old.unwrap_or_default());
    let mut users = object_of(&levels, "users");
    if rules.authorization.explicitly_privilege_room_creators {
        users.remove(creator.as_str());
        for creator in additional_creators {
            users.remove(creator.as_str());
        }
        let mut events = object_of(&levels, "events");
        let tombstone = number(events.get("m.room.tombstone")).unwrap_or_default();
        if tombstone < Int::from(TOMBSTONE_LEVEL) {
            events.insert("m.room.tombstone".to_owned(), level(TOMBSTONE_LEVEL));
        }
        levels.insert("events".to_owned(), CanonicalJsonValue::Object(events));
    } else if !said || users.values().all(|user| number(Some(user)) < Some(CREATOR_LEVEL.into())) {
        users.insert(creator.to_string(), level(CREATOR_LEVEL));
    }
    levels.insert("users".to_owned(), CanonicalJsonValue::Object(users));
    levels
}

/// The old room's levels, such that nobody without a level speaks or invites; `None` where that is
/// so already.
pub(super) fn restricted_levels(mut levels: CanonicalJsonObject) -> Option<CanonicalJsonObject> {
    let default = number(levels.get("users_default")).unwrap_or_default();
    let quiet = (default + Int::from(1)).max(QUIET_LEVEL.into());
    let mut changed = false;
    for field in ["events_default", "invite"] {
        if number(levels.get(field)).unwrap_or_default() < quiet {
            levels.insert(field.to_owned(), CanonicalJsonValue::Integer(quiet));
            changed = true;
        }
    }
    changed.then_some(levels)
}

fn object_of(levels: &CanonicalJsonObject, field: &str) -> CanonicalJsonObject {
    levels.get(field).and_then(CanonicalJsonValue::as_object).cloned().unwrap_or_default()
}

fn number(value: Option<&CanonicalJsonValue>) -> Option<Int> {
    match value? {
        CanonicalJsonValue::Integer(number) => Some(*number),
        // Room versions before 10 allow texts.
        CanonicalJsonValue::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn level(level: i32) -> CanonicalJsonValue {
    CanonicalJsonValue::Integer(level.into())
}
