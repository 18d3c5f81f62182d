//! Where files are: one interface, behind which is a folder of this machine, or a bucket of a service.
//!
//! A file is named by the hash of its content, so it never changes, and equal files are one.

mod bucket;
pub(crate) mod folder;

use std::{io, ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
pub use millrace_store::rows::media::BlobHash;

pub use self::{
    bucket::{Bucket, BucketSettings},
    folder::Folder,
};

/// Part of a file, piece by piece.
pub type Chunks = BoxStream<'static, Result<Bytes, StorageError>>;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file is not there.
    #[error("the file {0} is missing in the media storage")]
    Missing(String),
    /// The disk does not do it.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The service does not do it.
    #[error("the media storage cannot be used: {0}")]
    Service(String),
}

/// Keeps files by the hash of their content.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Keeps a copy of `file`, whose content has this hash. It is durable when this returns. A file
    /// that is there already is as good.
    async fn put(&self, hash: &BlobHash, file: &Path) -> Result<(), StorageError>;

    /// The bytes of a file in `range`, which lies within it.
    async fn read(&self, hash: &BlobHash, range: Range<u64>) -> Result<Chunks, StorageError>;

    /// Removes a file; one that is not there is no error.
    async fn remove(&self, hash: &BlobHash) -> Result<(), StorageError>;
}

/// A hash as text.
pub(crate) fn hex(hash: &BlobHash) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
