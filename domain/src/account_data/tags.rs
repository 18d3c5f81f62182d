//! Tags of rooms (spec: Client-Server API, Room Tagging).

use futures::FutureExt;
use millrace_store::{Read, Tx, tables::ACCOUNT_DATA};
use ruma::{RoomId, UserId};
use serde_json::{Map, Value, json};

use super::SetError;
use crate::Env;

const TAG: &str = "m.tag";
/// Tags that one room can have.
const TAGS_MAX: usize = 1000;

/// The tags of a room, by name.
///
/// # Errors
/// Where the store cannot be read.
pub async fn tags(
    read: &impl Read,
    user: &UserId,
    room: &RoomId,
) -> millrace_store::Result<Map<String, Value>> {
    let content = read.get(&ACCOUNT_DATA, user, (room.as_str(), TAG)).await?;
    let content: Option<Value> = content.and_then(|text| serde_json::from_str(&text).ok());
    match content.map(|mut content| content["tags"].take()) {
        Some(Value::Object(tags)) => Ok(tags),
        _ => Ok(Map::new()),
    }
}

/// Adds a tag to a room, or replaces what it says.
///
/// # Errors
/// Where the room has too many tags, or the store fails.
pub async fn set_tag(
    env: &Env,
    user: &UserId,
    room: &RoomId,
    tag: &str,
    info: &Value,
) -> Result<(), SetError> {
    change(env, user, room, |tags| {
        tags.insert(tag.to_owned(), info.clone());
    })
    .await
}

/// Removes a tag from a room, if it has it.
///
/// # Errors
/// Where the store fails.
pub async fn delete_tag(
    env: &Env,
    user: &UserId,
    room: &RoomId,
    tag: &str,
) -> Result<(), SetError> {
    change(env, user, room, |tags| {
        tags.remove(tag);
    })
    .await
}

async fn change(
    env: &Env,
    user: &UserId,
    room: &RoomId,
    change: impl Fn(&mut Map<String, Value>) + Sync,
) -> Result<(), SetError> {
    let change = &change;
    let write = |tx: Tx| {
        async move {
            let old = tags(&tx, user, room).await?;
            let mut new = old.clone();
            change(&mut new);
            if new.len() > TAGS_MAX {
                return Err(SetError::TooLarge);
            }
            if new != old {
                let content = json!({ "tags": new }).to_string();
                tx.put(&ACCOUNT_DATA, user, (room.as_str(), TAG), &content);
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn tags_are_added_replaced_and_removed_one_by_one() {
        let env = testing::env().await;
        let (alice, room) = (user_id!("@alice:test.example"), room_id!("!r:test.example"));
        set_tag(&env, alice, room, "a", &json!({"order": 0.1})).await.unwrap();
        set_tag(&env, alice, room, "b", &json!({})).await.unwrap();
        set_tag(&env, alice, room, "a", &json!({"order": 0.2})).await.unwrap();
        let read = || async { tags(&env.store.snapshot(), alice, room).await.unwrap() };
        assert_eq!(Value::Object(read().await), json!({"a": {"order": 0.2}, "b": {}}));
        delete_tag(&env, alice, room, "a").await.unwrap();
        let view = env.store.snapshot().view().clone();
        delete_tag(&env, alice, room, "a").await.unwrap();
        assert_eq!(Value::Object(read().await), json!({"b": {}}));
        assert_eq!(*env.store.snapshot().view(), view, "nothing changed, so nobody is woken");
    }
}
