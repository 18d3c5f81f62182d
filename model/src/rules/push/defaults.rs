//! The rules that everybody has.
//!
//! They are those of the specification, and two of those that it took out in version 1.17: what
//! mentions a user by name in its text still highlights, as long as there are clients that do not
//! say in `m.mentions` whom they mention. Where an event has `m.mentions`, these two match nothing.
//! Polls have the rules of MSC3930, by the names under which clients know them, and threads those of
//! MSC4306, which ruma has.

use ruma::{
    UserId,
    push::{Action, ConditionalPushRule, ConditionalPushRuleInit, PatternedPushRuleInit, Ruleset},
};
use serde_json::{Value, json};

/// Matches texts that name the user's localpart.
pub(super) const USER_NAME: &str = ".m.rule.contains_user_name";
/// Matches texts that name the user's display name.
pub(super) const DISPLAY_NAME: &str = ".m.rule.contains_display_name";

/// The rules of somebody who has changed none.
pub fn default_rules(user: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    let after = rules.override_.get_index_of(".m.rule.is_room_mention");
    let at = after.map_or(rules.override_.len(), |at| at + 1);
    rules.override_.shift_insert(at, display_name());
    rules.content.insert(
        PatternedPushRuleInit {
            actions: highlight(),
            default: true,
            enabled: true,
            rule_id: USER_NAME.to_owned(),
            pattern: user.localpart().to_owned(),
        }
        .into(),
    );
    rules.override_.insert(of_poll("poll_response", "response", Room::Any, &[]));
    for (what, at) in [("poll_start", "start"), ("poll_end", "end")] {
        let sound = json!({"set_tweak": "sound", "value": "default"});
        let in_pair = format!("{what}_one_to_one");
        rules.underride.insert(of_poll(&in_pair, at, Room::OfTwo, &[json!("notify"), sound]));
        rules.underride.insert(of_poll(what, at, Room::Any, &[json!("notify")]));
    }
    rules
}

/// The rooms that a rule is about.
#[derive(PartialEq, Eq)]
enum Room {
    Any,
    OfTwo,
}

/// A rule about the start, a response or the end of polls.
fn of_poll(name: &str, event: &str, room: Room, actions: &[Value]) -> ConditionalPushRule {
    let kind = format!("org.matrix.msc3381.poll.{event}");
    let mut conditions = vec![json!({"kind": "event_match", "key": "type", "pattern": kind})];
    if room == Room::OfTwo {
        conditions.insert(0, json!({"kind": "room_member_count", "is": "2"}));
    }
    let (conditions, actions) = (Value::Array(conditions), Value::Array(actions.to_vec()));
    ConditionalPushRule::from(ConditionalPushRuleInit {
        actions: serde_json::from_value(actions).expect("actions that ruma knows"),
        default: true,
        enabled: true,
        rule_id: format!(".org.matrix.msc3930.rule.{name}"),
        conditions: serde_json::from_value(conditions).expect("conditions that ruma knows"),
    })
}

fn display_name() -> ConditionalPushRule {
    let condition = json!({"kind": "contains_display_name"});
    let condition = serde_json::from_value(condition).expect("a condition that ruma knows");
    ConditionalPushRule::from(ConditionalPushRuleInit {
        actions: highlight(),
        default: true,
        enabled: true,
        rule_id: DISPLAY_NAME.to_owned(),
        conditions: vec![condition],
    })
}

fn highlight() -> Vec<Action> {
    let actions = json!([
        "notify",
        {"set_tweak": "sound", "value": "default"},
        {"set_tweak": "highlight"},
    ]);
    serde_json::from_value(actions).expect("actions that ruma knows")
}
