//! Whose invitations a user wants (spec: Client-Server API, Invite permission; MSC4155 for single
//! users and servers).

use millrace_model::rules::push::glob::matches_whole;
use millrace_store::Read;
use ruma::UserId;
use serde::{Deserialize, de::DeserializeOwned};

/// Where it is said that all invitations are refused: by the name of version 1.18, and by the one that
/// clients used before (MSC4380).
const CONFIGS: [&str; 2] =
    ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"];

/// What becomes of an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvitePermission {
    /// It is shown.
    Allow,
    /// It is taken, and never shown.
    Ignore,
    /// It is refused.
    Block,
}

/// Whose invitations a user wants; by default everybody's.
#[derive(Debug, Clone, Default)]
pub struct InvitePermissions {
    blocks_all: bool,
    rules: Rules,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Config {
    default_action: Option<String>,
}

/// Patterns of user IDs and of server names. What is absent is `null` or not there.
#[derive(Debug, Clone, Default, Deserialize)]
struct Rules {
    enabled: Option<bool>,
    allowed_users: Option<Vec<String>>,
    ignored_users: Option<Vec<String>>,
    blocked_users: Option<Vec<String>>,
    allowed_servers: Option<Vec<String>>,
    ignored_servers: Option<Vec<String>>,
    blocked_servers: Option<Vec<String>>,
}

impl InvitePermissions {
    /// What `user` has set. Malformed content refuses nobody.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn load(read: &impl Read, user: &UserId) -> millrace_store::Result<Self> {
        let mut blocks_all = false;
        for kind in CONFIGS {
            let config: Config = content(read, user, kind).await?;
            blocks_all |= config.default_action.as_deref() == Some("block");
        }
        let rules = content(read, user, "org.matrix.msc4155.invite_permission_config").await?;
        Ok(Self { blocks_all, rules })
    }

    /// What becomes of an invitation by `sender`: users are looked at before servers, and who is
    /// allowed before who is not.
    #[must_use]
    pub fn of(&self, sender: &UserId) -> InvitePermission {
        use InvitePermission::{Allow, Block, Ignore};
        let rules = &self.rules;
        if self.blocks_all {
            return Block;
        }
        if rules.enabled == Some(false) {
            return Allow;
        }
        let (user, server) = (sender.as_str(), sender.server_name().as_str());
        let in_order = [
            (&rules.allowed_users, user, Allow),
            (&rules.ignored_users, user, Ignore),
            (&rules.blocked_users, user, Block),
            (&rules.allowed_servers, server, Allow),
            (&rules.ignored_servers, server, Ignore),
            (&rules.blocked_servers, server, Block),
        ];
        let first = in_order.into_iter().find(|(patterns, name, _)| {
            patterns.iter().flatten().any(|pattern| matches_whole(pattern, name))
        });
        first.map_or(Allow, |(_, _, permission)| permission)
    }
}

async fn content<T: DeserializeOwned + Default>(
    read: &impl Read,
    user: &UserId,
    kind: &str,
) -> millrace_store::Result<T> {
    let content = super::get(read, user, None, kind).await?;
    Ok(content.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Value, json, value::to_raw_value};

    use super::{InvitePermission::*, *};
    use crate::{account_data::set, testing};

    async fn permission(kind: &str, content: Value, sender: &UserId) -> InvitePermission {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        set(&env, alice, None, kind, &to_raw_value(&content).unwrap()).await.unwrap();
        InvitePermissions::load(&env.store.snapshot(), alice).await.unwrap().of(sender)
    }

    #[tokio::test]
    async fn users_go_before_servers_and_leave_before_refusal() {
        let kind = "org.matrix.msc4155.invite_permission_config";
        for (content, expected) in [
            (json!({}), Allow),
            (json!({"blocked_users": null, "ignored_users": 5}), Allow),
            (json!({"blocked_users": ["@b?b:*"]}), Block),
            (json!({"ignored_users": ["@bob:one"], "blocked_users": ["@bob:one"]}), Ignore),
            (json!({"blocked_servers": ["o*"]}), Block),
            (json!({"blocked_servers": ["two"]}), Allow),
            (json!({"allowed_users": ["@bob:one"], "blocked_servers": ["*"]}), Allow),
            (json!({"blocked_users": ["@bob:one"], "allowed_servers": ["*"]}), Block),
            (json!({"enabled": false, "blocked_users": ["*"]}), Allow),
        ] {
            let found = permission(kind, content.clone(), user_id!("@bob:one")).await;
            assert_eq!(found, expected, "{content}");
        }
    }

    #[tokio::test]
    async fn who_blocks_all_invitations_blocks_all() {
        let kind = "m.invite_permission_config";
        for (content, expected) in
            [(json!({"default_action": "block"}), Block), (json!({"default_action": "x"}), Allow)]
        {
            let found = permission(kind, content.clone(), user_id!("@bob:one")).await;
            assert_eq!(found, expected, "{content}");
        }
    }
}
