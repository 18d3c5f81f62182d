//! Whole lists of devices: reading them, and replacing them by what was fetched.

use futures::FutureExt;
use millrace_store::{
    Error, Node, Read, Scan, Snapshot, Tx,
    rows::inbound::{RemoteDevice, RemoteDevices},
    tables::{MEMBERS, REMOTE_DEVICES, REMOTE_DEVICES_HEAD, STALE_DEVICES},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, events::room::member::MembershipState};

use crate::{Env, accounts::device_list_changed, rooms::servers};

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
pub async fn devices(snapshot: &Snapshot, user: &UserId) -> Result<Option<DeviceList>, Error> {
    let head = snapshot.get(&REMOTE_DEVICES_HEAD, user, ()).await?;
    let Some(head) = head.filter(|head| !head.stale) else { return Ok(None) };
    let Some(stream_id) = head.stream_id else { return Ok(None) };
    let devices = snapshot.scan(&REMOTE_DEVICES, user, Scan::all().limit(DEVICES_MAX)).await?;
    let RemoteDevices { master_key, self_signing_key, .. } = head;
    Ok(Some(DeviceList { stream_id, devices, master_key, self_signing_key }))
}

/// Takes a list that was fetched in place of what is known, and tracks the user from now on.
///
/// # Errors
/// Where the store fails.
pub async fn replace(env: &Env, user: &UserId, list: &DeviceList) -> Result<(), Error> {
    let write = |tx: Tx| {
        async move {
            let old = tx.get(&REMOTE_DEVICES_HEAD, user, ()).await?;
            let known = old.as_ref().and_then(|old| old.stream_id).unwrap_or(0);
            if old.is_some() {
                for (device, _) in tx.scan(&REMOTE_DEVICES, user, Scan::all()).await? {
                    tx.delete(&REMOTE_DEVICES, user, &device);
                }
            }
            for (device, row) in list.devices.iter().take(DEVICES_MAX) {
                tx.put(&REMOTE_DEVICES, user, device, row);
            }
            let head = RemoteDevices {
                stream_id: Some(list.stream_id.max(known)),
                stale: false,
                master_key: list.master_key.clone(),
                self_signing_key: list.self_signing_key.clone(),
            };
            tx.put(&REMOTE_DEVICES_HEAD, user, (), &head);
            tx.delete(&STALE_DEVICES, Node, user);
            if old.is_some() {
                device_list_changed(&tx, user);
            }
            Ok(())
        }
        .boxed()
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
    for room in servers::rooms_shared_with(&snapshot, env, user.server_name()).await? {
        let member = snapshot.get(&MEMBERS, &room, user).await?;
        if member.is_some_and(|member| member.membership == MembershipState::Join) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::{
        remote_devices::{DeviceUpdate, apply},
        testing,
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

    async fn known(env: &Env) -> Option<Vec<String>> {
        let list = devices(&env.store.snapshot(), bob()).await.unwrap()?;
        Some(list.devices.into_iter().map(|(device, _)| device.to_string()).collect())
    }

    #[tokio::test]
    async fn changes_are_applied_until_one_was_missed() {
        let env = testing::env().await;
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
    async fn a_device_that_is_gone_is_forgotten() {
        let env = testing::env().await;
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
