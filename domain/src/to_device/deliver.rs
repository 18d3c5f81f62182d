//! Showing queues, and deleting what was shown.

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Snapshot, Tx,
    rows::user::{ToDevice, ToDeviceHead},
    tables::{TO_DEVICE, TO_DEVICE_HEAD, TO_DEVICE_SENT},
};
use ruma::{DeviceId, UserId};

use crate::Env;

/// So many messages are deleted in one commit.
const DELETED_AT_ONCE: u64 = 500;
/// So many are deleted with their device. What is beyond is never read, as the head is past it.
const DELETED_WITH_DEVICE: u64 = 10_000;

/// A message that waits for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the queue.
    pub n: u64,
    /// The message.
    pub message: ToDevice,
}

/// The oldest messages that wait for a device after the `after`th, at most `limit`. One read where
/// none wait.
///
/// # Errors
/// Where the store cannot be read.
pub async fn pending(
    snapshot: &Snapshot,
    user: &UserId,
    device: &DeviceId,
    after: u64,
    limit: usize,
) -> millrace_store::Result<Vec<Pending>> {
    let head = snapshot.get(&TO_DEVICE_HEAD, user, device).await?.unwrap_or_default();
    let first = head.first.max(after.saturating_add(1));
    if first > head.last {
        return Ok(Vec::new());
    }
    let scan = Scan::all().from((device, first)).up_to((device, head.last)).limit(limit);
    let rows = snapshot.scan(&TO_DEVICE, user, scan).await?;
    let pending = |((_, n), message)| Pending { n, message };
    Ok(rows.into_iter().map(pending).collect())
}

/// Deletes the messages for a device up to the `up_to`th, in small commits.
///
/// # Errors
/// Where the store fails; what was deleted stays so.
pub async fn acknowledge(
    env: &Env,
    user: &UserId,
    device: &DeviceId,
    up_to: u64,
) -> millrace_store::Result<()> {
    let head = env.store.snapshot().get(&TO_DEVICE_HEAD, user, device).await?;
    if head.is_none_or(|head| head.first > up_to.min(head.last)) {
        return Ok(());
    }
    loop {
        let step = |tx: Tx| {
            async move {
                let head = tx.get(&TO_DEVICE_HEAD, user, device).await?.unwrap_or_default();
                let up_to = up_to.min(head.last);
                let end = up_to.min(head.first.saturating_add(DELETED_AT_ONCE - 1));
                delete(&tx, (user, device), head, end);
                Ok::<_, millrace_store::Error>(end >= up_to)
            }
            .boxed()
        };
        if env.store.transact(step).await? {
            return Ok(());
        }
    }
}

/// Deletes all that waits for a device, as when it is logged out.
///
/// # Errors
/// Where the store fails.
pub async fn forget(tx: &Tx, user: &UserId, device: &DeviceId) -> millrace_store::Result<()> {
    tx.delete(&TO_DEVICE_SENT, user, device);
    if let Some(head) = tx.get(&TO_DEVICE_HEAD, user, device).await? {
        let end = head.last.min(head.first.saturating_add(DELETED_WITH_DEVICE - 1));
        delete(tx, (user, device), head, end);
        if end < head.last {
            let past = ToDeviceHead { first: head.last + 1, ..head };
            tx.put(&TO_DEVICE_HEAD, user, device, &past);
        }
    }
    Ok(())
}

/// The head stays, so that no number is given twice: a token may still name one.
fn delete(tx: &Tx, (user, device): (&UserId, &DeviceId), head: ToDeviceHead, up_to: u64) {
    if up_to < head.first {
        return;
    }
    for n in head.first..=up_to {
        tx.delete(&TO_DEVICE, user, (device, n));
    }
    let head = ToDeviceHead { first: up_to + 1, ..head };
    tx.put(&TO_DEVICE_HEAD, user, device, &head);
}
