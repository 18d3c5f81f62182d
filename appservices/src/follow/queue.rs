//! Writing what was found into the queues of services.

use std::collections::BTreeMap;

use futures::FutureExt;
use millrace_store::{
    Node, Read, Tx,
    tables::{
        SERVICE_PROGRESS, SERVICE_QUEUE, SERVICE_QUEUE_DAYS, SERVICE_QUEUE_HEAD, SERVICES_FOLLOWED,
    },
};

use super::{FollowError, Follower, NOTE_EVERY, News};
use crate::{AppServices, send::day_of};

/// So many rows are written in one commit, but for those of one commit, which stay together.
const ROWS_AT_ONCE: usize = 1000;
/// So many rows that are too many are dropped in one commit.
const DROPPED_AT_ONCE: u64 = 5000;

impl Follower<'_> {
    /// Queues what was found up to the commit `until`, in the order of commits.
    pub(super) async fn put(&mut self, mut news: Vec<News>, until: u64) -> Result<(), FollowError> {
        // What one commit brought stays in the order in which it was found.
        news.sort_by_key(|news| news.seq);
        let mut rest = &news[..];
        while rest.len() > ROWS_AT_ONCE {
            let end = rest[ROWS_AT_ONCE].seq;
            let now = rest.partition_point(|news| news.seq <= end);
            let (now, later) = rest.split_at(now);
            // All of these commits, and none of the next.
            self.write(now, end.min(until)).await?;
            rest = later;
        }
        let unnoted = until.saturating_sub(self.noted) >= NOTE_EVERY;
        if !rest.is_empty() || unnoted {
            self.write(rest, until).await?;
        }
        Ok(())
    }

    async fn write(&mut self, news: &[News], followed: u64) -> Result<(), FollowError> {
        let mut of: BTreeMap<&str, Vec<&News>> = BTreeMap::new();
        for news in news {
            let id = &self.registry.all()[news.service].id;
            of.entry(id.as_str()).or_default().push(news);
        }
        let env = &self.services.rooms.env;
        let (of, most) = (&of, self.services.settings.queue_max);
        let today = day_of(env.now().get().into());
        let body = |tx: Tx| {
            async move {
                for (id, news) in of {
                    append(&tx, id, news, (most, today)).await?;
                }
                tx.put(&SERVICES_FOLLOWED, Node, (), &followed);
                Ok::<_, millrace_store::Error>(())
            }
            .boxed()
        };
        env.store.transact(body).await?;
        (self.noted, self.followed) = (followed, Some(followed));
        let desks = self.services.desks.lock();
        for desk in of.keys().filter_map(|id| desks.get(*id)) {
            desk.has_news();
        }
        Ok(())
    }
}

async fn append(
    tx: &Tx,
    id: &str,
    news: &[&News],
    (most, today): (u64, u32),
) -> millrace_store::Result<()> {
    let mut head = tx.get(&SERVICE_QUEUE_HEAD, id, ()).await?.unwrap_or_default();
    if today > head.day {
        head.day = today;
        tx.put(&SERVICE_QUEUE_DAYS, id, today, &(head.last + 1));
    }
    for news in news {
        head.last += 1;
        tx.put(&SERVICE_QUEUE, id, head.last, &news.what);
    }
    // What it has acknowledged since only makes the queue shorter.
    let progress = tx.unprotected().get(&SERVICE_PROGRESS, id, ()).await?.unwrap_or_default();
    let gone = progress.begun().max(head.first.saturating_sub(1));
    let excess = (head.last - gone).saturating_sub(most).min(DROPPED_AT_ONCE);
    if excess > 0 {
        tracing::warn!(id, "too much waits for an application service: the oldest is dropped");
        for n in gone + 1..=gone + excess {
            tx.delete(&SERVICE_QUEUE, id, n);
        }
        head.first = gone + excess + 1;
    }
    tx.put(&SERVICE_QUEUE_HEAD, id, (), &head);
    Ok(())
}

impl AppServices {
    /// Forgets how far was followed: there is nobody to follow for.
    pub(super) async fn forget_followed(&self) -> millrace_store::Result<()> {
        let store = &self.rooms.env.store;
        if store.snapshot().get(&SERVICES_FOLLOWED, Node, ()).await?.is_none() {
            return Ok(());
        }
        let body = |tx: Tx| {
            tx.delete(&SERVICES_FOLLOWED, Node, ());
            std::future::ready(Ok::<_, millrace_store::Error>(())).boxed()
        };
        store.transact(body).await
    }
}
