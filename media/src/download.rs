//! Finding a medium and reading it (spec: Client-Server API, Content repository; `GET /download`).

use std::{ops::Range, time::Duration};

use millrace_store::{
    PartitionId, Read,
    rows::media::{BlobHash, Content, Medium},
    tables::MEDIA,
};
use tokio::time::Instant;

use crate::{
    Media, ReceiveError,
    mxc::Mxc,
    remote::{self, RemoteError},
    sources::SourceError,
    storage::{Chunks, StorageError},
};

/// The longest time to wait for an upload.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Who asks for a medium, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// By which endpoints.
    pub door: Door,
    /// Whether media of other servers are fetched.
    pub remote: Remote,
    /// How long to wait for content that is not yet uploaded.
    pub wait: Duration,
}

/// By which endpoints a medium is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Those that want an access token or a signature.
    Authenticated,
    /// The deprecated ones, which are closed to what came during the freeze.
    Legacy,
}

/// Whether media of other servers are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// They are.
    Fetched,
    /// Only what is here is served.
    Refused,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no such medium, or it is not for this door.
    #[error("there is no medium {0}")]
    Unknown(Mxc),
    /// It is here for users only, if it is here at all: who has no account is not told which.
    #[error(
        "{0} is only given to users of this server: ask /_matrix/client/v1/media with an access token"
    )]
    ClosedDoor(Mxc),
    /// Its ID was created, and nothing has been uploaded in the time that the client waits.
    #[error("the medium has not been uploaded yet")]
    NotYetUploaded,
    /// Its server does not give it, or not so that it could be kept.
    #[error("the medium cannot be fetched: {0}")]
    Remote(#[source] RemoteError),
    /// The store failed.
    #[error("could not look for the medium")]
    Store(#[from] millrace_store::Error),
}

impl DownloadError {
    /// Whether it is another server's and too large to be fetched.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Remote(
                RemoteError::Source(SourceError::TooLarge)
                    | RemoteError::Receive(ReceiveError::TooLarge(_))
            )
        )
    }
}

/// A medium that can be read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name.
    pub mxc: Mxc,
    /// What is known of it.
    pub medium: Medium,
    /// The file.
    pub blob: BlobHash,
    /// The size of the file.
    pub bytes: u64,
}

/// Finds a medium, waits for its upload, or fetches it.
///
/// # Errors
/// Where there is none.
pub async fn find(media: &Media, mxc: &Mxc, asking: Asking) -> Result<Found, DownloadError> {
    let partition = mxc.partition();
    let watch = media.env.store.watch(vec![PartitionId::of::<String>(&partition)]);
    let mut look = look(media, mxc).await?;
    if matches!(look, Look::Absent) && is_fetched(media, mxc, asking) {
        remote::fetch(media, mxc, asking.wait.min(WAIT_MAX)).await.map_err(
            |error| match error {
                RemoteError::Source(SourceError::Unknown) => DownloadError::Unknown(mxc.clone()),
                RemoteError::Source(SourceError::NotYetUploaded) => DownloadError::NotYetUploaded,
                other => DownloadError::Remote(other),
            },
        )?;
        look = self::look(media, mxc).await?;
    }
    let deadline = Instant::now() + asking.wait.min(WAIT_MAX);
    while matches!(look, Look::Pending) {
        let news = tokio::time::timeout_at(deadline, watch.changed()).await;
        look = self::look(media, mxc).await?;
        if news.is_err() && matches!(look, Look::Pending) {
            return Err(DownloadError::NotYetUploaded);
        }
    }
    let unknown = || match asking.door {
        Door::Legacy if media.settings.freeze => DownloadError::ClosedDoor(mxc.clone()),
        _ => DownloadError::Unknown(mxc.clone()),
    };
    let Look::Found(found) = look else { return Err(unknown()) };
    if !is_shown(media, &found.medium, asking.door) {
        return Err(unknown());
    }
    let today = media.today();
    if found.medium.accessed_day < today {
        media.accessed.note(&partition, today);
    }
    Ok(*found)
}

/// Whether it makes sense to ask the medium's server: what is fetched during the freeze is not for
/// the deprecated endpoints.
fn is_fetched(media: &Media, mxc: &Mxc, asking: Asking) -> bool {
    let frozen = asking.door == Door::Legacy && media.settings.freeze;
    asking.remote == Remote::Fetched && !media.is_local(mxc) && !frozen
}

enum Look {
    Found(Box<Found>),
    Pending,
    Absent,
}

async fn look(media: &Media, mxc: &Mxc) -> millrace_store::Result<Look> {
    let medium = media.env.store.snapshot().get(&MEDIA, mxc.partition(), ()).await?;
    let Some(medium) = medium else { return Ok(Look::Absent) };
    Ok(match medium.content {
        Content::Stored { blob, bytes } => {
            Look::Found(Box::new(Found { mxc: mxc.clone(), medium, blob, bytes }))
        }
        Content::Pending { expires_ms } if expires_ms <= media.now_ms() => Look::Absent,
        Content::Pending { .. } => Look::Pending,
    })
}

fn is_shown(media: &Media, medium: &Medium, door: Door) -> bool {
    let frozen = door == Door::Legacy && medium.frozen && media.settings.freeze;
    medium.quarantined_by.is_none() && !frozen
}

impl Media {
    /// Reads a part of a file, piece by piece.
    ///
    /// # Errors
    /// Where the file is missing or cannot be read.
    pub async fn read(&self, blob: &BlobHash, range: Range<u64>) -> Result<Chunks, StorageError> {
        self.storage.read(blob, range).await
    }
}
