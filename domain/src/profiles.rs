//! Profiles: what users tell about themselves, field by field (spec: Client-Server API, Profiles).

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    tables::{ACCOUNTS, PROFILES},
};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value};

use crate::Env;

/// The whole profile, as canonical JSON, in bytes (spec: Profiles).
pub const PROFILE_BYTES_MAX: usize = 64 << 10;
/// The name of a field, in bytes.
pub const FIELD_BYTES_MAX: usize = 255;
/// A display name, in characters.
const DISPLAY_NAME_CHARS_MAX: usize = 256;
/// The URL of an avatar, in bytes.
const AVATAR_URL_BYTES_MAX: usize = 1000;

/// The name that others are shown.
pub const DISPLAY_NAME: &str = "displayname";
/// The picture that others are shown.
pub const AVATAR_URL: &str = "avatar_url";

/// Why a profile is not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Nobody of this name has an account here.
    #[error("{0} is not known here")]
    UnknownUser(OwnedUserId),
    /// The field's name is too long.
    #[error("the name of a field has at most {FIELD_BYTES_MAX} bytes")]
    KeyTooLarge,
    /// The field's name is not one (spec: Common Namespaced Identifier Grammar).
    #[error("not a valid name of a profile field: {0}")]
    InvalidKey(String),
    /// The value is not of the kind that the field has.
    #[error("not a valid value of the profile field {0}")]
    InvalidValue(String),
    /// The profile would be too large.
    #[error("a profile has at most {PROFILE_BYTES_MAX} bytes")]
    TooLarge,
    /// The store failed.
    #[error("could not read or write the profile")]
    Store(#[from] millrace_store::Error),
}

/// The profile of a user of this server.
///
/// # Errors
/// [`ProfileError::UnknownUser`] where there is no such account.
pub async fn get(env: &Env, user: &UserId) -> Result<Map<String, Value>, ProfileError> {
    let snapshot = env.store.snapshot();
    if snapshot.get(&ACCOUNTS, user, ()).await?.is_none() {
        return Err(ProfileError::UnknownUser(user.to_owned()));
    }
    let rows = snapshot.scan(&PROFILES, user, Scan::all()).await?;
    Ok(rows.into_iter().filter_map(|(key, json)| Some((key, parse(&json)?))).collect())
}

/// One field of a profile; none where the user has not set it.
///
/// # Errors
/// [`ProfileError::UnknownUser`] where there is no such account.
pub async fn get_field(
    env: &Env,
    user: &UserId,
    field: &str,
) -> Result<Option<Value>, ProfileError> {
    let snapshot = env.store.snapshot();
    if snapshot.get(&ACCOUNTS, user, ()).await?.is_none() {
        return Err(ProfileError::UnknownUser(user.to_owned()));
    }
    let json = snapshot.get(&PROFILES, user, field).await?;
    Ok(json.and_then(|json| parse(&json)))
}

/// The display name and the avatar of a user, as their member events are to show them.
///
/// # Errors
/// Where the store cannot be read.
pub async fn shown_in_rooms(
    read: &impl Read,
    user: &UserId,
) -> millrace_store::Result<(Option<String>, Option<String>)> {
    let rows = read.get_many(&PROFILES, user, [DISPLAY_NAME, AVATAR_URL]).await?;
    let mut texts = rows.into_iter().map(|json| match parse(&json?) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    });
    Ok((texts.next().flatten(), texts.next().flatten()))
}

fn parse(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

/// Sets one field. Says whether that changed it.
///
/// # Errors
/// As [`ProfileError`] says.
pub async fn set_field(
    env: &Env,
    user: &UserId,
    field: &str,
    value: &Value,
) -> Result<bool, ProfileError> {
    check_key(field)?;
    check_value(field, value)?;
    let json = &value.to_string();
    let write = |tx: Tx| {
        async move {
            if tx.get(&PROFILES, user, field).await?.as_ref() == Some(json) {
                return Ok(false);
            }
            // Two changes at once may together pass the limit by a little, which harms nobody.
            let rows = tx.unprotected().scan(&PROFILES, user, Scan::all()).await?;
            let others = rows.iter().filter(|(key, _)| key != field);
            let size: usize = others.map(|(key, json)| field_size(key, json)).sum();
            if size + field_size(field, json) + 1 > PROFILE_BYTES_MAX {
                return Err(ProfileError::TooLarge);
            }
            tx.put(&PROFILES, user, field, json);
            Ok(true)
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// `"key":value,`
fn field_size(key: &str, json: &str) -> usize {
    key.len() + json.len() + 4
}

/// Removes one field. Says whether it was there.
///
/// # Errors
/// As [`ProfileError`] says.
pub async fn delete_field(env: &Env, user: &UserId, field: &str) -> Result<bool, ProfileError> {
    check_key(field)?;
    let write = |tx: Tx| {
        async move {
            let was_there = tx.get(&PROFILES, user, field).await?.is_some();
            if was_there {
                tx.delete(&PROFILES, user, field);
            }
            Ok(was_there)
        }
        .boxed()
    };
    env.store.transact(write).await
}

fn check_key(field: &str) -> Result<(), ProfileError> {
    if field.len() > FIELD_BYTES_MAX {
        return Err(ProfileError::KeyTooLarge);
    }
    let valid = field.starts_with(|c: char| c.is_ascii_lowercase())
        && field.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.'));
    if valid { Ok(()) } else { Err(ProfileError::InvalidKey(field.to_owned())) }
}

fn check_value(field: &str, value: &Value) -> Result<(), ProfileError> {
    let valid = match (field, value) {
        (DISPLAY_NAME, Value::String(name)) => name.chars().count() <= DISPLAY_NAME_CHARS_MAX,
        (AVATAR_URL, Value::String(url)) => url.len() <= AVATAR_URL_BYTES_MAX,
        (DISPLAY_NAME | AVATAR_URL, _) => false,
        _ => true,
    };
    if valid { Ok(()) } else { Err(ProfileError::InvalidValue(field.to_owned())) }
}

#[cfg(test)]
mod tests {
    use millrace_store::rows::account::Account;
    use ruma::user_id;
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn alice() -> &'static UserId {
        user_id!("@alice:test.example")
    }

    async fn world() -> Env {
        let env = testing::env().await;
        let account = &Account::default();
        let added = env.store.transact(|tx| {
            tx.put(&ACCOUNTS, alice(), (), account);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        });
        added.await.unwrap();
        env
    }

    #[tokio::test]
    async fn fields_are_set_read_and_deleted_one_by_one() {
        let env = world().await;
        assert!(set_field(&env, alice(), "displayname", &json!("Alice")).await.unwrap());
        assert!(!set_field(&env, alice(), "displayname", &json!("Alice")).await.unwrap());
        assert!(set_field(&env, alice(), "org.example.x", &json!({"a": [1]})).await.unwrap());
        let profile = Value::Object(get(&env, alice()).await.unwrap());
        assert_eq!(profile, json!({"displayname": "Alice", "org.example.x": {"a": [1]}}));
        assert!(delete_field(&env, alice(), "displayname").await.unwrap());
        assert!(!delete_field(&env, alice(), "displayname").await.unwrap());
        assert_eq!(get_field(&env, alice(), "displayname").await.unwrap(), None);
        let stranger = get(&env, user_id!("@eve:test.example")).await;
        assert!(matches!(stranger, Err(ProfileError::UnknownUser(_))));
    }

    #[tokio::test]
    async fn names_values_and_the_whole_have_limits() {
        let env = world().await;
        let set = async |field: &str, value: Value| set_field(&env, alice(), field, &value).await;
        let long = "k".repeat(256);
        assert!(matches!(set(&long, json!(1)).await, Err(ProfileError::KeyTooLarge)));
        for key in ["", "A", "1a", "a b", "ä"] {
            assert!(matches!(set(key, json!(1)).await, Err(ProfileError::InvalidKey(_))), "{key}");
        }
        let number = set("displayname", json!(1)).await;
        assert!(matches!(number, Err(ProfileError::InvalidValue(_))));
        let half = json!("x".repeat(40_000));
        assert!(set("a", half.clone()).await.unwrap());
        assert!(matches!(set("b", half.clone()).await, Err(ProfileError::TooLarge)));
        assert!(set("a", json!("y".repeat(40_000))).await.unwrap(), "a field is replaced");
    }
}
