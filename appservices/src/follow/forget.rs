//! Forgetting what waits for services that are no longer registered.

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    tables::{SERVICE_PROGRESS, SERVICE_QUEUE, SERVICE_QUEUE_DAYS, SERVICE_QUEUE_HEAD},
};

use super::{FollowError, Follower};
use crate::{Registry, send::ROWS_MAX};

/// Queues are listed so many at a time.
const LISTED_AT_ONCE: usize = 100;
/// So many rows are deleted in one commit.
const DELETED_AT_ONCE: u64 = 5000;

impl Follower<'_> {
    /// Deletes the queues of services that `registry` does not have.
    pub(super) async fn forget_absent(&self, registry: &Registry) -> Result<(), FollowError> {
        let snapshot = self.services.rooms.env.store.snapshot();
        let mut last: Option<String> = None;
        loop {
            let ids =
                snapshot.partitions(&SERVICE_QUEUE_HEAD, last.as_ref(), LISTED_AT_ONCE).await?;
            let Some(end) = ids.last().cloned() else { return Ok(()) };
            for id in ids.iter().filter(|id| registry.by_id(id).is_none()) {
                tracing::info!(id, "an application service is gone: what waits for it is deleted");
                while !self.forget_some(id).await? {}
            }
            last = Some(end);
        }
    }

    /// Deletes some of a queue; returns whether nothing is left.
    async fn forget_some(&self, id: &str) -> millrace_store::Result<bool> {
        let body = |tx: Tx| {
            async move {
                let mut head = tx.get(&SERVICE_QUEUE_HEAD, id, ()).await?.unwrap_or_default();
                let progress = tx.get(&SERVICE_PROGRESS, id, ()).await?.unwrap_or_default();
                let first = head.first.max(progress.sent + 1);
                let end = head.last.min(first.saturating_add(DELETED_AT_ONCE - 1));
                for n in first..=end {
                    tx.delete(&SERVICE_QUEUE, id, n);
                }
                let done = end >= head.last;
                if done {
                    // Those of a transaction that was under way stayed when what follows was dropped.
                    let begun = progress.begun();
                    for n in (begun + 1).saturating_sub(ROWS_MAX as u64)..=begun {
                        tx.delete(&SERVICE_QUEUE, id, n);
                    }
                    for (day, _) in tx.scan(&SERVICE_QUEUE_DAYS, id, Scan::all()).await? {
                        tx.delete(&SERVICE_QUEUE_DAYS, id, day);
                    }
                    tx.delete(&SERVICE_QUEUE_HEAD, id, ());
                    tx.delete(&SERVICE_PROGRESS, id, ());
                } else {
                    head.first = end + 1;
                    tx.put(&SERVICE_QUEUE_HEAD, id, (), &head);
                }
                Ok::<_, millrace_store::Error>(done)
            }
            .boxed()
        };
        self.services.rooms.env.store.transact(body).await
    }
}
