//! Redaction: what is left of a redacted event, and whether a redaction takes effect (spec:
//! Client-Server API, Redactions; room version 3, Handling redactions).

use ruma::{UserId, canonical_json, room_version_rules::RoomVersionRules};

use super::power_levels::PowerLevels;
use crate::pdu::{InvalidPdu, Pdu};

/// What is left of `event` once it is redacted, by the rules of its room version. Its ID and room
/// stay as they are; signatures and hashes are kept.
///
/// # Errors
/// Where what is left no longer parses, which no accepted event causes.
pub fn redacted(event: &Pdu, rules: &RoomVersionRules) -> Result<Pdu, InvalidPdu> {
    let mut object = event.to_canonical()?;
    canonical_json::redact_in_place(&mut object, &rules.redaction, None)
        .expect("a parsed event has a type");
    let text = serde_json::to_string(&object)?;
    let (event_id, room_id) = (event.event_id.clone(), event.room_id.clone());
    let mut left = Pdu::from_stored(text.into(), event_id, room_id, rules)?;
    left.rejected = event.rejected;
    Ok(left)
}

/// Whether `redaction` takes effect on `target`, both accepted events. In room versions 1 and 2 the
/// auth rules have decided that already; since version 3 anyone may send a redaction, and it is
/// applied where its sender has the redact level or is of the same server as the target's sender.
/// `levels` are those of the state before the redaction.
pub fn applies(
    redaction: &Pdu,
    target: &Pdu,
    levels: &PowerLevels,
    rules: &RoomVersionRules,
) -> bool {
    redaction.redacts.as_ref() == Some(&target.event_id)
        && redaction.room_id == target.room_id
        && (rules.authorization.special_case_room_redaction
            || may_apply(&redaction.sender, &target.sender, levels))
}

/// Whether a redaction by `sender` of an event of `target_sender` takes effect in room versions
/// since 3.
pub fn may_apply(sender: &UserId, target_sender: &UserId, levels: &PowerLevels) -> bool {
    levels.user(sender) >= levels.redact() || sender.server_name() == target_sender.server_name()
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::test_room::{TestRoom, rules};

    fn content_left(version: &str, kind: &str, content: Value) -> Value {
        let room = TestRoom::new(version);
        let event = room.state(kind, "", "@a:one", content);
        let left = redacted(&event, rules(version)).unwrap();
        assert_eq!((&left.event_id, &left.room_id), (&event.event_id, &event.room_id));
        left.content_as().unwrap()
    }

    #[test]
    fn what_is_kept_of_each_content_depends_on_the_room_version() {
        for (kind, content, kept) in [
            ("m.room.message", json!({"body": "x"}), [json!({}), json!({}), json!({}), json!({})]),
            (
                "m.room.aliases",
                json!({"aliases": ["#a:one"], "x": 1}),
                [json!({"aliases": ["#a:one"]}), json!({}), json!({}), json!({})],
            ),
            (
                "m.room.join_rules",
                json!({"join_rule": "restricted", "allow": [], "x": 1}),
                [
                    json!({"join_rule": "restricted"}),
                    json!({"join_rule": "restricted"}),
                    json!({"join_rule": "restricted", "allow": []}),
                    json!({"join_rule": "restricted", "allow": []}),
                ],
            ),
            (
                "m.room.create",
                json!({"creator": "@a:one", "room_version": "x"}),
                [
                    json!({"creator": "@a:one"}),
                    json!({"creator": "@a:one"}),
                    json!({"creator": "@a:one"}),
                    json!({"creator": "@a:one", "room_version": "x"}),
                ],
            ),
            (
                "m.room.power_levels",
                json!({"ban": 50, "invite": 3, "x": 1, "notifications": {}}),
                [
                    json!({"ban": 50}),
                    json!({"ban": 50}),
                    json!({"ban": 50}),
                    json!({"ban": 50, "invite": 3}),
                ],
            ),
            (
                "m.room.history_visibility",
                json!({"history_visibility": "joined", "x": 1}),
                [(); 4].map(|()| json!({"history_visibility": "joined"})),
            ),
        ] {
            for (version, kept) in ["1", "6", "8", "11"].iter().zip(kept) {
                assert_eq!(content_left(version, kind, content.clone()), kept, "{kind} v{version}");
            }
        }
    }

    #[test]
    fn a_membership_keeps_who_authorised_it_from_version_nine_on() {
        let content = json!({
            "membership": "join", "displayname": "A", "join_authorised_via_users_server": "@b:one",
        });
        for (version, keeps) in [("8", false), ("9", true), ("12", true)] {
            let left = content_left(version, "m.room.member", content.clone());
            assert_eq!(left.get("join_authorised_via_users_server").is_some(), keeps, "{version}");
            assert_eq!(left["membership"], "join");
            assert!(left.get("displayname").is_none());
        }
    }

    #[test]
    fn a_redaction_needs_the_redact_level_or_the_same_server() {
        let room = TestRoom::new("10");
        let levels = room.levels(json!({"users": {"@mod:two": 50}}));
        for (sender, allowed) in [
            (user_id!("@mod:two"), true),
            (user_id!("@other:one"), true),
            (user_id!("@other:two"), false),
        ] {
            let target = room.message("@a:one", json!({"body": "x"}));
            let redaction = room.redaction(sender.as_str(), &target.event_id);
            assert_eq!(applies(&redaction, &target, &levels, rules("10")), allowed, "{sender}");
            let another = room.message("@a:one", json!({"body": "y"}));
            assert!(!applies(&redaction, &another, &levels, rules("10")));
        }
    }
}
