//! Setting and deleting account data.

use futures::FutureExt;
use millrace_store::{Tx, tables::ACCOUNT_DATA};
use ruma::{RoomId, UserId};
use serde_json::value::RawValue;

use super::room_key;
use crate::Env;

/// The fully-read marker of a room, which is moved by read markers only.
pub const FULLY_READ: &str = "m.fully_read";
/// The push rules, which are changed by their own API only.
pub const PUSH_RULES: &str = "m.push_rules";

/// The largest content of one type, in bytes.
const CONTENT_BYTES_MAX: usize = 1 << 20;

/// Why account data was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// This type is the server's.
    #[error("{0} cannot be set as account data")]
    ServerManaged(String),
    /// Too much for one type.
    #[error("account data of one type has at most {CONTENT_BYTES_MAX} bytes")]
    TooLarge,
    /// The content is not a JSON object.
    #[error("the content must be a JSON object")]
    NotObject,
    /// The store failed.
    #[error("could not write the account data")]
    Store(#[from] millrace_store::Error),
}

/// Sets the content of one type of account data, of a room or (`None`) of the account. An empty
/// object deletes it (MSC3391); clients are told of it once, in the next sync.
///
/// # Errors
/// As [`SetError`] says.
pub async fn set(
    env: &Env,
    user: &UserId,
    room: Option<&RoomId>,
    kind: &str,
    content: &RawValue,
) -> Result<(), SetError> {
    if matches!(kind, FULLY_READ | PUSH_RULES) {
        return Err(SetError::ServerManaged(kind.to_owned()));
    }
    let content = &content.get().to_owned();
    if !content.starts_with('{') {
        return Err(SetError::NotObject);
    }
    if content.len() > CONTENT_BYTES_MAX {
        return Err(SetError::TooLarge);
    }
    if is_empty(content) {
        return delete(env, user, room, kind).await;
    }
    let write = |tx: Tx| {
        tx.put(&ACCOUNT_DATA, user, (room_key(room), kind), content);
        std::future::ready(Ok::<_, SetError>(())).boxed()
    };
    env.store.transact(write).await
}

/// Deletes account data of one type. Syncs tell an empty content, once.
///
/// # Errors
/// As [`SetError`] says; what is not there is no error.
pub async fn delete(
    env: &Env,
    user: &UserId,
    room: Option<&RoomId>,
    kind: &str,
) -> Result<(), SetError> {
    if matches!(kind, FULLY_READ | PUSH_RULES) {
        return Err(SetError::ServerManaged(kind.to_owned()));
    }
    let write = |tx: Tx| {
        tx.delete(&ACCOUNT_DATA, user, (room_key(room), kind));
        std::future::ready(Ok::<_, SetError>(())).boxed()
    };
    env.store.transact(write).await
}

/// Whether an object has no fields.
fn is_empty(object: &str) -> bool {
    object.bytes().all(|byte| matches!(byte, b'{' | b'}') || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::*;
    use crate::{account_data::get, testing};

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn data_of_a_room_and_of_the_account_are_kept_apart() {
        let env = testing::env().await;
        let (alice, room) = (user_id!("@alice:test.example"), room_id!("!r:test.example"));
        set(&env, alice, None, "k", &raw(r#"{"a":1}"#)).await.unwrap();
        set(&env, alice, Some(room), "k", &raw(r#"{"a":2}"#)).await.unwrap();
        let read = &env.store.snapshot();
        assert_eq!(get(read, alice, None, "k").await.unwrap().unwrap(), r#"{"a":1}"#);
        assert_eq!(get(read, alice, Some(room), "k").await.unwrap().unwrap(), r#"{"a":2}"#);
        assert_eq!(get(read, user_id!("@bob:test.example"), None, "k").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_empty_content_deletes_as_deleting_does() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        for empty in [Some("{ }"), None] {
            set(&env, alice, None, "k", &raw(r#"{"a":{}}"#)).await.unwrap();
            match empty {
                Some(empty) => set(&env, alice, None, "k", &raw(empty)).await.unwrap(),
                None => delete(&env, alice, None, "k").await.unwrap(),
            }
            assert_eq!(get(&env.store.snapshot(), alice, None, "k").await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn what_the_server_manages_cannot_be_set() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        for kind in [FULLY_READ, PUSH_RULES] {
            let refused = set(&env, alice, None, kind, &raw("{}")).await;
            assert!(matches!(refused, Err(SetError::ServerManaged(_))), "{kind}");
            let refused = delete(&env, alice, None, kind).await;
            assert!(matches!(refused, Err(SetError::ServerManaged(_))), "{kind}");
        }
        let refused = set(&env, alice, None, "k", &raw("[]")).await;
        assert!(matches!(refused, Err(SetError::NotObject)));
    }
}
