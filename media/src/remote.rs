//! Media of other servers: fetched when they are asked for first, then kept as a copy.

use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, StreamExt, TryStreamExt};
use millrace_store::{Read, Tx, rows::media::MediumKind, tables::MEDIA};

use crate::{
    Media, ReceiveError,
    mxc::Mxc,
    sources::{SourceError, SourceLimits},
    storage::StorageError,
    thumbnail::{Smaller, Wanted, dimensions},
    upload::{Description, write_medium},
};

/// How long fetching a file may take.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How long fetching a thumbnail may take, and the largest that is taken, in bytes.
const THUMBNAIL_LIMITS: SourceLimits =
    SourceLimits { timeout: Duration::from_secs(30), bytes_max: 2 << 20 };

/// Why a medium of another server cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Its server does not give it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is too large, or broke off.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store failed.
    #[error("could not keep a medium of another server")]
    Store(#[from] millrace_store::Error),
}

/// A thumbnail of a medium that is too large to be fetched itself, as its server makes it. It is not
/// kept.
///
/// # Errors
/// Where its server makes none.
pub async fn thumbnail(media: &Media, mxc: &Mxc, wanted: &Wanted) -> Result<Smaller, RemoteError> {
    let busy = || SourceError::Unreachable("too many media are fetched at once".to_owned());
    let _permit = media.fetching.acquire().await.map_err(|_| busy())?;
    let file = media.sources.thumbnail(mxc, wanted, THUMBNAIL_LIMITS).await?;
    let mut content = file.content;
    let mut image = BytesMut::new();
    while let Some(chunk) = content.try_next().await? {
        image.extend_from_slice(&chunk);
        if image.len() as u64 > THUMBNAIL_LIMITS.bytes_max {
            return Err(SourceError::TooLarge.into());
        }
    }
    let no_picture = || SourceError::Unreachable("its server sent no picture".to_owned());
    let (_, content_type) = dimensions(&image).ok_or_else(no_picture)?;
    Ok(Smaller::Fresh { content: image.freeze(), content_type: content_type.to_owned() })
}

/// Fetches a medium of another server, unless it is here already.
pub(crate) async fn fetch(media: &Media, mxc: &Mxc, wait: Duration) -> Result<(), RemoteError> {
    let partition = &mxc.partition();
    // Whoever asks for the same at the same time waits for the first.
    let _gate = media.gates.enter(partition).await;
    if media.env.store.snapshot().get(&MEDIA, partition, ()).await?.is_some() {
        return Ok(());
    }
    let busy = || SourceError::Unreachable("too many media are fetched at once".to_owned());
    let _permit = media.fetching.acquire().await.map_err(|_| busy())?;
    let bytes_max = media.settings.remote_bytes_max;
    let limits = SourceLimits { timeout: TIMEOUT.saturating_add(wait), bytes_max };
    let file = media.sources.file(mxc, wait, limits).await?;
    // An answer that broke off for its size is too large, not broken.
    let mut too_large = false;
    let content = file.content.inspect(|chunk| {
        too_large |= matches!(chunk, Err(SourceError::TooLarge));
    });
    let received = media.receive(content, bytes_max).await;
    if too_large {
        return Err(SourceError::TooLarge.into());
    }
    let spooled = received?;
    let description =
        Description { content_type: file.content_type, file_name: file.file_name, bytes: None };
    let medium = &media.new_medium(MediumKind::Remote, &spooled, description.bounded());
    let write = |tx: Tx| {
        async move {
            if tx.get(&MEDIA, partition, ()).await?.is_none() {
                write_medium(&tx, partition, medium).await?;
            }
            Ok::<_, RemoteError>(())
        }
        .boxed()
    };
    media.keep(&spooled, write, |error| !matches!(error, RemoteError::Store(_))).await
}
