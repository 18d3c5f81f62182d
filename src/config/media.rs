//! The media repository.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_media::{Settings, preview::PreviewSettings};
use serde::{Deserialize, Serialize};

use super::{Problems, media_bucket::MediaBucket};

/// Where media are kept, how much and how long: the table `media`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// The folder that holds them; none for `media` in the folder of the database.
    pub path: Option<PathBuf>,
    /// The bucket that holds them instead, if there is one.
    pub s3: MediaBucket,
    /// Largest upload, in bytes.
    pub upload_bytes_max: u64,
    /// How many bytes a user may upload; 0 is without end.
    pub user_bytes_max: u64,
    /// How many files a user may upload; 0 is without end.
    pub user_files_max: u64,
    /// Media IDs that a user may have created and not yet uploaded to.
    pub pending_max: usize,
    /// How long a created media ID can be uploaded to, in seconds.
    pub pending_lifetime_s: u64,
    /// Whether what comes in is not served by the deprecated endpoints, which need no account.
    pub freeze_legacy_endpoints: bool,
    /// After how many days in which nobody asks for them uploads are removed; 0 is never.
    pub local_lifetime_days: u32,
    /// The same of copies of what other servers have.
    pub remote_lifetime_days: u32,
    /// Largest medium of another server that is fetched, in bytes.
    pub remote_bytes_max: u64,
    /// Most pixels of an image of which thumbnails are made.
    pub thumbnail_pixels_max: u64,
    /// Thumbnails that are made at once.
    pub thumbnails_at_once: usize,
    /// Whether this server fetches the pages that users ask previews of.
    pub url_previews: bool,
    /// Largest page or image that is fetched for a preview, in bytes.
    pub url_preview_bytes_max: u64,
    /// How long fetching a page may take, in seconds.
    pub url_preview_timeout_s: u64,
    /// Languages in which pages are asked for, as `Accept-Language` has them.
    pub url_preview_languages: String,
}

impl Default for Media {
    fn default() -> Self {
        let Settings {
            upload_bytes_max,
            pending_max,
            pending_lifetime,
            freeze,
            remote_bytes_max,
            thumbnail_pixels_max,
            thumbnails_at_once,
            ..
        } = Settings::default();
        Self {
            path: None,
            s3: MediaBucket::default(),
            upload_bytes_max,
            user_bytes_max: 0,
            user_files_max: 0,
            pending_max,
            pending_lifetime_s: pending_lifetime.as_secs(),
            freeze_legacy_endpoints: freeze,
            local_lifetime_days: 0,
            remote_lifetime_days: 0,
            remote_bytes_max,
            thumbnail_pixels_max,
            thumbnails_at_once,
            url_previews: false,
            url_preview_bytes_max: 10 << 20,
            url_preview_timeout_s: 20,
            url_preview_languages: "en".to_owned(),
        }
    }
}

impl Media {
    /// The folder that holds media, where the database is in `database`.
    #[must_use]
    pub fn folder(&self, database: &Path) -> PathBuf {
        self.path.clone().unwrap_or_else(|| database.join("media"))
    }

    /// The settings as they are used.
    #[must_use]
    pub fn settings(&self, database: &Path) -> Settings {
        let limit = |most: u64| (most > 0).then_some(most);
        let days = |days: u32| (days > 0).then_some(days);
        Settings {
            incoming: self.folder(database).join("incoming"),
            upload_bytes_max: self.upload_bytes_max,
            user_bytes_max: limit(self.user_bytes_max),
            user_files_max: limit(self.user_files_max),
            pending_max: self.pending_max,
            pending_lifetime: Duration::from_secs(self.pending_lifetime_s),
            freeze: self.freeze_legacy_endpoints,
            local_lifetime_days: days(self.local_lifetime_days),
            remote_lifetime_days: days(self.remote_lifetime_days),
            remote_bytes_max: self.remote_bytes_max,
            thumbnail_source_bytes_max: self.upload_bytes_max.max(self.remote_bytes_max),
            thumbnail_pixels_max: self.thumbnail_pixels_max,
            thumbnails_at_once: self.thumbnails_at_once,
            previews: self.url_previews.then(|| PreviewSettings {
                bytes_max: self.url_preview_bytes_max,
                timeout: Duration::from_secs(self.url_preview_timeout_s),
                languages: self.url_preview_languages.clone(),
            }),
        }
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let path = self.path.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        problems.require(path, "media.path", "must name a folder");
        self.s3.validate(problems);
        let some = self.upload_bytes_max > 0;
        problems.require(some, "media.upload_bytes_max", "must be above 0");
        let some = (1..=256).contains(&self.thumbnails_at_once);
        problems.require(some, "media.thumbnails_at_once", "must be 1 to 256");
        let some = self.url_preview_timeout_s > 0;
        problems.require(some, "media.url_preview_timeout_s", "must be above 0");
        let some = self.pending_lifetime_s > 0;
        problems.require(some, "media.pending_lifetime_s", "must be above 0");
    }
}
