//! Putting messages into the queues of devices.

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    rows::user::ToDevice,
    tables::{DEVICES, DEVICES_HEAD, TO_DEVICE, TO_DEVICE_HEAD, TO_DEVICE_SENT},
};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use sha2::{Digest, Sha256};

use super::remote::{self, Sent};
use crate::Env;

/// Bytes of a transaction's digest.
pub(super) const DIGEST_LEN: usize = 16;
/// So many of a device's transactions are remembered.
const DIGESTS_MAX: usize = 64;
/// The most that one request may put into queues, in bytes, counted for each receiving device.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// Which devices of a user are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// All that the user has.
    All,
    /// One.
    Device(OwnedDeviceId),
}

/// Contents (texts of JSON objects), by receiving user and device.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<Target, String>>;

/// Why messages were not sent.
#[derive(Debug, thiserror::Error)]
pub enum ToDeviceError {
    /// Too much for one request.
    #[error("one request sends at most {BYTES_MAX} bytes to devices")]
    TooLarge,
    /// What is to be sent is not JSON.
    #[error("a message is not JSON: {0}")]
    Content(serde_json::Error),
    /// The store failed.
    #[error("could not send to the devices")]
    Store(#[from] millrace_store::Error),
}

/// Sends messages of one type, all or none. A repeated transaction of the sending device does
/// nothing; devices that do not exist get nothing. Those for users of other servers are queued for
/// these.
///
/// # Errors
/// As [`ToDeviceError`] says.
pub async fn send(
    env: &Env,
    (sender, device): (&UserId, &DeviceId),
    kind: &str,
    transaction: &str,
    messages: &Messages,
) -> Result<(), ToDeviceError> {
    let digest = &digest(kind, transaction);
    let write = |tx: Tx| {
        async move {
            if !remember(&tx, sender, device, digest).await? {
                return Ok(());
            }
            let room = deliver(&tx, env, (sender, kind), messages).await?;
            remote::queue(&tx, env, Sent { sender, kind }, (messages, room)).await
        }
        .boxed()
    };
    env.store.transact(write).await
}

/// Puts messages of one type into the queues of our users' devices. Returns how many bytes one
/// request may still send.
pub(super) async fn deliver(
    tx: &Tx,
    env: &Env,
    (sender, kind): (&UserId, &str),
    messages: &Messages,
) -> Result<usize, ToDeviceError> {
    let (mut room, sent_ms) = (BYTES_MAX, env.now().get().into());
    for (user, targets) in messages.iter().filter(|(user, _)| env.is_local(user)) {
        for (device, content) in receivers(tx, user, targets).await? {
            let size = content.len() + kind.len();
            room = room.checked_sub(size).ok_or(ToDeviceError::TooLarge)?;
            let (sender, kind) = (sender.to_owned(), kind.to_owned());
            let message = ToDevice { sender, kind, content: content.to_owned(), sent_ms };
            push(tx, user, &device, &message).await?;
        }
    }
    Ok(room)
}

pub(super) fn digest(kind: &str, transaction: &str) -> Vec<u8> {
    let hash = Sha256::new().chain_update(kind).chain_update([0]).chain_update(transaction);
    hash.finalize()[..DIGEST_LEN].to_vec()
}

/// Notes a transaction; `false` where it was noted before.
async fn remember(
    tx: &Tx,
    sender: &UserId,
    device: &DeviceId,
    digest: &[u8],
) -> millrace_store::Result<bool> {
    let mut sent = tx.get(&TO_DEVICE_SENT, sender, device).await?.unwrap_or_default();
    if sent.chunks(DIGEST_LEN).any(|known| known == digest) {
        return Ok(false);
    }
    sent.extend_from_slice(digest);
    let excess = sent.len().saturating_sub(DIGESTS_MAX * DIGEST_LEN);
    sent.drain(..excess);
    tx.put(&TO_DEVICE_SENT, sender, device, &sent);
    Ok(true)
}

/// The devices that exist, with what is for each; a device's own message goes before that for all.
async fn receivers<'a>(
    tx: &Tx,
    user: &UserId,
    targets: &'a BTreeMap<Target, String>,
) -> millrace_store::Result<Vec<(OwnedDeviceId, &'a str)>> {
    let all = targets.get(&Target::All);
    let devices: Vec<OwnedDeviceId> = if all.is_some() {
        // Scans are guarded by the head.
        tx.get(&DEVICES_HEAD, user, ()).await?;
        let rows = tx.scan(&DEVICES, user, Scan::all()).await?;
        rows.into_iter().map(|(device, _)| device).collect()
    } else {
        let named: Vec<_> = targets.keys().filter_map(Target::device).collect();
        let found = tx.get_many(&DEVICES, user, named.iter().copied()).await?;
        let named = named.into_iter().zip(found);
        named.filter(|(_, row)| row.is_some()).map(|(device, _)| device.clone()).collect()
    };
    let content = |device: &OwnedDeviceId| targets.get(&Target::Device(device.clone())).or(all);
    let devices = devices.into_iter();
    Ok(devices.filter_map(|device| Some((content(&device)?.as_str(), device))).map(swap).collect())
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

impl Target {
    pub(super) const fn device(&self) -> Option<&OwnedDeviceId> {
        match self {
            Self::All => None,
            Self::Device(device) => Some(device),
        }
    }
}

async fn push(
    tx: &Tx,
    user: &UserId,
    device: &DeviceId,
    message: &ToDevice,
) -> millrace_store::Result<()> {
    let mut head = tx.get(&TO_DEVICE_HEAD, user, device).await?.unwrap_or_default();
    head.last += 1;
    tx.put(&TO_DEVICE_HEAD, user, device, &head);
    tx.put(&TO_DEVICE, user, (device, head.last), message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_store::rows::account::Device;
    use ruma::{device_id, user_id};

    use super::*;
    use crate::{
        testing,
        to_device::{acknowledge, pending},
    };

    async fn world() -> Env {
        let env = testing::env().await;
        let added = env.store.transact(|tx| {
            for device in [device_id!("A"), device_id!("B")] {
                tx.put(&DEVICES, bob(), device, &Device::default());
            }
            tx.put(&DEVICES_HEAD, bob(), (), &1);
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        });
        added.await.unwrap();
        env
    }

    fn alice() -> (&'static UserId, &'static DeviceId) {
        (user_id!("@alice:test.example"), device_id!("X"))
    }

    fn bob() -> &'static UserId {
        user_id!("@bob:test.example")
    }

    fn to(targets: &[(Target, &str)]) -> Messages {
        let targets = targets.iter().map(|(to, text)| (to.clone(), (*text).to_owned()));
        BTreeMap::from([(bob().to_owned(), targets.collect())])
    }

    fn device(id: &str) -> Target {
        Target::Device(id.into())
    }

    async fn waiting(env: &Env, device: &str) -> Vec<String> {
        let snapshot = env.store.snapshot();
        let pending = pending(&snapshot, bob(), device.into(), 0, 100).await.unwrap();
        pending.into_iter().map(|pending| pending.message.content).collect()
    }

    #[tokio::test]
    async fn messages_wait_in_order_and_a_repeated_transaction_adds_none() {
        let env = world().await;
        for (transaction, text) in [("1", "a"), ("2", "b"), ("1", "a")] {
            let messages = to(&[(device("A"), text)]);
            send(&env, alice(), "t", transaction, &messages).await.unwrap();
        }
        assert_eq!(waiting(&env, "A").await, ["a", "b"]);
        assert!(waiting(&env, "B").await.is_empty());
    }

    #[tokio::test]
    async fn a_star_means_all_devices_and_unknown_devices_get_nothing() {
        let env = world().await;
        let messages = to(&[(Target::All, "all"), (device("B"), "b"), (device("C"), "c")]);
        send(&env, alice(), "t", "1", &messages).await.unwrap();
        send(&env, alice(), "t", "2", &to(&[(device("C"), "c")])).await.unwrap();
        assert_eq!(waiting(&env, "A").await, ["all"]);
        assert_eq!(waiting(&env, "B").await, ["b"]);
        assert!(waiting(&env, "C").await.is_empty());
    }

    #[tokio::test]
    async fn what_is_acknowledged_does_not_come_again() {
        let env = world().await;
        for text in ["1", "2", "3"] {
            send(&env, alice(), "t", text, &to(&[(device("A"), text)])).await.unwrap();
        }
        let snapshot = env.store.snapshot();
        let shown = pending(&snapshot, bob(), "A".into(), 0, 2).await.unwrap();
        assert_eq!(shown.iter().map(|pending| pending.n).collect::<Vec<_>>(), [1, 2]);
        acknowledge(&env, bob(), "A".into(), 2).await.unwrap();
        assert_eq!(waiting(&env, "A").await, ["3"]);
        acknowledge(&env, bob(), "A".into(), 99).await.unwrap();
        assert!(waiting(&env, "A").await.is_empty());
        send(&env, alice(), "t", "4", &to(&[(device("A"), "4")])).await.unwrap();
        assert_eq!(waiting(&env, "A").await, ["4"]);
    }
}
