//! How the media repository reaches other servers and pages: through the federation's ways out.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, header};
use millrace_federation::{
    Federation,
    media::{self, RemoteMediaError, ThumbnailRequest},
    transport::{AnswerBody, ExchangeLimits, TransportError},
};
use millrace_media::{
    Mxc,
    sources::{Content, Page, RemoteFile, SourceError, SourceLimits, Sources},
    thumbnail::{Method, Motion, Wanted},
};
use url::Url;

/// The federation, as the media repository uses it.
pub struct MediaSources(pub Federation);

#[async_trait]
impl Sources for MediaSources {
    async fn file(
        &self,
        mxc: &Mxc,
        wait: Duration,
        limits: SourceLimits,
    ) -> Result<RemoteFile, SourceError> {
        let limits = exchange(limits);
        let file = media::fetch(&self.0, mxc.server(), mxc.id(), wait, limits).await;
        file.map(remote_file).map_err(remote_error)
    }

    async fn thumbnail(
        &self,
        mxc: &Mxc,
        wanted: &Wanted,
        limits: SourceLimits,
    ) -> Result<RemoteFile, SourceError> {
        let (width, height) = wanted.size();
        let request = ThumbnailRequest {
            width,
            height,
            method: match wanted.method() {
                Method::Crop => ruma::media::Method::Crop,
                Method::Scale => ruma::media::Method::Scale,
            },
            animated: wanted.motion() == Motion::Animated,
        };
        let place = (mxc.server(), mxc.id());
        let file = media::fetch_thumbnail(&self.0, place, &request, exchange(limits)).await;
        file.map(remote_file).map_err(remote_error)
    }

    async fn page(
        &self,
        url: &Url,
        languages: &str,
        limits: SourceLimits,
    ) -> Result<Page, SourceError> {
        let mut headers = HeaderMap::new();
        if let Ok(languages) = HeaderValue::from_str(languages) {
            headers.insert(header::ACCEPT_LANGUAGE, languages);
        }
        let page = self.0.pages.get(url.clone(), headers, exchange(limits)).await;
        let page = page.map_err(|error| source_error(&error))?;
        let (head, body) = page.answer.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        Ok(Page {
            url: page.url,
            status: head.status.as_u16(),
            content_type: kind.map(ToOwned::to_owned),
            content: content(body),
        })
    }
}

fn remote_file(file: media::RemoteFile) -> RemoteFile {
    let media::RemoteFile { content_type, file_name, body } = file;
    RemoteFile { content_type, file_name, content: content(body) }
}

fn remote_error(error: RemoteMediaError) -> SourceError {
    match error {
        RemoteMediaError::Unknown(_) => SourceError::Unknown,
        RemoteMediaError::NotYetUploaded => SourceError::NotYetUploaded,
        RemoteMediaError::TooLarge => SourceError::TooLarge,
        RemoteMediaError::Peer(_)
        | RemoteMediaError::Malformed(_)
        | RemoteMediaError::Elsewhere(_) => SourceError::Unreachable(error.to_string()),
    }
}

fn exchange(limits: SourceLimits) -> ExchangeLimits {
    // What surrounds a file is small.
    const AROUND: u64 = 128 * 1024;
    let most = limits.bytes_max.saturating_add(AROUND);
    let answer_bytes_max = usize::try_from(most).unwrap_or(usize::MAX);
    ExchangeLimits { timeout: limits.timeout, answer_bytes_max }
}

fn content(body: AnswerBody) -> Content {
    body.map_err(|error| source_error(&error)).boxed()
}

fn source_error(error: &TransportError) -> SourceError {
    match error {
        TransportError::TooLarge(_) => SourceError::TooLarge,
        TransportError::Unresolved(_)
        | TransportError::Unreachable(_)
        | TransportError::TimedOut(_) => SourceError::Unreachable(error.to_string()),
    }
}
