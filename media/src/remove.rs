//! Removing media, and the files that nothing consists of any more.

use futures::FutureExt;
use millrace_store::{
    Node, Read, Result, Scan, Tx,
    rows::media::{Content, Medium},
    tables::{
        BLOBS, BLOBS_UNUSED, MEDIA, MEDIA_BY_DAY, MEDIA_DUE, MEDIA_USAGE, THUMBNAILS, USER_MEDIA,
    },
};
use ruma::UserId;

use crate::{Media, blobs::remove_use, due, media::RecoverError, mxc::Mxc, storage::hex};

/// Files that are removed at one go.
const SWEEP_MAX: usize = 500;

/// Whether a medium was there to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was, and is gone.
    Yes,
    /// It was not there.
    No,
}

/// Removes a medium and its thumbnails. Its file goes with the next [`Media::sweep`].
///
/// # Errors
/// Where the store fails.
pub async fn remove(media: &Media, mxc: &Mxc) -> Result<Removed> {
    remove_if(media, mxc, |_| true).await
}

/// As [`remove`], of a medium of which `condition` holds.
pub(crate) async fn remove_if(
    media: &Media,
    mxc: &Mxc,
    condition: impl Fn(&Medium) -> bool + Sync,
) -> Result<Removed> {
    let partition = &mxc.partition();
    let write = |tx: Tx| {
        let condition = &condition;
        async move {
            let medium = tx.get(&MEDIA, partition, ()).await?;
            let Some(medium) = medium.filter(condition) else { return Ok(Removed::No) };
            let kind = medium.kind.id();
            tx.delete(&MEDIA, partition, ());
            tx.delete(&MEDIA_BY_DAY, Node, (kind, medium.accessed_day, partition));
            if let Content::Stored { blob, .. } = &medium.content {
                remove_use(&tx, blob).await?;
            }
            if let Content::Pending { expires_ms } = medium.content {
                tx.delete(&MEDIA_DUE, Node, (expires_ms, due::PENDING, partition));
            }
            for (key, thumbnail) in tx.scan(&THUMBNAILS, partition, Scan::all()).await? {
                tx.delete(&THUMBNAILS, partition, key);
                remove_use(&tx, &thumbnail.blob).await?;
            }
            if let Some(owner) = &medium.owner {
                disown(&tx, owner, mxc.id(), &medium.content).await?;
            }
            Ok(Removed::Yes)
        }
        .boxed()
    };
    media.env.store.transact(write).await
}

/// Takes a medium that is gone from what its owner has.
async fn disown(tx: &Tx, owner: &UserId, id: &str, content: &Content) -> Result<()> {
    tx.delete(&USER_MEDIA, owner, id);
    let mut usage = tx.get(&MEDIA_USAGE, owner, ()).await?.unwrap_or_default();
    match content {
        Content::Stored { bytes, .. } => {
            usage.bytes = usage.bytes.saturating_sub(*bytes);
            usage.files = usage.files.saturating_sub(1);
        }
        Content::Pending { .. } => usage.pending.retain(|pending| pending.id != id),
    }
    tx.put(&MEDIA_USAGE, owner, (), &usage);
    Ok(())
}

impl Media {
    /// Removes files that nothing consists of any more, a bounded number of them.
    ///
    /// # Errors
    /// Where the store or the storage fails; what is left is removed another time.
    pub async fn sweep(&self) -> std::result::Result<(), RecoverError> {
        let scan = Scan::all().limit(SWEEP_MAX);
        let unused = self.env.store.snapshot().scan(&BLOBS_UNUSED, Node, scan).await?;
        for (hash, ()) in unused {
            // Who places the file again holds this until its use is committed.
            let _gate = self.gates.enter(&hex(&hash)).await;
            let blob = self.env.store.snapshot().get(&BLOBS, hash, ()).await?;
            let used = blob.is_some_and(|blob| blob.uses > 0);
            if !used {
                self.storage.remove(&hash).await?;
            }
            let forget = |tx: Tx| {
                async move {
                    tx.delete(&BLOBS_UNUSED, Node, hash);
                    if !used {
                        tx.delete(&BLOBS, hash, ());
                    }
                    Ok::<_, millrace_store::Error>(())
                }
                .boxed()
            };
            self.env.store.transact(forget).await?;
        }
        Ok(())
    }
}
