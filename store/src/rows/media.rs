//! Rows of media: what is uploaded here, and what is kept of other servers.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::serde_value;

/// The BLAKE3 hash of a file's content, which is its name in the storage.
pub type BlobHash = [u8; 32];

/// One medium: what an `mxc://` URI names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// What it consists of.
    pub content: Content,
    /// Who made it; none of media of other servers, and of images of URL previews.
    #[serde(default)]
    pub owner: Option<OwnedUserId>,
    /// Its `Content-Type` as it was uploaded.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The name that its uploader gave it.
    #[serde(default)]
    pub file_name: Option<String>,
    /// When it was created here, or fetched, in milliseconds since 1970.
    pub created_ms: u64,
    /// The day since 1970 on which it was last asked for, as `MEDIA_BY_DAY` has it.
    pub accessed_day: u32,
    /// Whose it is, and so which lifetime it has.
    pub kind: MediumKind,
    /// Whether only the authenticated endpoints serve it: it came during the freeze.
    #[serde(default)]
    pub frozen: bool,
    /// The administrator who has withdrawn it from everybody.
    #[serde(default)]
    pub quarantined_by: Option<OwnedUserId>,
    /// Whether it stays when all media of its owner are withdrawn.
    #[serde(default)]
    pub protected: bool,
    /// How many thumbnails of it are kept.
    #[serde(default)]
    pub thumbnails: u32,
}

/// Whose a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediumKind {
    /// Uploaded by a user of ours.
    Local,
    /// A copy of what another server has.
    Remote,
    /// The image of a URL preview.
    Preview,
}

impl MediumKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Preview];

    /// Its number in keys. Never changed.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Local => 0,
            Self::Remote => 1,
            Self::Preview => 2,
        }
    }
}

/// What a medium consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing yet: the ID was created, and is to be uploaded to.
    Pending {
        /// From when on it cannot be uploaded to, in milliseconds since 1970.
        expires_ms: u64,
    },
    /// A file in the storage.
    Stored {
        /// Which.
        blob: BlobHash,
        /// Its size.
        bytes: u64,
    },
}

/// A file in the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// How many media and thumbnails consist of it.
    pub uses: u64,
    /// Its size.
    pub bytes: u64,
}

/// A thumbnail that was made of a medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// The image.
    pub blob: BlobHash,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it is.
    pub content_type: String,
}

/// What a user has in the media repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaUsage {
    /// Bytes of all that is uploaded.
    pub bytes: u64,
    /// How many media are uploaded.
    pub files: u64,
    /// Media that were created and not yet uploaded, or expired since.
    #[serde(default)]
    pub pending: Vec<PendingMedium>,
}

/// A medium that is created and not yet uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingMedium {
    /// Its media ID.
    pub id: String,
    /// As [`Content::Pending`].
    pub expires_ms: u64,
}

/// What is remembered of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlPreview {
    /// The answer, the text of a JSON object.
    pub json: String,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_ms: u64,
}

serde_value!(Medium, Blob, Thumbnail, MediaUsage, UrlPreview);
