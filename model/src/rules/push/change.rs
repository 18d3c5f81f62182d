//! Changes of a user's push rules: adding, placing, removing, enabling, and setting actions.
//!
//! Each function leaves the ruleset as it was where it returns an error.

use ruma::push::{
    Action, AnyPushRuleRef, ConditionalPushRule, ConditionalPushRuleInit, NewConditionalPushRule,
    NewPushRule, PatternedPushRuleInit, RemovePushRuleError, RuleKind, Ruleset, SimplePushRuleInit,
};

/// How many rules of its own a user may have in all.
pub const OWN_RULES_MAX: usize = 1000;

/// Why a rule was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddRuleError {
    /// IDs with a leading dot are the server's.
    #[error("rule IDs that start with a dot are reserved for the server's own rules")]
    ReservedId,
    /// IDs hold no slashes.
    #[error("a rule ID cannot contain slashes or backslashes")]
    InvalidId,
    /// `before` or `after` names a rule that there is none of.
    #[error("before/after rule not found: {0}")]
    NeighbourNotFound(String),
    /// `before` or `after` names one of the server's own rules.
    #[error("a rule cannot be placed next to the server's own rule {0}")]
    NeighbourReserved(String),
    /// The user has as many rules as there can be.
    #[error("there are {OWN_RULES_MAX} rules already")]
    TooMany,
}

/// Why a rule was not changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRuleError {
    /// There is no such rule (`M_NOT_FOUND`).
    #[error("the push rule was not found")]
    NotFound,
    /// One of the server's own rules, which can be changed but not removed.
    #[error("the server's own rules cannot be removed")]
    ServerDefault,
}

/// Where a rule is to stand among the user's own rules of its kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placement<'a> {
    /// Just before this rule, as the next more important one.
    pub before: Option<&'a str>,
    /// Just after this rule; heeded only where `before` is not given.
    pub after: Option<&'a str>,
}

/// Adds a rule, or replaces the one of its kind and ID. A new rule is enabled and becomes the user's
/// most important of its kind unless `placement` says otherwise; a replaced rule keeps its place
/// and stays enabled or disabled.
///
/// # Errors
/// Where the ID or the placement is not possible.
pub fn add(
    rules: &mut Ruleset,
    new: NewPushRule,
    placement: Placement<'_>,
) -> Result<(), AddRuleError> {
    let id = new.rule_id().to_owned();
    if id.starts_with('.') {
        return Err(AddRuleError::ReservedId);
    }
    if id.is_empty() || id.contains(['/', '\\']) {
        return Err(AddRuleError::InvalidId);
    }
    let kind = new.kind();
    let ids: Vec<String> = own_and_default_ids(rules, &kind);
    let old = ids.iter().position(|other| *other == id);
    if old.is_none()
        && rules.iter().filter(|rule| !rule.is_server_default()).count() >= OWN_RULES_MAX
    {
        return Err(AddRuleError::TooMany);
    }
    let enabled = rules.get(kind, &id).is_none_or(AnyPushRuleRef::enabled);
    let at = place(&ids, &id, old, placement)?;
    insert(rules, new, enabled, at);
    Ok(())
}

fn own_and_default_ids(rules: &Ruleset, kind: &RuleKind) -> Vec<String> {
    fn all<'a, T: 'a>(of: impl IntoIterator<Item = &'a T>, id: fn(&T) -> &str) -> Vec<String> {
        of.into_iter().map(|rule| id(rule).to_owned()).collect()
    }
    match kind {
        RuleKind::Override => all(&rules.override_, |rule| &rule.rule_id),
        RuleKind::Underride => all(&rules.underride, |rule| &rule.rule_id),
        RuleKind::Content => all(&rules.content, |rule| &rule.rule_id),
        RuleKind::PostContent => all(&rules.postcontent, |rule| &rule.rule_id),
        RuleKind::Room => all(&rules.room, |rule| rule.rule_id.as_str()),
        RuleKind::Sender => all(&rules.sender, |rule| rule.rule_id.as_str()),
        _ => Vec::new(),
    }
}

/// The index that the rule has once the old rule of its ID is taken out and it is put in.
fn place(
    ids: &[String],
    id: &str,
    old: Option<usize>,
    placement: Placement<'_>,
) -> Result<usize, AddRuleError> {
    let find = |neighbour: &str| {
        if neighbour.starts_with('.') {
            return Err(AddRuleError::NeighbourReserved(neighbour.to_owned()));
        }
        let at = ids.iter().position(|other| other == neighbour);
        let at = at.ok_or_else(|| AddRuleError::NeighbourNotFound(neighbour.to_owned()))?;
        Ok(at - usize::from(old.is_some_and(|old| old < at)))
    };
    match (placement.before, placement.after, old) {
        // Next to itself is where it is.
        (Some(neighbour), _, Some(old)) | (None, Some(neighbour), Some(old)) if neighbour == id => {
            Ok(old)
        }
        (Some(before), _, _) => find(before),
        (None, Some(after), _) => Ok(find(after)? + 1),
        (None, None, Some(old)) => Ok(old),
        // The server's master rule stays above all others.
        (None, None, None) => Ok(usize::from(ids.first().is_some_and(|id| id == ".m.rule.master"))),
    }
}

fn insert(rules: &mut Ruleset, new: NewPushRule, enabled: bool, at: usize) {
    let default = false;
    match new {
        NewPushRule::Override(new) => {
            let rule = conditional(new, enabled);
            rules.override_.shift_remove(rule.rule_id.as_str());
            rules.override_.shift_insert(at, rule);
        }
        NewPushRule::Underride(new) => {
            let rule = conditional(new, enabled);
            rules.underride.shift_remove(rule.rule_id.as_str());
            rules.underride.shift_insert(at, rule);
        }
        NewPushRule::Content(new) => {
            let (rule_id, pattern, actions) = (new.rule_id, new.pattern, new.actions);
            let init = PatternedPushRuleInit { actions, default, enabled, rule_id, pattern };
            rules.content.shift_remove(init.rule_id.as_str());
            rules.content.shift_insert(at, init.into());
        }
        NewPushRule::PostContent(new) => {
            let rule = conditional(new, enabled);
            rules.postcontent.shift_remove(rule.rule_id.as_str());
            rules.postcontent.shift_insert(at, rule);
        }
        NewPushRule::Room(new) => {
            let (rule_id, actions) = (new.rule_id, new.actions);
            rules.room.shift_remove(rule_id.as_str());
            let init = SimplePushRuleInit { actions, default, enabled, rule_id };
            rules.room.shift_insert(at, init.into());
        }
        NewPushRule::Sender(new) => {
            let (rule_id, actions) = (new.rule_id, new.actions);
            rules.sender.shift_remove(rule_id.as_str());
            let init = SimplePushRuleInit { actions, default, enabled, rule_id };
            rules.sender.shift_insert(at, init.into());
        }
        // Ruma has no other kinds.
        _ => {}
    }
}

fn conditional(new: NewConditionalPushRule, enabled: bool) -> ConditionalPushRule {
    ConditionalPushRule::from(ConditionalPushRuleInit {
        actions: new.actions,
        default: false,
        enabled,
        rule_id: new.rule_id,
        conditions: new.conditions,
    })
}

/// Removes one of the user's own rules.
///
/// # Errors
/// Where there is none, or it is one of the server's.
pub fn remove(rules: &mut Ruleset, kind: RuleKind, id: &str) -> Result<(), ChangeRuleError> {
    rules.remove(kind, id).map_err(|error| match error {
        RemovePushRuleError::ServerDefault => ChangeRuleError::ServerDefault,
        _ => ChangeRuleError::NotFound,
    })
}

/// Enables or disables a rule, the server's or one's own.
///
/// # Errors
/// Where there is no such rule.
pub fn set_enabled(
    rules: &mut Ruleset,
    kind: RuleKind,
    id: &str,
    enabled: bool,
) -> Result<(), ChangeRuleError> {
    rules.set_enabled(kind, id, enabled).map_err(|_| ChangeRuleError::NotFound)
}

/// Sets the actions of a rule, the server's or one's own.
///
/// # Errors
/// Where there is no such rule.
pub fn set_actions(
    rules: &mut Ruleset,
    kind: RuleKind,
    id: &str,
    actions: Vec<Action>,
) -> Result<(), ChangeRuleError> {
    rules.set_actions(kind, id, actions).map_err(|_| ChangeRuleError::NotFound)
}

/// The ruleset as clients read it: all kinds, empty ones too.
pub fn to_json(rules: &Ruleset) -> serde_json::Value {
    serde_json::json!({
        "override": rules.override_,
        "content": rules.content,
        "postcontent": rules.postcontent,
        "room": rules.room,
        "sender": rules.sender,
        "underride": rules.underride,
    })
}
