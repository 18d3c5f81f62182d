//! What goes by itself: media that nobody asks for, and media IDs that nobody uploads to.

use std::time::Duration;

use futures::FutureExt;
use millrace_store::{
    Node, Read, Result, Scan, Tx,
    rows::media::{Content, MediumKind},
    tables::{MEDIA_BY_DAY, MEDIA_DUE, URL_PREVIEWS},
};

use crate::{
    Media, due,
    media::RecoverError,
    mxc::Mxc,
    remove::{remove, remove_if},
};

/// Pause between two steps.
const PAUSE: Duration = Duration::from_mins(5);
/// Media of each kind that go in one step.
const STEP_MAX: usize = 1000;

impl Media {
    /// Does a [`Media::step`] every five minutes, for good.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = self.step().await {
                tracing::warn!(%error, "media whose time is over could not be removed");
            }
        }
    }

    /// Writes down what was asked for, and removes what is due.
    ///
    /// # Errors
    /// Where the store or the storage fails; what is left is done another time.
    pub async fn step(&self) -> std::result::Result<(), RecoverError> {
        self.write_accessed().await?;
        self.remove_due().await?;
        for kind in MediumKind::ALL {
            if let Some(days) = self.settings.lifetime_days(kind) {
                self.remove_unasked(kind, days).await?;
            }
        }
        self.sweep().await
    }

    /// Removes media IDs that were not uploaded to in time, and previews that are good no more.
    async fn remove_due(&self) -> Result<()> {
        let now_ms = self.now_ms();
        let scan = Scan::all().before(now_ms.saturating_add(1)).limit(STEP_MAX);
        let rows = self.env.store.snapshot().scan(&MEDIA_DUE, Node, scan).await?;
        for (key, ()) in rows {
            let (at_ms, kind, what) = &key;
            match *kind {
                due::PENDING => self.remove_pending(what).await?,
                due::PREVIEW => self.remove_preview(what, now_ms).await?,
                _ => tracing::warn!(kind, "an unknown kind of row is due"),
            }
            let done = |tx: Tx| {
                async move {
                    tx.delete(&MEDIA_DUE, Node, (*at_ms, *kind, what));
                    Ok::<_, millrace_store::Error>(())
                }
                .boxed()
            };
            self.env.store.transact(done).await?;
        }
        Ok(())
    }

    /// Removes a medium, by its partition, if nothing was uploaded to it.
    async fn remove_pending(&self, partition: &str) -> Result<()> {
        let Some(mxc) = Mxc::of_partition(partition) else { return Ok(()) };
        let pending = |content| matches!(content, Content::Pending { .. });
        remove_if(self, &mxc, |medium| pending(medium.content)).await?;
        Ok(())
    }

    /// Forgets a URL preview, by its hash, that is good no more.
    async fn remove_preview(&self, hash: &str, now_ms: u64) -> Result<()> {
        let Ok(hash) = blake3::Hash::from_hex(hash) else { return Ok(()) };
        let key = hash.as_bytes();
        let forget = |tx: Tx| {
            async move {
                let preview = tx.get(&URL_PREVIEWS, key, ()).await?;
                if preview.is_some_and(|preview| preview.expires_ms <= now_ms) {
                    tx.delete(&URL_PREVIEWS, key, ());
                }
                Ok(())
            }
            .boxed()
        };
        self.env.store.transact(forget).await
    }

    /// Removes media of a kind that nobody has asked for in so many days.
    async fn remove_unasked(&self, kind: MediumKind, days: u32) -> Result<()> {
        let until = self.today().saturating_sub(days);
        let scan = Scan::prefix(kind.id()).before((kind.id(), until)).limit(STEP_MAX);
        let rows = self.env.store.snapshot().scan(&MEDIA_BY_DAY, Node, scan).await?;
        for ((_, _, partition), ()) in rows {
            if let Some(mxc) = Mxc::of_partition(&partition) {
                remove(self, &mxc).await?;
            }
        }
        Ok(())
    }
}
