//! The rules that everybody has.
//!
//! They are those of the specification, and two of those that it took out in version 1.17: what
//! mentions a user by name in its text still highlights, as long as there are clients that do not
//! say in `m.mentions` whom they mention. Where an event has `m.mentions`, these two match nothing.

use ruma::{
    UserId,
    push::{Action, ConditionalPushRule, ConditionalPushRuleInit, PatternedPushRuleInit, Ruleset},
};

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
    rules
}

fn display_name() -> ConditionalPushRule {
    let condition = serde_json::json!({"kind": "contains_display_name"});
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
    let actions = serde_json::json!([
        "notify",
        {"set_tweak": "sound", "value": "default"},
        {"set_tweak": "highlight"},
    ]);
    serde_json::from_value(actions).expect("actions that ruma knows")
}
