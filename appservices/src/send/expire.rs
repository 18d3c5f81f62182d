//! Dropping what has waited for a service for too long.
//!
//! The worker does it, between its transactions: so nothing is dropped that is on its way, and a repeated
//! transaction holds what it held. The age of rows is told by the days on which they came.

use std::time::Duration;

use futures::FutureExt;
use millrace_store::{
    Read, Scan, Tx,
    tables::{SERVICE_QUEUE, SERVICE_QUEUE_DAYS, SERVICE_QUEUE_HEAD},
};

use super::worker::Worker;

/// How often it is looked for what is old.
const LOOK_EVERY: Duration = Duration::from_hours(1);
/// So many rows are dropped in one commit.
const DROPPED_AT_ONCE: u64 = 5000;
const DAY: Duration = Duration::from_hours(24);

/// The day of a moment in milliseconds, both since 1970.
pub(crate) fn day_of(ms: u64) -> u32 {
    u32::try_from(u128::from(ms) / DAY.as_millis()).unwrap_or(u32::MAX)
}

impl Worker {
    /// Drops what has waited for too long, and is not on its way.
    pub(super) async fn expire(&mut self) -> millrace_store::Result<()> {
        let Some(lifetime) = self.services.settings.queue_lifetime else { return Ok(()) };
        let now = Duration::from_millis(self.now_ms());
        if now < self.expire_at {
            return Ok(());
        }
        let before = now.saturating_sub(lifetime).as_millis();
        let before = day_of(u64::try_from(before).unwrap_or(u64::MAX));
        let mut dropped = 0;
        while let Some(some) = self.expire_some(before).await? {
            dropped += some;
        }
        if dropped > 0 {
            let id = &self.desk.service.id;
            tracing::warn!(
                id,
                dropped,
                "what waited too long for an application service is dropped"
            );
        }
        self.expire_at = now + LOOK_EVERY;
        Ok(())
    }

    /// Drops some of the rows that came before a day; `None` where there are none.
    async fn expire_some(&self, before: u32) -> millrace_store::Result<Option<u64>> {
        let (id, begun) = (&self.desk.service.id, self.progress.begun());
        let store = &self.services.rooms.env.store;
        let first_day = Scan::all().before(before).limit(1);
        if store.snapshot().scan(&SERVICE_QUEUE_DAYS, id, first_day).await?.is_empty() {
            return Ok(None);
        }
        let body = |tx: Tx| {
            async move {
                let mut head = tx.get(&SERVICE_QUEUE_HEAD, id, ()).await?.unwrap_or_default();
                let days = tx.scan(&SERVICE_QUEUE_DAYS, id, Scan::all()).await?;
                let (old, young) = days.split_at(days.partition_point(|(day, _)| *day < before));
                let end = young.first().map_or(head.last, |(_, first)| first - 1);
                let gone = begun.max(head.first.saturating_sub(1));
                let up_to = end.min(gone.saturating_add(DROPPED_AT_ONCE));
                for n in gone + 1..=up_to {
                    tx.delete(&SERVICE_QUEUE, id, n);
                }
                head.first = head.first.max(up_to + 1);
                if up_to == end {
                    for (day, _) in old {
                        tx.delete(&SERVICE_QUEUE_DAYS, id, *day);
                    }
                }
                tx.put(&SERVICE_QUEUE_HEAD, id, (), &head);
                Ok::<_, millrace_store::Error>(up_to.saturating_sub(gone))
            }
            .boxed()
        };
        store.transact(body).await.map(Some)
    }
}
