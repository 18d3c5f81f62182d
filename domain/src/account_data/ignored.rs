//! Whom a user ignores (spec: Client-Server API, Ignoring Users).

use std::collections::BTreeSet;

use millrace_store::Read;
use ruma::{OwnedUserId, UserId};
use serde_json::Value;

/// The users of `m.ignored_user_list`. Malformed content ignores nobody, and nobody can ignore
/// themselves.
///
/// # Errors
/// Where the store cannot be read.
pub async fn ignored(
    read: &impl Read,
    user: &UserId,
) -> millrace_store::Result<BTreeSet<OwnedUserId>> {
    let Some(content) = super::get(read, user, None, "m.ignored_user_list").await? else {
        return Ok(BTreeSet::new());
    };
    let content: Value = serde_json::from_str(&content).unwrap_or_default();
    let listed = content["ignored_users"].as_object();
    let ids = listed.into_iter().flatten().filter_map(|(id, _)| UserId::parse(id).ok());
    Ok(ids.filter(|ignored| ignored != user).collect())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::value::RawValue;

    use super::*;
    use crate::{account_data::set, testing};

    #[tokio::test]
    async fn only_valid_others_are_ignored() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        let list =
            r#"{"ignored_users":{"@bob:test.example":{},"bob":{},"@alice:test.example":{}}}"#;
        assert!(ignored(&env.store.snapshot(), alice).await.unwrap().is_empty());
        let list = RawValue::from_string(list.to_owned()).unwrap();
        set(&env, alice, None, "m.ignored_user_list", &list).await.unwrap();
        let ignored = ignored(&env.store.snapshot(), alice).await.unwrap();
        assert_eq!(ignored.into_iter().collect::<Vec<_>>(), [user_id!("@bob:test.example")]);
    }
}
