//! How media are answered: what keeps a browser from running them, ranges, and caching.

use std::ops::Range;

use axum::{body::Body, response::Response};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response};
use millrace_media::{
    Media,
    download::Found,
    storage::{BlobHash, Chunks, StorageError},
    thumbnail::Smaller,
};
use ruma::http_headers::{ContentDisposition, ContentDispositionType};

use super::error::ApiError;

/// Specification: client-server API, "Content repository".
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";
/// A medium never changes. It is for whoever may ask for it, and so not for shared caches, unless
/// these are told to ask back.
const CACHING: &str = "private, max-age=86400, immutable";
/// What a medium is whose uploader did not say.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// What browsers may show in place, as it runs nothing: specification, "Serving inline content".
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Content, and what is said of it.
pub(crate) struct Served {
    content_type: Option<String>,
    /// The name under which it is saved.
    pub name: Option<String>,
    content: Content,
}

enum Content {
    File(BlobHash, u64),
    Here(Bytes),
}

impl Served {
    /// A medium, under the name that it was uploaded with.
    pub fn medium(found: &Found) -> Self {
        Self {
            content_type: found.medium.content_type.clone(),
            name: found.medium.file_name.clone(),
            content: Content::File(found.blob, found.bytes),
        }
    }

    /// The same under another name.
    pub fn named(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// A thumbnail, or the medium in its place.
    pub fn thumbnail(smaller: Smaller) -> Self {
        let (content_type, content) = match smaller {
            Smaller::Original(found) => return Self::medium(&found),
            Smaller::Kept { blob, bytes, content_type } => {
                (content_type, Content::File(blob, bytes))
            }
            Smaller::Fresh { content, content_type } => (content_type, Content::Here(content)),
        };
        let kind = content_type.strip_prefix("image/").unwrap_or("bin");
        let name = Some(format!("thumbnail.{kind}"));
        Self { content_type: Some(content_type), name, content }
    }

    /// The type as it was told at the upload, if that can be said in a header.
    pub fn content_type(&self) -> String {
        let told = self.content_type.as_deref();
        let usable = told.filter(|kind| HeaderValue::from_str(kind).is_ok());
        usable.unwrap_or(UNKNOWN_TYPE).to_owned()
    }

    /// How large it is.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::File(_, bytes) => *bytes,
            Content::Here(content) => content.len() as u64,
        }
    }

    /// All of it.
    pub async fn content(&self, media: &Media) -> Result<Chunks, StorageError> {
        self.part(media, 0..self.bytes()).await
    }

    async fn part(&self, media: &Media, range: Range<u64>) -> Result<Chunks, StorageError> {
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        match &self.content {
            Content::File(blob, _) => media.read(blob, range).await,
            Content::Here(content) => {
                let part = content.slice(place(range.start)..place(range.end));
                Ok(stream::once(std::future::ready(Ok(part))).boxed())
            }
        }
    }

    /// What tells it from any other content.
    fn entity_tag(&self) -> String {
        match &self.content {
            Content::File(blob, _) => format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&blob[..16])),
            // A weak one that is none of a file: it is made again each time.
            Content::Here(content) => format!("W/\"{}\"", content.len()),
        }
    }
}

/// Content, or the part of it that `asked` wants.
pub(super) async fn answer(
    media: &Media,
    asked: &HeaderMap,
    served: Served,
) -> Result<Response, ApiError> {
    let (kind, bytes, tag) = (served.content_type(), served.bytes(), served.entity_tag());
    let mut head = Response::builder()
        .header(header::CONTENT_TYPE, &kind)
        .header(header::CONTENT_DISPOSITION, disposition(&kind, served.name.clone()).to_string())
        .header(header::ETAG, &tag)
        .header(header::CACHE_CONTROL, CACHING)
        .header(header::ACCEPT_RANGES, "bytes");
    for (name, value) in safety() {
        head = head.header(name, value);
    }
    let unchanged = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if unchanged.is_some_and(|known| known == "*" || known.split(", ").any(|one| one == tag)) {
        return finish(head.status(StatusCode::NOT_MODIFIED), Body::empty());
    }
    let wanted = match wanted(asked, &tag, bytes) {
        Wanted::All => 0..bytes,
        Wanted::Part(range) => {
            let Range { start, end } = &range;
            let told = format!("bytes {start}-{}/{bytes}", end.saturating_sub(1));
            head = head.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, told);
            range
        }
        Wanted::Impossible => {
            let told = format!("bytes */{bytes}");
            let head = head.status(StatusCode::RANGE_NOT_SATISFIABLE);
            return finish(head.header(header::CONTENT_RANGE, told), Body::empty());
        }
    };
    let head = head.header(header::CONTENT_LENGTH, wanted.end - wanted.start);
    let content = served.part(media, wanted).await.map_err(ApiError::internal)?;
    finish(head, Body::from_stream(content))
}

fn finish(head: response::Builder, body: Body) -> Result<Response, ApiError> {
    head.body(body).map_err(ApiError::internal)
}

/// What makes a medium harmless on our own domain.
pub(super) fn safety() -> [(HeaderName, HeaderValue); 4] {
    let text = HeaderValue::from_static;
    [
        (header::CONTENT_SECURITY_POLICY, text(POLICY)),
        (HeaderName::from_static("cross-origin-resource-policy"), text("cross-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, text("nosniff")),
        (header::REFERRER_POLICY, text("no-referrer")),
    ]
}

/// Whether a browser shows or saves it, and under which name.
pub(crate) fn disposition(kind: &str, name: Option<String>) -> ContentDisposition {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let shown = INLINE.contains(&&*essence);
    let how =
        if shown { ContentDispositionType::Inline } else { ContentDispositionType::Attachment };
    ContentDisposition::new(how).with_filename(name)
}

/// How much of a medium is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    /// A range beyond the end.
    Impossible,
}

/// RFC 9110, section 14. Several ranges at once, and what is no range of bytes, are answered with
/// everything, as is a range of something that has changed.
fn wanted(asked: &HeaderMap, tag: &str, bytes: u64) -> Wanted {
    let text = |name| asked.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Wanted::All;
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Wanted::All;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let range = match (first, last) {
        ("", last) => match number(last) {
            Some(length) => bytes.saturating_sub(length)..bytes,
            None => return Wanted::All,
        },
        (first, "") => match number(first) {
            Some(first) => first..bytes,
            None => return Wanted::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
            _ => return Wanted::All,
        },
    };
    if range.start >= range.end { Wanted::Impossible } else { Wanted::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: &str) -> Wanted {
        let mut asked = HeaderMap::new();
        asked.insert(header::RANGE, range.parse().unwrap());
        wanted(&asked, "\"tag\"", 100)
    }

    #[test]
    fn one_range_is_a_part_and_anything_odd_is_everything() {
        assert_eq!(of("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(of("bytes=10-"), Wanted::Part(10..100));
        assert_eq!(of("bytes=90-1000"), Wanted::Part(90..100));
        assert_eq!(of("bytes=-30"), Wanted::Part(70..100));
        assert_eq!(of("bytes=-1000"), Wanted::Part(0..100));
        for beyond in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(of(beyond), Wanted::Impossible, "{beyond}");
        }
        for odd in ["bytes=5-3", "bytes=a-b", "bytes=0-1,5-6", "lines=1-2", "bytes=-"] {
            assert_eq!(of(odd), Wanted::All, "{odd}");
        }
    }

    #[test]
    fn what_could_run_in_a_browser_is_saved_instead() {
        let how = |kind: &str| disposition(kind, None).to_string();
        for shown in ["image/png", "Text/Plain; charset=utf-8", "image/avif"] {
            assert_eq!(how(shown), "inline", "{shown}");
        }
        for saved in ["image/svg+xml", "text/html", "application/xhtml+xml", "", "image/png2"] {
            assert_eq!(how(saved), "attachment", "{saved}");
        }
        let named = disposition("image/png", Some("ü\"\r\n.png".to_owned())).to_string();
        assert_eq!(named, "inline; filename*=utf-8''%C3%BC%22%0D%0A.png");
    }
}
