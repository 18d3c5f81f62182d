//! Thumbnails: client-server API, "Content repository".

use std::time::Duration;

use axum::{Router, extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use millrace_media::{
    Media, Mxc, ReceiveError,
    download::{self, Asking, DownloadError},
    remote,
    thumbnail::{self, InvalidSize, Method, Motion, RenderError, ThumbnailError, Wanted},
};
use ruma::{
    UInt,
    api::{
        client::{
            authenticated_media::get_content_thumbnail as get,
            media::get_content_thumbnail as get_legacy,
        },
        error::ErrorKind,
    },
    media,
};

use super::{
    error::ApiError,
    extract::Matrix,
    media_downloads::{authenticated, legacy},
    media_response::{Served, answer},
    requester::Requester,
    router::MatrixRouter,
};
use crate::app::App;

/// When whoever finds too many thumbnails being made may come again.
const BUSY_FOR: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(read_legacy)
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
#[tracing::instrument(name = "client.media.thumbnail", skip_all)]
async fn read(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Matrix(request): Matrix<get::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = wanted((request.width, request.height), request.method, request.animated)?;
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    smaller(&media, &headers, &mxc, authenticated(request.timeout_ms), &wanted).await
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
#[tracing::instrument(name = "client.media.legacy_thumbnail", skip_all)]
#[expect(deprecated, reason = "clients of before Matrix 1.11 know no other")]
async fn read_legacy(
    State(media): State<Media>,
    headers: HeaderMap,
    Matrix(request): Matrix<get_legacy::v3::Request>,
) -> Result<Response, ApiError> {
    let wanted = wanted((request.width, request.height), request.method, request.animated)?;
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let asking = legacy(request.allow_remote, request.timeout_ms);
    smaller(&media, &headers, &mxc, asking, &wanted).await
}

async fn smaller(
    media: &Media,
    headers: &HeaderMap,
    mxc: &Mxc,
    asking: Asking,
    wanted: &Wanted,
) -> Result<Response, ApiError> {
    let found = match download::find(media, mxc, asking).await {
        Err(error) if error.is_too_large() => {
            let theirs = remote::thumbnail(media, mxc, wanted).await;
            let theirs = theirs.map_err(DownloadError::Remote)?;
            return answer(media, headers, Served::thumbnail(theirs)).await;
        }
        found => found?,
    };
    let smaller = thumbnail::thumbnail(media, &found, wanted).await;
    let smaller = smaller.map_err(|error| match error {
        // Specification: 413 for what is ours, 502 for what is another server's.
        ThumbnailError::TooLarge(_) | ThumbnailError::Render(RenderError::TooLarge(_))
            if !media.is_local(mxc) =>
        {
            ApiError::new(StatusCode::BAD_GATEWAY, ErrorKind::TooLarge, error)
        }
        other => other.into(),
    })?;
    answer(media, headers, Served::thumbnail(smaller)).await
}

/// The thumbnail that a request asks for.
pub(crate) fn wanted(
    (width, height): (UInt, UInt),
    method: Option<media::Method>,
    animated: Option<bool>,
) -> Result<Wanted, ApiError> {
    let method = match method {
        None | Some(media::Method::Scale) => Method::Scale,
        Some(media::Method::Crop) => Method::Crop,
        Some(other) => {
            let message = format_args!("method must be crop or scale, not {other}");
            return Err(ApiError::bad_request(ErrorKind::Unknown, message));
        }
    };
    let motion = if animated == Some(true) { Motion::Animated } else { Motion::Still };
    Ok(Wanted::new(width.into(), height.into(), method, motion)?)
}

impl From<InvalidSize> for ApiError {
    fn from(error: InvalidSize) -> Self {
        Self::bad_request(ErrorKind::Unknown, error)
    }
}

impl From<ThumbnailError> for ApiError {
    fn from(error: ThumbnailError) -> Self {
        match error {
            ThumbnailError::Render(RenderError::TooLarge(_)) | ThumbnailError::TooLarge(_) => {
                Self::too_large(error)
            }
            ThumbnailError::Render(RenderError::Unsupported | RenderError::Broken(_)) => {
                Self::bad_request(ErrorKind::Unknown, error)
            }
            ThumbnailError::Gone => Self::not_found(error),
            ThumbnailError::Busy => Self::limit_exceeded(BUSY_FOR),
            ThumbnailError::Receive(
                ReceiveError::TooLarge(_) | ReceiveError::Broken(_) | ReceiveError::Storage(_),
            )
            | ThumbnailError::Storage(_)
            | ThumbnailError::Store(_) => Self::internal(error),
        }
    }
}
