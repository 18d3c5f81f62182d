//! What is broken on purpose, to show that a run notices it.

use std::sync::LazyLock;

use millrace_domain::Rulebook;
use millrace_model::rules::room_version;
use ruma::{
    RoomVersionId,
    room_version_rules::{RoomVersionRules, StateResolutionVersion},
};

/// What one of the servers does wrong while the storm lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    None,
    /// Its disk acknowledges one batch in so many without writing it.
    LosesCommits(i64),
    /// It does not let creators of rooms stand above all others (room version 12).
    AuthRule,
    /// It resolves forks as the first room version did, by depth and hash.
    ResolutionOrder,
}

impl Sabotage {
    /// The rules by which the server judges.
    pub fn rules(self) -> Rulebook {
        match self {
            Self::None | Self::LosesCommits(_) => room_version::rules,
            Self::AuthRule => without_creators,
            Self::ResolutionOrder => resolving_as_the_first,
        }
    }

    /// The versions of the rooms of a run, one of which each room has.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::None | Self::LosesCommits(_) => &["10", "11", "12"],
            Self::AuthRule => &["12"],
            Self::ResolutionOrder => &["10"],
        }
    }
}

fn without_creators(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    static BROKEN: LazyLock<Option<RoomVersionRules>> = LazyLock::new(|| {
        let mut rules = room_version::rules(&RoomVersionId::V12)?.clone();
        rules.authorization.explicitly_privilege_room_creators = false;
        Some(rules)
    });
    match version {
        RoomVersionId::V12 => BROKEN.as_ref(),
        other => room_version::rules(other),
    }
}

fn resolving_as_the_first(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    static BROKEN: LazyLock<Option<RoomVersionRules>> = LazyLock::new(|| {
        let mut rules = room_version::rules(&RoomVersionId::V10)?.clone();
        rules.state_res = StateResolutionVersion::V1;
        Some(rules)
    });
    match version {
        RoomVersionId::V10 => BROKEN.as_ref(),
        other => room_version::rules(other),
    }
}
