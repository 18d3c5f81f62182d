//! The media repository as its operations take it.

use std::{ops::Deref, path::PathBuf, sync::Arc, time::Duration};

use millrace_domain::Env;
use millrace_store::{Read, rows::media::MediumKind, tables::BLOBS};
use ruma::OwnedServerName;

use tokio::sync::Semaphore;

use crate::{
    accessed::Accessed,
    gates::Gates,
    mxc::Mxc,
    preview::PreviewSettings,
    sources::Sources,
    spool::Spool,
    storage::{Storage, StorageError},
    thumbnail::WAITING_MAX,
};

/// Media of other servers that are fetched at once.
const FETCHES_MAX: usize = 32;
/// Pages of which previews are made at once.
const PREVIEWS_MAX: usize = 8;
/// Letters of a media ID.
const ID_LETTERS: usize = 24;

/// The media repository. Clones are the same.
#[derive(Clone)]
pub struct Media(Arc<MediaParts>);

/// What operations of this crate take.
pub struct MediaParts {
    /// Store, clock, randomness, identity.
    pub env: Env,
    /// What is configured.
    pub settings: Settings,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) spool: Spool,
    /// One file is placed or removed by one at a time, one medium fetched, one page looked at.
    pub(crate) gates: Gates,
    /// What was asked for since it was last written down.
    pub(crate) accessed: Accessed,
    /// Places for those who wait for a thumbnail.
    pub(crate) waiting: Semaphore,
    /// Permits to decode an image.
    pub(crate) painters: Arc<Semaphore>,
    /// Permits to fetch a medium of another server.
    pub(crate) fetching: Semaphore,
    /// Permits to look at a page.
    pub(crate) previewing: Semaphore,
}

/// What is configured about media.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of what comes in.
    pub incoming: PathBuf,
    /// Largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// How much a user may have, in bytes; none is without end.
    pub user_bytes_max: Option<u64>,
    /// How many media a user may have; none is without end.
    pub user_files_max: Option<u64>,
    /// How many media IDs a user may have created and not yet uploaded to.
    pub pending_max: usize,
    /// How long a media ID that was created can be uploaded to.
    pub pending_lifetime: Duration,
    /// Whether what comes in is served by the authenticated endpoints only.
    pub freeze: bool,
    /// After how many days in which nobody asks for them media of ours go; none is never.
    pub local_lifetime_days: Option<u32>,
    /// The same of copies of what other servers have.
    pub remote_lifetime_days: Option<u32>,
    /// Largest medium of another server that is fetched, in bytes.
    pub remote_bytes_max: u64,
    /// Largest file of which a thumbnail is made, in bytes.
    pub thumbnail_source_bytes_max: u64,
    /// Most pixels of an image of which a thumbnail is made.
    pub thumbnail_pixels_max: u64,
    /// Thumbnails that are made at once; each takes eight bytes of memory for each pixel.
    pub thumbnails_at_once: usize,
    /// How URL previews are made; none where they are not.
    pub previews: Option<PreviewSettings>,
}

/// After how many days in which nobody asks for them images of URL previews go.
const PREVIEW_LIFETIME_DAYS: u32 = 30;

impl Settings {
    pub(crate) fn lifetime_days(&self, kind: MediumKind) -> Option<u32> {
        match kind {
            MediumKind::Local => self.local_lifetime_days,
            MediumKind::Remote => self.remote_lifetime_days,
            MediumKind::Preview => Some(PREVIEW_LIFETIME_DAYS),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            incoming: PathBuf::from("./data/media/incoming"),
            upload_bytes_max: 50 << 20,
            user_bytes_max: None,
            user_files_max: None,
            pending_max: 10,
            pending_lifetime: Duration::from_hours(24),
            freeze: true,
            local_lifetime_days: None,
            remote_lifetime_days: None,
            remote_bytes_max: 50 << 20,
            thumbnail_source_bytes_max: 50 << 20,
            thumbnail_pixels_max: 32_000_000,
            thumbnails_at_once: 2,
            previews: None,
        }
    }
}

impl Media {
    /// The repository on a storage.
    #[must_use]
    pub fn new(
        env: Env,
        settings: Settings,
        storage: Arc<dyn Storage>,
        sources: Arc<dyn Sources>,
    ) -> Self {
        let spool = Spool::new(settings.incoming.clone());
        let painters = Arc::new(Semaphore::new(settings.thumbnails_at_once));
        Self(Arc::new(MediaParts {
            env,
            settings,
            storage,
            sources,
            spool,
            gates: Gates::default(),
            accessed: Accessed::default(),
            waiting: Semaphore::new(WAITING_MAX),
            painters,
            fetching: Semaphore::new(FETCHES_MAX),
            previewing: Semaphore::new(PREVIEWS_MAX),
        }))
    }

    /// Removes what a process that died has left. To be called once, before anything comes in.
    ///
    /// # Errors
    /// Where folder, storage or store fail.
    pub async fn recover(&self) -> Result<(), RecoverError> {
        let spool = self.spool.clone();
        let folder = |source| StorageError::Io { what: "incoming media cannot be listed", source };
        let list = crate::storage::folder::blocking(move || spool.left_over()).await;
        for hash in list.map_err(folder)? {
            let used = self.env.store.snapshot().get(&BLOBS, hash, ()).await?.is_some();
            if !used {
                self.storage.remove(&hash).await?;
            }
        }
        let spool = self.spool.clone();
        crate::storage::folder::blocking(move || spool.clear()).await.map_err(folder)?;
        Ok(())
    }
}

/// Why the repository could not be put in order.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

/// The day since 1970 of a time in milliseconds since then.
pub(crate) fn day_of(ms: u64) -> u32 {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    u32::try_from(ms / DAY_MS).unwrap_or(u32::MAX)
}

impl MediaParts {
    /// Now, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.env.now().0.into()
    }

    /// Today, in days since 1970.
    pub(crate) fn today(&self) -> u32 {
        day_of(self.now_ms())
    }

    /// Whether a medium was uploaded here.
    #[must_use]
    pub fn is_local(&self, mxc: &Mxc) -> bool {
        mxc.server() == self.env.identity.name
    }

    /// A name for a new medium of ours.
    pub(crate) fn new_mxc(&self) -> Mxc {
        let server: OwnedServerName = self.env.identity.name.clone();
        Mxc::new(server, self.env.random_text(ID_LETTERS)).expect("letters and digits")
    }
}

impl Deref for Media {
    type Target = MediaParts;

    fn deref(&self) -> &MediaParts {
        &self.0
    }
}
