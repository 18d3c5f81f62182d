//! Push rules: which events notify whom, and how (spec: Client-Server API, Push Notifications).
//!
//! An event is flattened once ([`PushEvent`]) and evaluated for each recipient ([`evaluate`]). The
//! default rules are in [`default_rules`]; changing rulesets is in [`change`].

pub mod change;
mod defaults;
mod event;
pub mod glob;

use ruma::{
    RoomId, UserId,
    push::{
        Action, ConditionalPushRule, EventMatchConditionData, PushCondition, RoomMemberCountIs,
        Ruleset,
    },
};
use std::ops::RangeBounds;

pub use defaults::default_rules;
pub use event::PushEvent;

use super::power_levels::{self, PowerLevels};
use event::Flat;

/// What evaluation needs to know of the room, shared by all recipients.
#[derive(Debug, Clone, Copy)]
pub struct PushRoom<'a> {
    /// How many users are joined.
    pub member_count: u64,
    /// The power levels before the event; `None` where the room has no create event to tell.
    pub power_levels: Option<&'a PowerLevels>,
}

/// Somebody who might be notified.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// Who.
    pub user: &'a UserId,
    /// Their display name in the room.
    pub display_name: Option<&'a str>,
    /// Where the event is in a thread about which they have said so: whether they want to be notified.
    pub thread_wanted: Option<bool>,
}

/// What an event means to a recipient: the actions of the first rule that matches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome<'a> {
    /// Whether it notifies, and counts as unread.
    pub notify: bool,
    /// Whether it is to be highlighted, and counts as a highlight. Only where it notifies.
    pub highlight: bool,
    /// All actions of the rule, for pushers and `/notifications`.
    pub actions: &'a [Action],
}

/// Evaluates `event` for one recipient. Nobody is notified of their own events.
pub fn evaluate<'a>(
    ruleset: &'a Ruleset,
    event: &PushEvent,
    room: PushRoom<'_>,
    recipient: Recipient<'_>,
) -> Outcome<'a> {
    if event.sender() == recipient.user {
        return Outcome::default();
    }
    let context = Context { event, room, recipient };
    match context.first_match(ruleset) {
        None => Outcome::default(),
        Some(actions) => {
            let notify = actions.iter().any(Action::should_notify);
            let highlight = notify && actions.iter().any(Action::is_highlight);
            Outcome { notify, highlight, actions }
        }
    }
}

struct Context<'a> {
    event: &'a PushEvent,
    room: PushRoom<'a>,
    recipient: Recipient<'a>,
}

impl Context<'_> {
    /// The actions of the first rule that matches, in the order of the kinds of rules.
    fn first_match<'r>(&self, rules: &'r Ruleset) -> Option<&'r [Action]> {
        let heeded = |id: &str| {
            !(self.event.says_mentions()
                && matches!(id, defaults::USER_NAME | defaults::DISPLAY_NAME))
        };
        let conditional = |rule: &&ConditionalPushRule| {
            rule.enabled && heeded(&rule.rule_id) && self.all_hold(rule)
        };
        if let Some(rule) = rules.override_.iter().find(conditional) {
            return Some(&rule.actions);
        }
        let in_body = |pattern: &str| {
            self.event.body_lower().is_some_and(|body| glob::matches_words(pattern, body))
        };
        if let Some(rule) = rules
            .content
            .iter()
            .find(|rule| rule.enabled && heeded(&rule.rule_id) && in_body(&rule.pattern))
        {
            return Some(&rule.actions);
        }
        if let Some(rule) = rules.postcontent.iter().find(conditional) {
            return Some(&rule.actions);
        }
        let room: &RoomId = self.event.room_id();
        if let Some(rule) = rules.room.iter().find(|r| r.enabled && r.rule_id == *room) {
            return Some(&rule.actions);
        }
        let sender = self.event.sender();
        if let Some(rule) = rules.sender.iter().find(|r| r.enabled && r.rule_id == *sender) {
            return Some(&rule.actions);
        }
        rules.underride.iter().find(conditional).map(|rule| rule.actions.as_slice())
    }

    fn all_hold(&self, rule: &ConditionalPushRule) -> bool {
        rule.conditions.iter().all(|condition| self.holds(condition))
    }

    fn holds(&self, condition: &PushCondition) -> bool {
        #[expect(deprecated, reason = "rules made by clients may still use the old condition")]
        match condition {
            PushCondition::EventMatch(data) => self.event_matches(data),
            PushCondition::ContainsDisplayName => self.names_recipient(),
            PushCondition::RoomMemberCount(data) => self.member_count_is(&data.is),
            PushCondition::SenderNotificationPermission(data) => {
                let action = power_levels::Action::Notify(data.key.as_str());
                let levels = self.room.power_levels;
                levels.is_some_and(|levels| levels.can(self.event.sender(), action))
            }
            PushCondition::EventPropertyIs(data) => match self.event.get(&data.key) {
                Some(Flat::Scalar(value)) => *value == data.value,
                _ => false,
            },
            PushCondition::EventPropertyContains(data) => match self.event.get(&data.key) {
                Some(Flat::Array(values)) => values.contains(&data.value),
                _ => false,
            },
            // Of a thread about which they have said nothing, neither holds: all other rules decide.
            PushCondition::ThreadSubscription(data) => {
                self.recipient.thread_wanted == Some(data.subscribed)
            }
            // A condition that is not known holds for nothing.
            _ => false,
        }
    }

    fn event_matches(&self, data: &EventMatchConditionData) -> bool {
        if data.key == "content.body" {
            return self
                .event
                .body_lower()
                .is_some_and(|body| glob::matches_words(&data.pattern, body));
        }
        self.event.get_str(&data.key).is_some_and(|value| glob::matches_whole(&data.pattern, value))
    }

    fn names_recipient(&self) -> bool {
        match (self.recipient.display_name, self.event.body_lower()) {
            (Some(name), Some(body)) if !name.is_empty() => glob::contains_word(name, body),
            _ => false,
        }
    }

    fn member_count_is(&self, is: &RoomMemberCountIs) -> bool {
        let count = self.room.member_count.min(ruma::UInt::MAX.into());
        ruma::UInt::new(count).is_some_and(|count| is.contains(&count))
    }
}

#[cfg(test)]
mod tests;
