//! Thumbnails (spec: Client-Server API, Thumbnails): made when they are asked for first, then kept.

mod render;
mod size;

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt, stream};
use millrace_store::{
    Read, Tx,
    rows::media::{BlobHash, Medium, Thumbnail},
    tables::{MEDIA, THUMBNAILS},
};

pub(crate) use self::render::dimensions;
use self::render::{Picture, Rendered};
pub use self::{
    render::RenderError,
    size::{InvalidSize, Method, Motion, Wanted},
};
use crate::{Media, ReceiveError, blobs::add_use, download::Found, storage::StorageError};

/// Thumbnails of a medium that are kept; further ones are made again each time.
const KEPT_MAX: u32 = 24;
/// How many may wait for one to be made.
pub(crate) const WAITING_MAX: usize = 64;

/// What is served in place of a medium.
#[derive(Debug, Clone)]
pub enum Smaller {
    /// The medium itself, which is small enough.
    Original(Found),
    /// A thumbnail that is kept.
    Kept {
        /// Its file.
        blob: BlobHash,
        /// Its size in bytes.
        bytes: u64,
        /// What it is.
        content_type: String,
    },
    /// A thumbnail that is not kept.
    Fresh {
        /// The image.
        content: Bytes,
        /// What it is.
        content_type: String,
    },
}

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// There is none of this medium.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The file is too large to look at.
    #[error("a file of more than {0} bytes is too large for thumbnails")]
    TooLarge(u64),
    /// The medium was removed meanwhile.
    #[error("the medium was removed")]
    Gone,
    /// Too many are being made.
    #[error("too many thumbnails are asked for at once")]
    Busy,
    /// The thumbnail cannot be kept.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store failed.
    #[error("could not look for the thumbnail")]
    Store(#[from] millrace_store::Error),
}

/// The thumbnail of a medium.
///
/// # Errors
/// Where there is none.
pub async fn thumbnail(
    media: &Media,
    found: &Found,
    wanted: &Wanted,
) -> Result<Smaller, ThumbnailError> {
    if let Some(kept) = kept(media, found, wanted).await? {
        return Ok(kept);
    }
    let bytes_max = media.settings.thumbnail_source_bytes_max;
    if found.bytes > bytes_max {
        return Err(ThumbnailError::TooLarge(bytes_max));
    }
    let _place = media.waiting.try_acquire().map_err(|_| ThumbnailError::Busy)?;
    let permit = media.painters.clone().acquire_owned().await.map_err(|_| ThumbnailError::Busy)?;
    // Somebody else may have made it meanwhile.
    if let Some(kept) = kept(media, found, wanted).await? {
        return Ok(kept);
    }
    let (pixels_max, wanted_here) = (media.settings.thumbnail_pixels_max, *wanted);
    let content = whole(media, found).await?;
    let rendering = move || {
        // Held until the work is done, also where nobody waits for it any more.
        let _permit = permit;
        render::render(&content, &wanted_here, pixels_max)
    };
    let rendered = tokio::task::spawn_blocking(rendering).await;
    let rendered =
        rendered.unwrap_or_else(|_| Err(RenderError::Broken("it cannot be decoded".into())));
    match rendered? {
        Rendered::Original => Ok(Smaller::Original(found.clone())),
        Rendered::Smaller(picture) => keep(media, found, wanted, picture).await,
    }
}

async fn kept(
    media: &Media,
    found: &Found,
    wanted: &Wanted,
) -> millrace_store::Result<Option<Smaller>> {
    let partition = &found.mxc.partition();
    let row = media.env.store.snapshot().get(&THUMBNAILS, partition, wanted.key()).await?;
    Ok(row.map(|Thumbnail { blob, bytes, content_type }| Smaller::Kept {
        blob,
        bytes,
        content_type,
    }))
}

async fn whole(media: &Media, found: &Found) -> Result<Vec<u8>, StorageError> {
    let capacity = usize::try_from(found.bytes).unwrap_or_default();
    let chunks = media.read(&found.blob, 0..found.bytes).await?;
    let gather = |mut whole: Vec<u8>, chunk: Bytes| async move {
        whole.extend_from_slice(&chunk);
        Ok(whole)
    };
    chunks.try_fold(Vec::with_capacity(capacity), gather).await
}

async fn keep(
    media: &Media,
    found: &Found,
    wanted: &Wanted,
    picture: Picture,
) -> Result<Smaller, ThumbnailError> {
    let (content, content_type) = (Bytes::from(picture.content), picture.content_type.to_owned());
    if found.medium.thumbnails >= KEPT_MAX {
        return Ok(Smaller::Fresh { content, content_type });
    }
    let one = stream::once(std::future::ready(Ok::<_, std::convert::Infallible>(content.clone())));
    let spooled = media.receive(one, u64::MAX).await?;
    let (blob, bytes, partition) = (spooled.hash, spooled.bytes, &found.mxc.partition());
    let row = &Thumbnail { blob, bytes, content_type: content_type.clone() };
    let write = |tx: Tx| {
        async move {
            let medium = tx.get(&MEDIA, partition, ()).await?.ok_or(ThumbnailError::Gone)?;
            if tx.get(&THUMBNAILS, partition, wanted.key()).await?.is_none() {
                add_use(&tx, &blob, bytes).await?;
                tx.put(&THUMBNAILS, partition, wanted.key(), row);
                let medium = Medium { thumbnails: medium.thumbnails + 1, ..medium };
                tx.put(&MEDIA, partition, (), &medium);
            }
            Ok(())
        }
        .boxed()
    };
    media.keep(&spooled, write, |error| !matches!(error, ThumbnailError::Store(_))).await?;
    Ok(Smaller::Fresh { content, content_type })
}
