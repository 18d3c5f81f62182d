//! Who may enter a room, as its join rules say (spec: m.room.join_rules; room versions 7, 8 and 10).
//!
//! The auth rules decide over a finished event. These functions decide before one is made: which
//! rooms to look into, and whom to name as having authorised a restricted join.

use ruma::{
    OwnedRoomId, UserId, events::room::member::MembershipState, room::JoinRuleKind,
    room_version_rules::AuthorizationRules,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::power_levels::{Action, PowerLevels};
use crate::pdu::Pdu;

/// A room's join rules, read leniently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRules {
    /// The rule; `invite` where the room has none.
    pub rule: JoinRuleKind,
    /// The rooms whose members may join, for the restricted rules.
    pub allowed_rooms: Vec<OwnedRoomId>,
}

/// Whether a user may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// They may.
    Allowed,
    /// They may where they are in one of these rooms, and somebody who may invite authorises it.
    IfInOneOf(Vec<OwnedRoomId>),
    /// They may not.
    Refused(Refusal),
}

/// Why a user may not enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They are banned.
    #[error("you are banned from this room")]
    Banned,
    /// Only who is invited may join.
    #[error("you are not invited to this room")]
    NotInvited,
    /// They have knocked on, been invited to, or joined the room already.
    #[error("you are already in this room or invited to it")]
    AlreadyIn,
    /// The room takes no knocks.
    #[error("this room does not take knocks")]
    NoKnocks,
    /// The room takes no guests.
    #[error("this room does not admit guests")]
    NoGuests,
}

#[derive(Deserialize)]
struct Content<'a> {
    join_rule: JoinRuleKind,
    #[serde(borrow, default)]
    allow: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct AllowRule {
    #[serde(rename = "type")]
    kind: String,
    room_id: OwnedRoomId,
}

impl JoinRules {
    /// Reads the room's `m.room.join_rules`; entries of `allow` that are not understood are skipped.
    pub fn new(event: Option<&Pdu>) -> Self {
        let content: Option<Content<'_>> = event.and_then(|event| event.content_as().ok());
        let Some(Content { join_rule, allow }) = content else {
            return Self { rule: JoinRuleKind::Invite, allowed_rooms: Vec::new() };
        };
        let room = |entry: &RawValue| {
            let entry: AllowRule = serde_json::from_str(entry.get()).ok()?;
            (entry.kind == "m.room_membership").then_some(entry.room_id)
        };
        let allowed_rooms = allow.unwrap_or_default().into_iter().filter_map(room).collect();
        Self { rule: join_rule, allowed_rooms }
    }

    /// Whether membership of other rooms lets people join, in a room of this version.
    pub fn is_restricted(&self, rules: &AuthorizationRules) -> bool {
        match self.rule {
            JoinRuleKind::Restricted => rules.restricted_join_rule,
            JoinRuleKind::KnockRestricted => rules.knock_restricted_join_rule,
            _ => false,
        }
    }

    /// Whether people may knock, in a room of this version.
    pub fn takes_knocks(&self, rules: &AuthorizationRules) -> bool {
        match self.rule {
            JoinRuleKind::Knock => rules.knocking,
            JoinRuleKind::KnockRestricted => rules.knock_restricted_join_rule,
            _ => false,
        }
    }

    /// Whether a user whose membership is `current` may join.
    pub fn join(&self, current: &MembershipState, rules: &AuthorizationRules) -> Join {
        match current {
            MembershipState::Ban => Join::Refused(Refusal::Banned),
            // A public room is joined by anyone; joining again and following an invite is always
            // possible, except where the room version does not know the rule.
            _ if self.rule == JoinRuleKind::Public => Join::Allowed,
            MembershipState::Join | MembershipState::Invite if self.heeds_invites(rules) => {
                Join::Allowed
            }
            _ if self.is_restricted(rules) => Join::IfInOneOf(self.allowed_rooms.clone()),
            _ => Join::Refused(Refusal::NotInvited),
        }
    }

    fn heeds_invites(&self, rules: &AuthorizationRules) -> bool {
        match self.rule {
            JoinRuleKind::Invite => true,
            JoinRuleKind::Knock => rules.knocking,
            _ => self.is_restricted(rules),
        }
    }

    /// Whether a user whose membership is `current` may knock.
    ///
    /// # Errors
    /// With the reason why they may not.
    pub fn knock(
        &self,
        current: &MembershipState,
        rules: &AuthorizationRules,
    ) -> Result<(), Refusal> {
        match current {
            MembershipState::Ban => Err(Refusal::Banned),
            MembershipState::Join | MembershipState::Invite => Err(Refusal::AlreadyIn),
            _ if self.takes_knocks(rules) => Ok(()),
            _ => Err(Refusal::NoKnocks),
        }
    }
}

/// Whether a room admits guests, as its `m.room.guest_access` says; without one it does not.
pub fn admits_guests(guest_access: Option<&Pdu>) -> bool {
    #[derive(Deserialize)]
    struct GuestAccess {
        guest_access: String,
    }
    guest_access
        .and_then(|event| event.content_as::<GuestAccess>().ok())
        .is_some_and(|content| content.guest_access == "can_join")
}

/// The member to name in `join_authorised_via_users_server`: of `members`, the joined users of this
/// server, the one with the highest level who may invite; `None` where nobody may, so that another
/// server has to be asked.
pub fn authorising_user<'a>(
    levels: &PowerLevels,
    members: impl IntoIterator<Item = &'a UserId>,
) -> Option<&'a UserId> {
    members
        .into_iter()
        .filter(|user| levels.can(user, Action::Invite))
        .max_by(|a, b| levels.user(a).cmp(&levels.user(b)).then_with(|| b.cmp(a)))
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::test_room::{TestRoom, rules};

    fn join_rules(content: Value) -> JoinRules {
        let event = TestRoom::new("10").state("m.room.join_rules", "", "@a:one", content);
        JoinRules::new(Some(&event))
    }

    fn rule(rule: &str) -> JoinRules {
        let allow = json!([
            {"type": "m.room_membership", "room_id": "!other:one"},
            {"type": "org.example", "room_id": "!no:one"},
            {"type": "m.room_membership"}, 7,
        ]);
        join_rules(json!({"join_rule": rule, "allow": allow}))
    }

    #[test]
    fn every_join_rule_and_membership_is_decided_as_the_table_says() {
        const MEMBERSHIPS: [&str; 5] = ["join", "invite", "knock", "leave", "ban"];
        let yes = Join::Allowed;
        let no = Join::Refused(Refusal::NotInvited);
        let banned = Join::Refused(Refusal::Banned);
        let ask = Join::IfInOneOf(vec![room_id!("!other:one").to_owned()]);
        let invited = [&yes, &yes, &no, &no, &banned];
        let restricted = [&yes, &yes, &ask, &ask, &banned];
        for (name, version, row) in [
            ("public", "1", [&yes, &yes, &yes, &yes, &banned]),
            ("invite", "1", invited),
            ("private", "10", [&no, &no, &no, &no, &banned]),
            ("knock", "6", [&no, &no, &no, &no, &banned]),
            ("knock", "7", invited),
            ("restricted", "7", [&no, &no, &no, &no, &banned]),
            ("restricted", "8", restricted),
            ("knock_restricted", "9", [&no, &no, &no, &no, &banned]),
            ("knock_restricted", "10", restricted),
        ] {
            for (membership, expected) in MEMBERSHIPS.into_iter().zip(row) {
                let decision = rule(name).join(&membership.into(), &rules(version).authorization);
                assert_eq!(&decision, expected, "{name} v{version}, {membership}");
            }
        }
    }

    #[test]
    fn knocking_needs_a_rule_that_the_room_version_knows_and_no_membership() {
        for (name, version, membership, expected) in [
            ("knock", "7", "leave", Ok(())),
            ("knock", "7", "knock", Ok(())),
            ("knock", "6", "leave", Err(Refusal::NoKnocks)),
            ("knock_restricted", "9", "leave", Err(Refusal::NoKnocks)),
            ("knock_restricted", "10", "leave", Ok(())),
            ("public", "10", "leave", Err(Refusal::NoKnocks)),
            ("knock", "7", "join", Err(Refusal::AlreadyIn)),
            ("knock", "7", "invite", Err(Refusal::AlreadyIn)),
            ("knock", "7", "ban", Err(Refusal::Banned)),
        ] {
            let decision = rule(name).knock(&membership.into(), &rules(version).authorization);
            assert_eq!(decision, expected, "{name} v{version}, {membership}");
        }
    }

    #[test]
    fn without_usable_join_rules_a_room_is_for_the_invited() {
        assert_eq!(JoinRules::new(None).rule, JoinRuleKind::Invite);
        assert_eq!(join_rules(json!({"join_rule": 5})).rule, JoinRuleKind::Invite);
    }

    #[test]
    fn guests_are_admitted_only_where_the_room_says_so() {
        let access = |content: Value| {
            let event = TestRoom::new("10").state("m.room.guest_access", "", "@a:one", content);
            admits_guests(Some(&event))
        };
        assert!(access(json!({"guest_access": "can_join"})));
        assert!(!access(json!({"guest_access": "forbidden"})));
        assert!(!access(json!({})));
        assert!(!admits_guests(None));
    }

    #[test]
    fn a_restricted_join_is_authorised_by_whoever_may_invite_and_has_the_most_power() {
        let levels = TestRoom::new("10").levels(json!({
            "invite": 50, "users": {"@mod:one": 50, "@admin:one": 100, "@low:one": 49},
        }));
        let (low, moderator, admin) =
            (user_id!("@low:one"), user_id!("@mod:one"), user_id!("@admin:one"));
        assert_eq!(authorising_user(&levels, [low, moderator, admin]), Some(admin));
        assert_eq!(authorising_user(&levels, [moderator, low]), Some(moderator));
        assert_eq!(authorising_user(&levels, [low]), None);
    }
}
