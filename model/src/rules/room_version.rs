//! Which room versions exist here and what each one changes (spec: Room Versions).

use ruma::{RoomVersionId, room_version_rules::RoomVersionRules};

/// The room version of a new room where neither the client nor the configuration names another
/// (spec v1.16: servers SHOULD use 12).
pub const DEFAULT: RoomVersionId = RoomVersionId::V12;

/// The rooms of MSC3757: as version 10, but that state has owners (`rules/owned_state.rs`).
pub const OWNED_STATE: &str = "org.matrix.msc3757.10";

/// Every supported room version of the specification, oldest first.
pub const SUPPORTED: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

static RULES: [RoomVersionRules; 12] = [
    RoomVersionRules::V1,
    RoomVersionRules::V2,
    RoomVersionRules::V3,
    RoomVersionRules::V4,
    RoomVersionRules::V5,
    RoomVersionRules::V6,
    RoomVersionRules::V7,
    RoomVersionRules::V8,
    RoomVersionRules::V9,
    RoomVersionRules::V10,
    RoomVersionRules::V11,
    RoomVersionRules::V12,
];

static OWNED_STATE_RULES: RoomVersionRules = RoomVersionRules::V10;

/// Every supported room version, those that the specification does not have too.
pub fn supported() -> impl Iterator<Item = RoomVersionId> {
    let unstable = RoomVersionId::try_from(OWNED_STATE).ok();
    SUPPORTED.iter().cloned().chain(unstable)
}

/// Whether state of a room with these rules has owners: whether they are what [`rules`] gives for
/// [`OWNED_STATE`]. Ruma's rules have no place to say it.
#[must_use]
pub fn owns_state(rules: &RoomVersionRules) -> bool {
    std::ptr::eq(rules, &raw const OWNED_STATE_RULES)
}

/// The rules of `version`, or `None` where this server does not support it.
pub fn rules(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    if version.as_str() == OWNED_STATE {
        return Some(&OWNED_STATE_RULES);
    }
    let place = SUPPORTED.iter().position(|supported| supported == version)?;
    Some(&RULES[place])
}

/// Whether events of other servers with a `type` or `state_key` of more than 255 bytes are refused.
/// Rooms of versions before 11 have events in which other servers counted code points: whoever
/// refused those would lack parts of the room's graph and state.
#[must_use]
pub const fn counts_bytes(rules: &RoomVersionRules) -> bool {
    // That and this came with room version 11.
    rules.authorization.use_room_create_sender
}

#[cfg(test)]
mod tests {
    use ruma::room_version_rules::{RoomIdFormatVersion, StateResolutionVersion};

    use super::*;

    #[test]
    fn bytes_are_counted_from_version_11_on() {
        let counting = SUPPORTED.iter().filter(|version| rules(version).is_some_and(counts_bytes));
        assert!(counting.eq([&RoomVersionId::V11, &RoomVersionId::V12]));
    }

    #[test]
    fn versions_one_to_twelve_have_the_rules_ruma_gives_them() {
        for (n, version) in SUPPORTED.iter().enumerate() {
            assert_eq!(version.as_str(), (n + 1).to_string());
            let ours = rules(version).expect("supported");
            let theirs = version.rules().expect("known to ruma");
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        }
    }

    #[test]
    fn only_the_rooms_of_msc3757_own_their_state() {
        let owning = supported().filter(|version| rules(version).is_some_and(owns_state));
        assert_eq!(owning.map(|version| version.to_string()).collect::<Vec<_>>(), [OWNED_STATE]);
        assert_eq!(supported().count(), 13);
    }

    #[test]
    fn an_unknown_version_has_no_rules() {
        assert!(rules(&RoomVersionId::try_from("13").unwrap()).is_none());
        assert!(rules(&RoomVersionId::try_from("org.example.v1").unwrap()).is_none());
    }

    #[test]
    fn only_version_one_uses_the_first_state_resolution_and_only_twelve_hashed_room_ids() {
        for version in &SUPPORTED {
            let rules = rules(version).unwrap();
            assert_eq!(
                rules.state_res == StateResolutionVersion::V1,
                *version == RoomVersionId::V1
            );
            assert_eq!(
                rules.room_id_format == RoomIdFormatVersion::V2,
                *version == RoomVersionId::V12
            );
        }
    }
}
