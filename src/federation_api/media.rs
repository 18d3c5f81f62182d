//! Media for other servers (spec: Server-Server API, Content Repository).

use axum::{Router, body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header;
use millrace_domain::Env;
use millrace_media::{
    Media, Mxc,
    download::{self, Asking, Door, Found, Remote},
    storage::StorageError,
    thumbnail,
};
use ruma::api::federation::authenticated_media::{get_content, get_content_thumbnail};

use super::authenticate::Signed;
use crate::{
    app::App,
    client_api::{
        error::ApiError,
        media_response::{Served, disposition},
        media_thumbnails,
        router::MatrixRouter,
    },
};

/// Letters of a boundary between parts.
const BOUNDARY_LETTERS: usize = 32;

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(read_thumbnail)
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
#[tracing::instrument(name = "federation.media.download", skip_all, fields(origin = %signed.origin))]
async fn read(
    State(media): State<Media>,
    signed: Signed<get_content::v1::Request>,
) -> Result<Response, ApiError> {
    let get_content::v1::Request { media_id, timeout_ms, .. } = signed.request;
    let found = find(&media, media_id, timeout_ms).await?;
    in_parts(&media, Served::medium(&found)).await
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
#[tracing::instrument(name = "federation.media.thumbnail", skip_all, fields(origin = %signed.origin))]
async fn read_thumbnail(
    State(media): State<Media>,
    signed: Signed<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let request = signed.request;
    let size = (request.width, request.height);
    let wanted = media_thumbnails::wanted(size, request.method, request.animated)?;
    let found = find(&media, request.media_id, request.timeout_ms).await?;
    let smaller = thumbnail::thumbnail(&media, &found, &wanted).await?;
    in_parts(&media, Served::thumbnail(smaller)).await
}

/// A medium of ours: others' are not for us to give.
async fn find(
    media: &Media,
    media_id: String,
    wait: std::time::Duration,
) -> Result<Found, ApiError> {
    let mxc = Mxc::new(media.env.identity.name.clone(), media_id)?;
    let (door, remote) = (Door::Authenticated, Remote::Refused);
    Ok(download::find(media, &mxc, Asking { door, remote, wait }).await?)
}

/// Two parts: metadata, of which there are none yet, and the file.
async fn in_parts(media: &Media, served: Served) -> Result<Response, ApiError> {
    let env: &Env = &media.env;
    let boundary = env.random_text(BOUNDARY_LETTERS);
    let (kind, name) = (served.content_type(), served.name.clone());
    let disposition = disposition(&kind, name);
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: {kind}\r\nContent-Disposition: {disposition}\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + served.bytes() + tail.len() as u64;
    let content = served.content(media).await.map_err(ApiError::internal)?;
    let piece = |text: String| stream::iter([Ok::<_, StorageError>(Bytes::from(text))]);
    let body = piece(head).chain(content).chain(piece(tail));
    Response::builder()
        .header(header::CONTENT_TYPE, format!("multipart/mixed; boundary={boundary}"))
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_stream(body))
        .map_err(ApiError::internal)
}
