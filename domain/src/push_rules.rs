//! A user's push rules (spec: Client-Server API, Push Rules). Kept as account data of the type
//! `m.push_rules`; who has changed nothing has no row, and the default rules.

use futures::FutureExt;
use millrace_model::rules::push::{
    change::{self, AddRuleError, ChangeRuleError, Placement},
    default_rules,
};
use millrace_store::{Read, Tx, tables::ACCOUNT_DATA};
use ruma::{
    RoomId, UserId,
    push::{Action, NewPushRule, RuleKind, Ruleset},
};
use serde::Deserialize;
use serde_json::json;

use crate::{Env, account_data::PUSH_RULES};

/// The key of the row.
const KEY: (&str, &str) = ("", PUSH_RULES);
/// The most that a user's rules may take, in bytes of JSON.
const RULES_BYTES_MAX: usize = 1 << 20;

/// Why push rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    /// The rule cannot be added.
    #[error(transparent)]
    Add(#[from] AddRuleError),
    /// The rule cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeRuleError),
    /// All rules together are too large.
    #[error("push rules have at most {RULES_BYTES_MAX} bytes in all")]
    TooLarge,
    /// The store failed.
    #[error("could not read or write the push rules")]
    Store(#[from] millrace_store::Error),
}

#[derive(Deserialize)]
struct Content {
    global: Ruleset,
}

/// The push rules of a user.
///
/// # Errors
/// Where the store cannot be read.
pub async fn ruleset(read: &impl Read, user: &UserId) -> millrace_store::Result<Ruleset> {
    Ok(parse(user, read.get(&ACCOUNT_DATA, user, KEY).await?.as_deref()))
}

/// The content of `m.push_rules` as clients see it, for users without a row too.
///
/// # Errors
/// Where the store cannot be read.
pub async fn account_data(read: &impl Read, user: &UserId) -> millrace_store::Result<String> {
    Ok(content(&ruleset(read, user).await?))
}

fn content(rules: &Ruleset) -> String {
    json!({ "global": change::to_json(rules) }).to_string()
}

/// What is stored, brought up to date with the default rules of this version of the server.
fn parse(user: &UserId, stored: Option<&str>) -> Ruleset {
    let mut default = default_rules(user);
    let Some(Content { global: mut rules }) =
        stored.and_then(|text| serde_json::from_str(text).ok())
    else {
        return default;
    };
    // ruma leaves out this kind, of which users have no rules of their own.
    let about_threads = std::mem::take(&mut default.postcontent);
    rules.update_with_server_default(default);
    rules.postcontent.extend(about_threads);
    rules
}

/// Adds a rule, or replaces the one of its kind and ID.
///
/// # Errors
/// Where the rule, its ID or its place is not possible.
pub async fn add(
    env: &Env,
    user: &UserId,
    rule: &NewPushRule,
    placement: Placement<'_>,
) -> Result<(), PushRuleError> {
    edit(env, user, |rules| Ok(change::add(rules, rule.clone(), placement)?)).await
}

/// Removes one of the user's own rules.
///
/// # Errors
/// Where there is none, or it is one of the server's.
pub async fn remove(
    env: &Env,
    user: &UserId,
    kind: &RuleKind,
    id: &str,
) -> Result<(), PushRuleError> {
    edit(env, user, |rules| Ok(change::remove(rules, kind.clone(), id)?)).await
}

/// Enables or disables a rule.
///
/// # Errors
/// Where there is none.
pub async fn set_enabled(
    env: &Env,
    user: &UserId,
    kind: &RuleKind,
    id: &str,
    enabled: bool,
) -> Result<(), PushRuleError> {
    edit(env, user, |rules| Ok(change::set_enabled(rules, kind.clone(), id, enabled)?)).await
}

/// Sets the actions of a rule.
///
/// # Errors
/// Where there is none.
pub async fn set_actions(
    env: &Env,
    user: &UserId,
    kind: &RuleKind,
    id: &str,
    actions: &[Action],
) -> Result<(), PushRuleError> {
    edit(env, user, |rules| Ok(change::set_actions(rules, kind.clone(), id, actions.to_vec())?))
        .await
}

/// Gives a user's rule for one room to another one too, if there is such a rule; for rooms that are
/// replaced.
///
/// # Errors
/// Where the store cannot be read.
pub(crate) async fn copy_room_rule(
    tx: &Tx,
    user: &UserId,
    from: &RoomId,
    to: &RoomId,
) -> millrace_store::Result<()> {
    let mut rules = ruleset(tx, user).await?;
    let rule_of = |room: &RoomId| rules.room.iter().find(|rule| rule.rule_id == room).cloned();
    let (Some(mut rule), None) = (rule_of(from), rule_of(to)) else { return Ok(()) };
    to.clone_into(&mut rule.rule_id);
    rules.room.insert(rule);
    tx.put(&ACCOUNT_DATA, user, KEY, &content(&rules));
    Ok(())
}

async fn edit(
    env: &Env,
    user: &UserId,
    edit: impl Fn(&mut Ruleset) -> Result<(), PushRuleError> + Sync,
) -> Result<(), PushRuleError> {
    let edit = &edit;
    let write = |tx: Tx| {
        async move {
            let mut rules = ruleset(&tx, user).await?;
            edit(&mut rules)?;
            let content = content(&rules);
            if content.len() > RULES_BYTES_MAX {
                return Err(PushRuleError::TooLarge);
            }
            tx.put(&ACCOUNT_DATA, user, KEY, &content);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

#[cfg(test)]
mod tests {
    use ruma::{push::NewSimplePushRule, user_id};

    use super::*;
    use crate::testing;

    fn sender_rule(actions: &str) -> NewPushRule {
        let actions = serde_json::from_str(actions).unwrap();
        let bob = user_id!("@bob:test.example").to_owned();
        NewPushRule::Sender(NewSimplePushRule::new(bob, actions))
    }

    #[tokio::test]
    async fn rules_come_back_as_they_were_set_beside_the_default_ones() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        let before = account_data(&env.store.snapshot(), alice).await.unwrap();
        assert!(before.contains(".m.rule.master"));
        let rule = sender_rule(r#"["dont_notify"]"#);
        add(&env, alice, &rule, Placement::default()).await.unwrap();
        let content = account_data(&env.store.snapshot(), alice).await.unwrap();
        let content: serde_json::Value = serde_json::from_str(&content).unwrap();
        assert_eq!(content["global"]["sender"][0]["actions"], json!(["dont_notify"]));
        assert_eq!(content["global"]["override"][0]["rule_id"], ".m.rule.master");
        remove(&env, alice, &RuleKind::Sender, "@bob:test.example").await.unwrap();
        assert_eq!(account_data(&env.store.snapshot(), alice).await.unwrap(), before);
    }

    #[tokio::test]
    async fn what_is_stored_without_the_rules_about_threads_gets_them_and_keeps_changed_ones() {
        let alice = user_id!("@alice:test.example");
        let all = default_rules(alice).postcontent;
        assert_eq!(all.len(), 2);
        assert_eq!(parse(alice, Some(r#"{"global":{}}"#)).postcontent, all);
        let mut rules = default_rules(alice);
        let id = ".io.element.msc4306.rule.subscribed_thread";
        change::set_enabled(&mut rules, RuleKind::PostContent, id, false).unwrap();
        let rules = parse(alice, Some(&content(&rules))).postcontent;
        assert_eq!(rules, all);
        assert!(!rules.get(id).unwrap().enabled);
    }
}
