//! Where content comes from that is not uploaded here: other servers, and pages. Reached by the
//! program that this crate is part of.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use url::Url;

use crate::{mxc::Mxc, thumbnail::Wanted};

/// Content piece by piece; an error ends it.
pub type Content = BoxStream<'static, Result<Bytes, SourceError>>;

/// A file of another server.
pub struct RemoteFile {
    /// What it is, as its server says.
    pub content_type: Option<String>,
    /// Its name, as its server says.
    pub file_name: Option<String>,
    /// The content.
    pub content: Content,
}

/// A page, or whatever else was found at an address.
pub struct Page {
    /// Where it was found, behind all redirects.
    pub url: Url,
    /// Its status.
    pub status: u16,
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// The content.
    pub content: Content,
}

/// Why there is no content.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// Its server says that there is none.
    #[error("its server has no such medium")]
    Unknown,
    /// Its server says that it is not uploaded yet.
    #[error("it has not been uploaded yet")]
    NotYetUploaded,
    /// It is larger than it may be, here or there.
    #[error("it is too large")]
    TooLarge,
    /// It is not to be had.
    #[error("{0}")]
    Unreachable(String),
}

/// Bounds on what is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// From the first look-up to the last byte.
    pub timeout: Duration,
    /// Largest content, in bytes.
    pub bytes_max: u64,
}

/// Fetches content.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// A file of another server, which may wait so long for its upload.
    async fn file(
        &self,
        mxc: &Mxc,
        wait: Duration,
        limits: SourceLimits,
    ) -> Result<RemoteFile, SourceError>;

    /// A thumbnail of another server's medium, as that server makes it.
    async fn thumbnail(
        &self,
        mxc: &Mxc,
        wanted: &Wanted,
        limits: SourceLimits,
    ) -> Result<RemoteFile, SourceError>;

    /// A page, in one of these languages (as `Accept-Language` has them). No address is connected to
    /// that is not public, also not behind a redirect.
    async fn page(
        &self,
        url: &Url,
        languages: &str,
        limits: SourceLimits,
    ) -> Result<Page, SourceError>;
}
