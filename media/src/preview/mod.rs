//! URL previews (spec: Client-Server API, Content repository; `GET /preview_url`).
//!
//! Pages are fetched on the word of users, so only public addresses are connected to, and everything
//! is bounded: the time, what is read, how many are looked at at once, what is remembered.

mod charset;
mod html;
mod oembed;

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use millrace_store::{
    Node, Read, Tx,
    rows::media::{BlobHash, MediumKind, UrlPreview},
    tables::{MEDIA_DUE, URL_PREVIEWS},
};
use serde_json::{Map, Value};
use url::Url;

use crate::{
    Media, ReceiveError, due,
    sources::{Content, Page, SourceError, SourceLimits},
    storage::{StorageError, hex},
    thumbnail::dimensions,
    upload::{Description, write_medium},
};

/// How long a preview is good.
const GOOD_FOR: Duration = Duration::from_hours(1);
/// The longest URL.
const URL_BYTES_MAX: usize = 4096;
/// Largest oEmbed answer.
const OEMBED_BYTES_MAX: u64 = 256 * 1024;
/// The longest name of a file.
const NAME_BYTES_MAX: usize = 200;

/// What is configured about URL previews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewSettings {
    /// Largest page or image that is fetched, in bytes.
    pub bytes_max: u64,
    /// How long fetching a page, or what belongs to it, may take.
    pub timeout: Duration,
    /// Which languages pages are asked for in, as `Accept-Language` has them.
    pub languages: String,
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// This server makes none.
    #[error("this server makes no previews")]
    Disabled,
    /// It is no address of a page.
    #[error("{0} is no address of a page")]
    Url(String),
    /// The page is not to be had.
    #[error("the page cannot be fetched: {0}")]
    Source(#[from] SourceError),
    /// The page is not there, says its server.
    #[error("the page's server answered {0}")]
    Status(u16),
    /// Its image cannot be kept.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store failed.
    #[error("could not look for the preview")]
    Store(#[from] millrace_store::Error),
}

/// What a page says of itself, the text of a JSON object.
///
/// # Errors
/// Where there is no preview.
pub async fn preview(media: &Media, url: &str) -> Result<String, PreviewError> {
    let settings = media.settings.previews.as_ref().ok_or(PreviewError::Disabled)?;
    let url = page_url(url)?;
    let key = *blake3::hash(url.as_str().as_bytes()).as_bytes();
    if let Some(known) = known(media, &key).await? {
        return Ok(known.json);
    }
    // Whoever asks for the same at the same time waits for the first.
    let _gate = media.gates.enter(url.as_str()).await;
    if let Some(known) = known(media, &key).await? {
        return Ok(known.json);
    }
    let busy = || SourceError::Unreachable("too many pages are fetched at once".to_owned());
    let _permit = media.previewing.acquire().await.map_err(|_| busy())?;
    let preview = look(media, settings, &url).await?;
    let json = Value::Object(preview).to_string();
    remember(media, &key, &json).await?;
    Ok(json)
}

fn page_url(text: &str) -> Result<Url, PreviewError> {
    let invalid = || PreviewError::Url(text.chars().take(100).collect());
    if text.len() > URL_BYTES_MAX {
        return Err(invalid());
    }
    let mut url = Url::parse(text).map_err(|_| invalid())?;
    let plain = matches!(url.scheme(), "http" | "https");
    if !plain || !url.has_host() || !url.username().is_empty() || url.password().is_some() {
        return Err(invalid());
    }
    url.set_fragment(None);
    Ok(url)
}

async fn known(media: &Media, key: &BlobHash) -> millrace_store::Result<Option<UrlPreview>> {
    let row = media.env.store.snapshot().get(&URL_PREVIEWS, key, ()).await?;
    Ok(row.filter(|row| row.expires_ms > media.now_ms()))
}

async fn remember(media: &Media, key: &BlobHash, json: &str) -> millrace_store::Result<()> {
    let good_for_ms = u64::try_from(GOOD_FOR.as_millis()).unwrap_or(u64::MAX);
    let expires_ms = media.now_ms().saturating_add(good_for_ms);
    let row = &UrlPreview { json: json.to_owned(), expires_ms };
    let write = |tx: Tx| {
        async move {
            if let Some(before) = tx.get(&URL_PREVIEWS, key, ()).await? {
                tx.delete(&MEDIA_DUE, Node, (before.expires_ms, due::PREVIEW, &hex(key)));
            }
            tx.put(&URL_PREVIEWS, key, (), row);
            tx.put(&MEDIA_DUE, Node, (expires_ms, due::PREVIEW, &hex(key)), &());
            Ok(())
        }
        .boxed()
    };
    media.env.store.transact(write).await
}

/// Fetches a page and whatever belongs to its preview.
async fn look(
    media: &Media,
    settings: &PreviewSettings,
    url: &Url,
) -> Result<Map<String, Value>, PreviewError> {
    let page = fetch(media, settings, url, settings.bytes_max).await?;
    let kind = essence(page.content_type.as_deref());
    if kind.starts_with("image/") {
        let name = file_name(&page.url);
        let image = keep_image(media, page).await?;
        let mut preview = image_properties(image);
        preview.insert("og:title".to_owned(), name.unwrap_or_else(|| url.to_string()).into());
        return Ok(preview);
    }
    if !matches!(&*kind, "text/html" | "application/xhtml+xml") {
        let name = file_name(&page.url).map(|name| ("og:title".to_owned(), name.into()));
        return Ok(name.into_iter().collect());
    }
    let text = charset::decode(&page.content, page.content_type.as_deref());
    let described = html::describe(&text);
    let embedded = match described.oembed.as_deref().and_then(|target| page.url.join(target).ok()) {
        Some(target) => embedded(media, settings, &target).await,
        None => BTreeMap::new(),
    };
    let mut properties = described.open_graph.clone();
    for (name, value) in embedded.into_iter().chain(described.complete()) {
        properties.entry(name).or_insert(value);
    }
    let image = properties.get("og:image").and_then(|image| page.url.join(image).ok());
    // What the page says of its image is not what we serve.
    properties.retain(|name, _| name != "og:image" && !name.starts_with("og:image:"));
    let mut preview: Map<String, Value> =
        properties.into_iter().map(|(name, value)| (name, value.into())).collect();
    if let Some(image) = image {
        preview.extend(fetch_image(media, settings, &image).await?);
    }
    Ok(preview)
}

struct Fetched {
    url: Url,
    content_type: Option<String>,
    content: Bytes,
}

async fn fetch(
    media: &Media,
    settings: &PreviewSettings,
    url: &Url,
    bytes_max: u64,
) -> Result<Fetched, PreviewError> {
    let limits = SourceLimits { timeout: settings.timeout, bytes_max };
    let page = media.sources.page(url, &settings.languages, limits).await?;
    let Page { url, status, content_type, content } = page;
    if !(200..300).contains(&status) {
        return Err(PreviewError::Status(status));
    }
    let content = whole(content, bytes_max).await?;
    Ok(Fetched { url, content_type, content })
}

async fn whole(mut content: Content, bytes_max: u64) -> Result<Bytes, SourceError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = content.next().await {
        let chunk = chunk?;
        if (whole.len() + chunk.len()) as u64 > bytes_max {
            return Err(SourceError::TooLarge);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// What the page's oEmbed provider says; nothing where it cannot be asked.
async fn embedded(
    media: &Media,
    settings: &PreviewSettings,
    url: &Url,
) -> BTreeMap<String, String> {
    match fetch(media, settings, url, OEMBED_BYTES_MAX).await {
        Ok(page) => match serde_json::from_slice::<Map<String, Value>>(&page.content) {
            Ok(answer) => oembed::properties(&answer),
            Err(_) => BTreeMap::new(),
        },
        Err(error) => {
            tracing::debug!(%url, %error, "an oEmbed provider gives nothing");
            BTreeMap::new()
        }
    }
}

/// What a preview says of its image; nothing where that is not to be had.
async fn fetch_image(
    media: &Media,
    settings: &PreviewSettings,
    url: &Url,
) -> Result<Map<String, Value>, PreviewError> {
    match fetch(media, settings, url, settings.bytes_max).await {
        Ok(page) if essence(page.content_type.as_deref()).starts_with("image/") => {
            Ok(image_properties(keep_image(media, page).await?))
        }
        Ok(_) => Ok(Map::new()),
        Err(error) => {
            tracing::debug!(%url, %error, "the image of a page is not to be had");
            Ok(Map::new())
        }
    }
}

struct Image {
    uri: String,
    bytes: u64,
    content_type: String,
    size: Option<(u32, u32)>,
}

/// Keeps an image as a medium of ours.
async fn keep_image(media: &Media, page: Fetched) -> Result<Image, PreviewError> {
    let told = essence(page.content_type.as_deref());
    let (size, content_type) = match dimensions(&page.content) {
        Some((size, kind)) => (Some(size), kind.to_owned()),
        None => (None, told),
    };
    let one = stream::once(std::future::ready(Ok::<_, SourceError>(page.content)));
    let spooled = media.receive(one, u64::MAX).await?;
    let description = Description {
        content_type: Some(content_type.clone()),
        file_name: file_name(&page.url),
        bytes: None,
    };
    let mxc = media.new_mxc();
    let partition = &mxc.partition();
    let medium = &media.new_medium(MediumKind::Preview, &spooled, description.bounded());
    let write = |tx: Tx| {
        async move {
            write_medium(&tx, partition, medium).await?;
            Ok::<_, PreviewError>(())
        }
        .boxed()
    };
    media.keep(&spooled, write, |error| !matches!(error, PreviewError::Store(_))).await?;
    Ok(Image { uri: mxc.to_string(), bytes: spooled.bytes, content_type, size })
}

fn image_properties(image: Image) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("og:image".to_owned(), image.uri.into());
    properties.insert("og:image:type".to_owned(), image.content_type.into());
    properties.insert("matrix:image:size".to_owned(), image.bytes.into());
    if let Some((width, height)) = image.size {
        properties.insert("og:image:width".to_owned(), width.into());
        properties.insert("og:image:height".to_owned(), height.into());
    }
    properties
}

/// The type without its parameters, in small letters.
fn essence(content_type: Option<&str>) -> String {
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The last part of a URL's path.
fn file_name(url: &Url) -> Option<String> {
    let name = url.path_segments()?.next_back()?;
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.to_owned())
}
