//! Whole lists of devices: reading them, and replacing them by what was fetched.

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_store::{
    Error, Node, Read, Scan, Snapshot, Tx,
    rows::inbound::{RemoteDevice, RemoteDevices},
    tables::{REMOTE_DEVICES, REMOTE_DEVICES_HEAD, STALE_DEVICES},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::{shared, update::announce};
use crate::Env;

/// So many devices of one user are kept at most.
const DEVICES_MAX: usize = 1000;

/// A device and its ID.
pub type ListedDevice = (OwnedDeviceId, RemoteDevice);

/// A user's devices, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// The number of the newest change that it has.
    pub stream_id: u64,
    /// The devices.
    pub devices: Vec<ListedDevice>,
    /// The master key, JSON text.
    pub master_key: Option<String>,
    /// The self-signing key, JSON text.
    pub self_signing_key: Option<String>,
}

/// The devices of a user of another server; `None` where they must be fetched first.
///
/// # Errors
/// Where the store cannot be read.
pub async fn devices(
    env: &Env,
    snapshot: &Snapshot,
    user: &UserId,
) -> Result<Option<DeviceList>, Error> {
    let head = snapshot.get(&REMOTE_DEVICES_HEAD, user, ()).await?;
    let Some(head) = head.filter(|head| !head.stale) else { return Ok(None) };
    let (Some(stream_id), Some(anchor)) = (head.stream_id, &head.anchor) else { return Ok(None) };
    if !shared::holds(snapshot, env, user, anchor).await? {
        return Ok(None);
    }
    let devices = snapshot.scan(&REMOTE_DEVICES, user, Scan::all().limit(DEVICES_MAX)).await?;
    let RemoteDevices { master_key, self_signing_key, .. } = head;
    Ok(Some(DeviceList { stream_id, devices, master_key, self_signing_key }))
}

/// Takes a list that was fetched in place of what is known, and tracks the user from now on, as long
/// as they are in a room with us.
///
/// # Errors
/// Where the store fails.
pub async fn replace(env: &Env, user: &UserId, list: &DeviceList) -> Result<(), Error> {
    let write = |tx: Tx| {
        async move {
            let old = tx.get(&REMOTE_DEVICES_HEAD, user, ()).await?.unwrap_or_default();
            let anchor = shared::find_anchor(tx.unprotected(), env, user).await?;
            let known = old.stream_id.filter(|_| !old.stale).unwrap_or(0);
            if list.stream_id < known && old.anchor == anchor {
                // While it was fetched, a change came that it does not have.
                return Ok(());
            }
            let before = tx.scan(&REMOTE_DEVICES, user, Scan::all()).await?;
            for (device, _) in &before {
                tx.delete(&REMOTE_DEVICES, user, device);
            }
            if anchor.is_none() {
                forget(&tx, user).await?;
                return Ok(());
            }
            for (device, row) in list.devices.iter().take(DEVICES_MAX) {
                tx.put(&REMOTE_DEVICES, user, device, row);
            }
            // What was heard of and is not in the list was on its way; once more is enough.
            let stale = list.stream_id < old.heard;
            let head = RemoteDevices {
                stream_id: Some(list.stream_id),
                stale,
                master_key: list.master_key.clone(),
                self_signing_key: list.self_signing_key.clone(),
                heard: if stale { 0 } else { list.stream_id },
                anchor,
            };
            tx.put(&REMOTE_DEVICES_HEAD, user, (), &head);
            match stale {
                true => tx.put(&STALE_DEVICES, Node, user, &()),
                false => tx.delete(&STALE_DEVICES, Node, user),
            }
            if old.stream_id.is_some() && !is_same(&old, &before, list) {
                announce(&tx, env, user).await?;
            }
            Ok(())
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Forgets that a user was tracked, who shares no room with us any more.
async fn forget(tx: &Tx, user: &UserId) -> Result<(), Error> {
    if tx.get(&REMOTE_DEVICES_HEAD, user, ()).await?.is_some() {
        tx.delete(&REMOTE_DEVICES_HEAD, user, ());
    }
    if tx.get(&STALE_DEVICES, Node, user).await?.is_some() {
        tx.delete(&STALE_DEVICES, Node, user);
    }
    Ok(())
}

fn is_same(head: &RemoteDevices, devices: &[ListedDevice], list: &DeviceList) -> bool {
    let sorted = |devices: &[ListedDevice]| devices.iter().cloned().collect::<BTreeMap<_, _>>();
    (&head.master_key, &head.self_signing_key) == (&list.master_key, &list.self_signing_key)
        && sorted(devices) == sorted(&list.devices)
}

/// Lets the lists of users be fetched when there is time for it.
///
/// # Errors
/// Where the store fails.
pub async fn mark_stale(env: &Env, users: &[OwnedUserId]) -> Result<(), Error> {
    let write = |tx: Tx| {
        for user in users {
            tx.put(&STALE_DEVICES, Node, user, &());
        }
        std::future::ready(Ok(())).boxed()
    };
    env.store.transact(write).await
}

/// Users whose lists are to be fetched again, at most `limit`.
///
/// # Errors
/// Where the store cannot be read.
pub async fn stale(snapshot: &Snapshot, limit: usize) -> Result<Vec<OwnedUserId>, Error> {
    let rows = snapshot.scan(&STALE_DEVICES, Node, Scan::all().limit(limit)).await?;
    Ok(rows.into_iter().map(|(user, ())| user).collect())
}

/// Whether a user of another server is in a room with us: what is said of others is not kept.
///
/// # Errors
/// Where the store cannot be read.
pub async fn shares_room(env: &Env, user: &UserId) -> Result<bool, Error> {
    let snapshot = env.store.snapshot();
    let head = snapshot.get(&REMOTE_DEVICES_HEAD, user, ()).await?;
    if let Some(anchor) = head.and_then(|head| head.anchor)
        && shared::holds(&snapshot, env, user, &anchor).await?
    {
        return Ok(true);
    }
    Ok(shared::find_anchor(&snapshot, env, user).await?.is_some())
}

#[cfg(test)]
mod tests {
    use millrace_store::tables::DEVICE_LISTS;
    use ruma::{events::TimelineEventType, user_id};
    use serde_json::json;

    use super::*;
    use crate::{
        remote_devices::{DeviceUpdate, apply},
        rooms::{
            Draft,
            test_room::{TestRoom, object},
        },
    };

    fn bob() -> &'static UserId {
        user_id!("@bob:far.example")
    }

    fn update(stream_id: u64, prev_ids: &[u64], device: &str) -> DeviceUpdate {
        DeviceUpdate {
            user: bob().to_owned(),
            device: device.into(),
            stream_id,
            prev_ids: prev_ids.to_vec(),
            now: Some(RemoteDevice::default()),
        }
    }

    async fn set_membership(room: &TestRoom, membership: &str) {
        let content = object(json!({ "membership": membership }));
        let kind = TimelineEventType::RoomMember;
        room.append(Draft::state(bob(), kind, bob().as_str(), content)).await;
    }

    /// A room of ours that bob is in.
    async fn shared_room() -> TestRoom {
        let room = TestRoom::with_visibility("shared").await;
        set_membership(&room, "join").await;
        room
    }

    async fn known(env: &Env) -> Option<Vec<String>> {
        let list = devices(env, &env.store.snapshot(), bob()).await.unwrap()?;
        Some(list.devices.into_iter().map(|(device, _)| device.to_string()).collect())
    }

    #[tokio::test]
    async fn changes_are_applied_until_one_was_missed() {
        let room = shared_room().await;
        let env = room.rooms.env.clone();
        assert!(!apply(&env, &update(1, &[], "A")).await.unwrap(), "nobody tracks bob");
        assert_eq!(known(&env).await, None);
        let list = DeviceList { stream_id: 3, ..DeviceList::default() };
        replace(&env, bob(), &list).await.unwrap();
        assert!(!apply(&env, &update(4, &[3], "A")).await.unwrap());
        assert!(!apply(&env, &update(4, &[3], "Z")).await.unwrap(), "it is known");
        assert_eq!(known(&env).await, Some(vec!["A".to_owned()]));
        assert!(apply(&env, &update(7, &[6], "B")).await.unwrap());
        assert_eq!(known(&env).await, None, "5 and 6 are missing");
        let stale_users = stale(&env.store.snapshot(), 10).await.unwrap();
        assert_eq!(stale_users, [bob().to_owned()]);
        let list = DeviceList {
            stream_id: 7,
            devices: vec![("B".into(), RemoteDevice::default())],
            ..DeviceList::default()
        };
        replace(&env, bob(), &list).await.unwrap();
        assert_eq!(known(&env).await, Some(vec!["B".to_owned()]));
        assert!(stale(&env.store.snapshot(), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_known_counts_while_a_room_is_shared_without_a_break() {
        let room = shared_room().await;
        let env = room.rooms.env.clone();
        let list = DeviceList { stream_id: 1, ..DeviceList::default() };
        replace(&env, bob(), &list).await.unwrap();
        assert!(known(&env).await.is_some());
        assert!(shares_room(&env, bob()).await.unwrap());
        set_membership(&room, "leave").await;
        assert_eq!(known(&env).await, None);
        assert!(!shares_room(&env, bob()).await.unwrap());
        set_membership(&room, "join").await;
        assert_eq!(known(&env).await, None, "changes may have been missed");
        replace(&env, bob(), &list).await.unwrap();
        assert!(known(&env).await.is_some());
        set_membership(&room, "leave").await;
        replace(&env, bob(), &list).await.unwrap();
        set_membership(&room, "join").await;
        assert_eq!(known(&env).await, None, "of strangers nothing is kept");
    }

    #[tokio::test]
    async fn a_change_that_came_while_the_list_was_fetched_is_not_lost() {
        let room = shared_room().await;
        let env = room.rooms.env.clone();
        apply(&env, &update(5, &[4], "A")).await.unwrap();
        let old = DeviceList { stream_id: 4, ..DeviceList::default() };
        replace(&env, bob(), &old).await.unwrap();
        assert_eq!(known(&env).await, None, "5 is not in it");
        let new = DeviceList {
            stream_id: 5,
            devices: vec![("A".into(), RemoteDevice::default())],
            ..DeviceList::default()
        };
        replace(&env, bob(), &new).await.unwrap();
        apply(&env, &update(6, &[5], "B")).await.unwrap();
        replace(&env, bob(), &new).await.unwrap();
        assert_eq!(known(&env).await, Some(vec!["A".to_owned(), "B".to_owned()]));
    }

    #[tokio::test]
    async fn a_device_that_is_introduced_is_news_only_where_a_change_was_missed() {
        let room = shared_room().await;
        let env = room.rooms.env.clone();
        let since = env.store.snapshot().view().clone();
        let told = async || {
            let changes = env.store.snapshot().changes::<String>(DEVICE_LISTS, &since, 9).await;
            !changes.unwrap().is_empty()
        };
        apply(&env, &update(5, &[5], "A")).await.unwrap();
        assert!(!told().await);
        let list = DeviceList { stream_id: 5, ..DeviceList::default() };
        replace(&env, bob(), &list).await.unwrap();
        apply(&env, &update(5, &[5], "A")).await.unwrap();
        assert!(!told().await);
        assert!(apply(&env, &update(6, &[6], "A")).await.unwrap(), "it is stale");
        assert!(told().await);
    }

    #[tokio::test]
    async fn a_device_that_is_gone_is_forgotten() {
        let room = shared_room().await;
        let env = room.rooms.env.clone();
        let list = DeviceList {
            stream_id: 1,
            devices: vec![("A".into(), RemoteDevice::default())],
            ..DeviceList::default()
        };
        replace(&env, bob(), &list).await.unwrap();
        let gone = DeviceUpdate { now: None, ..update(2, &[1], "A") };
        apply(&env, &gone).await.unwrap();
        assert_eq!(known(&env).await, Some(Vec::new()));
    }
}
