//! Where notifications are sent (spec: Client-Server API, Push Notifications, Setting pushers).

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    rows::user::{Pusher, PushkeyUsers},
    tables::{PUSHERS, PUSHERS_BEHIND, PUSHERS_HEAD, PUSHKEY_USERS},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::Env;

/// The longest pushkey, in bytes (spec: `PusherIds`).
pub const PUSHKEY_BYTES_MAX: usize = 512;
/// The longest app ID, in characters (spec: `PusherIds`).
pub const APP_ID_CHARS_MAX: usize = 64;
/// The largest pusher, in bytes of JSON.
const PUSHER_BYTES_MAX: usize = 64 << 10;
/// The most pushers of one user.
const PUSHERS_MAX: usize = 200;

/// What names a pusher of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PusherId {
    /// The app.
    pub app_id: String,
    /// Where within the app's push service.
    pub pushkey: String,
}

/// A pusher to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPusher {
    /// Its name.
    pub id: PusherId,
    /// The whole of it, the text of a JSON object (spec: `Pusher`).
    pub json: String,
    /// The device that sets it, with whose session it ends.
    pub device: OwnedDeviceId,
    /// Whether other users may have their notifications sent to the same place.
    pub others: Others,
}

/// What happens to pushers of other users with the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They stay (`append`).
    Keep,
    /// They are removed: another user has logged in on the same device.
    Remove,
}

/// Why a pusher was not set.
#[derive(Debug, thiserror::Error)]
pub enum PusherError {
    /// The app ID is too long or empty.
    #[error("an app_id has 1 to {APP_ID_CHARS_MAX} characters")]
    AppId,
    /// The pushkey is too long or empty.
    #[error("a pushkey has 1 to {PUSHKEY_BYTES_MAX} bytes")]
    Pushkey,
    /// Too large.
    #[error("a pusher has at most {PUSHER_BYTES_MAX} bytes")]
    TooLarge,
    /// The user has as many as there can be.
    #[error("there are {PUSHERS_MAX} pushers already")]
    TooMany,
    /// The store failed.
    #[error("could not read or write the pushers")]
    Store(#[from] millrace_store::Error),
}

/// The pushers of a user.
///
/// # Errors
/// Where the store cannot be read.
pub async fn list(env: &Env, user: &UserId) -> millrace_store::Result<Vec<Pusher>> {
    let rows = env.store.snapshot().scan(&PUSHERS, user, Scan::all()).await?;
    Ok(rows.into_iter().map(|(_, pusher)| pusher).collect())
}

/// Sets a pusher, or replaces the user's one of its name.
///
/// # Errors
/// As [`PusherError`] says.
pub async fn set(env: &Env, user: &UserId, new: &NewPusher) -> Result<(), PusherError> {
    let PusherId { app_id, pushkey } = &new.id;
    if app_id.is_empty() || app_id.chars().count() > APP_ID_CHARS_MAX {
        return Err(PusherError::AppId);
    }
    if pushkey.is_empty() || pushkey.len() > PUSHKEY_BYTES_MAX {
        return Err(PusherError::Pushkey);
    }
    if new.json.len() > PUSHER_BYTES_MAX {
        return Err(PusherError::TooLarge);
    }
    let (json, device) = (new.json.clone(), new.device.clone());
    let pusher = &Pusher { json, device, set_ms: env.now().get().into() };
    let write = |tx: Tx| {
        async move {
            let old = all(&tx, user).await?;
            let key = (app_id.clone(), pushkey.clone());
            if old.len() >= PUSHERS_MAX && !old.iter().any(|(known, _)| *known == key) {
                return Err(PusherError::TooMany);
            }
            let mut users =
                tx.get(&PUSHKEY_USERS, pushkey, app_id).await?.unwrap_or_default().users;
            if new.others == Others::Remove {
                for other in users.iter().filter(|other| *other != user) {
                    touch(&tx, other).await?;
                    tx.delete(&PUSHERS, other, (app_id, pushkey));
                    tx.delete(&PUSHERS_BEHIND, other, (app_id, pushkey));
                }
                users.clear();
            }
            if let Err(at) = users.binary_search_by(|known| (**known).cmp(user)) {
                users.insert(at, user.to_owned());
            }
            tx.put(&PUSHKEY_USERS, pushkey, app_id, &PushkeyUsers { users });
            touch(&tx, user).await?;
            tx.put(&PUSHERS, user, (app_id, pushkey), pusher);
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Removes a pusher; one that is not there is no error.
///
/// # Errors
/// Where the store fails.
pub async fn remove(env: &Env, user: &UserId, id: &PusherId) -> Result<(), PusherError> {
    let write = |tx: Tx| {
        async move {
            let key = (&id.app_id, &id.pushkey);
            if tx.get(&PUSHERS, user, key).await?.is_some() {
                remove_one(&tx, user, id).await?;
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Removes the pushers that were set by a device, when its session ends.
///
/// # Errors
/// Where the store fails.
pub async fn remove_of_device(
    tx: &Tx,
    user: &UserId,
    device: &DeviceId,
) -> millrace_store::Result<()> {
    for ((app_id, pushkey), pusher) in all(tx, user).await? {
        if pusher.device == device {
            remove_one(tx, user, &PusherId { app_id, pushkey }).await?;
        }
    }
    Ok(())
}

async fn all(tx: &Tx, user: &UserId) -> millrace_store::Result<Vec<((String, String), Pusher)>> {
    tx.get(&PUSHERS_HEAD, user, ()).await?;
    tx.scan(&PUSHERS, user, Scan::all()).await
}

async fn touch(tx: &Tx, user: &UserId) -> millrace_store::Result<()> {
    let changes = tx.get(&PUSHERS_HEAD, user, ()).await?.unwrap_or(0);
    tx.put(&PUSHERS_HEAD, user, (), &(changes + 1));
    // Whoever sends to pushers follows what is announced.
    tx.touch::<OwnedUserId>(user);
    Ok(())
}

async fn remove_one(tx: &Tx, user: &UserId, id: &PusherId) -> millrace_store::Result<()> {
    let PusherId { app_id, pushkey } = id;
    touch(tx, user).await?;
    tx.delete(&PUSHERS, user, (app_id, pushkey));
    tx.delete(&PUSHERS_BEHIND, user, (app_id, pushkey));
    let mut row = tx.get(&PUSHKEY_USERS, pushkey, app_id).await?.unwrap_or_default();
    row.users.retain(|known| known != user);
    if row.users.is_empty() {
        tx.delete(&PUSHKEY_USERS, pushkey, app_id);
    } else {
        tx.put(&PUSHKEY_USERS, pushkey, app_id, &row);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::testing;

    fn pusher(pushkey: &str, device: &str, others: Others) -> NewPusher {
        let id = PusherId { app_id: "app".to_owned(), pushkey: pushkey.to_owned() };
        NewPusher { id, json: format!("\"{pushkey}\""), device: device.into(), others }
    }

    async fn keys(env: &Env, user: &UserId) -> Vec<String> {
        let pushers = list(env, user).await.unwrap();
        pushers.into_iter().map(|pusher| pusher.json.trim_matches('"').to_owned()).collect()
    }

    #[tokio::test]
    async fn a_pushkey_moves_to_the_user_who_set_it_last_unless_it_is_shared() {
        let env = testing::env().await;
        let (alice, bob) = (user_id!("@alice:test.example"), user_id!("@bob:test.example"));
        set(&env, alice, &pusher("k", "A", Others::Remove)).await.unwrap();
        set(&env, bob, &pusher("k", "B", Others::Keep)).await.unwrap();
        assert_eq!(
            (keys(&env, alice).await, keys(&env, bob).await),
            (vec!["k".to_owned()], vec!["k".to_owned()])
        );
        set(&env, bob, &pusher("k", "B", Others::Remove)).await.unwrap();
        assert!(keys(&env, alice).await.is_empty());
        assert_eq!(keys(&env, bob).await, ["k"]);
    }

    #[tokio::test]
    async fn pushers_end_with_the_device_that_set_them() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        for (key, device) in [("1", "A"), ("2", "B"), ("3", "A"), ("2", "B")] {
            set(&env, alice, &pusher(key, device, Others::Remove)).await.unwrap();
        }
        assert_eq!(keys(&env, alice).await, ["1", "2", "3"]);
        let ended = env
            .store
            .transact(|tx| async move { remove_of_device(&tx, alice, "A".into()).await }.boxed());
        ended.await.unwrap();
        assert_eq!(keys(&env, alice).await, ["2"]);
        remove(&env, alice, &pusher("2", "B", Others::Keep).id).await.unwrap();
        remove(&env, alice, &pusher("2", "B", Others::Keep).id).await.unwrap();
        assert!(keys(&env, alice).await.is_empty());
        let users = env.store.snapshot().get(&PUSHKEY_USERS, "2", "app").await.unwrap();
        assert_eq!(users, None);
    }

    #[tokio::test]
    async fn names_have_limits() {
        let env = testing::env().await;
        let alice = user_id!("@alice:test.example");
        let long = pusher(&"k".repeat(513), "A", Others::Keep);
        assert!(matches!(set(&env, alice, &long).await, Err(PusherError::Pushkey)));
    }
}
