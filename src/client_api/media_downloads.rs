//! Downloads: client-server API, "Content repository". The deprecated endpoints need no account and
//! do not serve what came during the freeze.

use axum::{Router, extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use millrace_media::{
    Media, Mxc, ReceiveError,
    download::{self, Asking, Door, DownloadError, Remote},
    remote::RemoteError,
};
use ruma::api::{
    client::{
        authenticated_media::{get_content as get, get_content_as_filename as get_as},
        media::{get_content as get_legacy, get_content_as_filename as get_legacy_as},
    },
    error::ErrorKind,
};

use super::{
    error::ApiError,
    extract::Matrix,
    media_response::{Served, answer},
    requester::Requester,
    router::MatrixRouter,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(read_as).matrix(read_legacy).matrix(read_legacy_as)
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
#[tracing::instrument(name = "client.media.download", skip_all)]
async fn read(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Matrix(request): Matrix<get::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let found = download::find(&media, &mxc, authenticated(request.timeout_ms)).await?;
    answer(&media, &headers, Served::medium(&found)).await
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`
#[tracing::instrument(name = "client.media.download_as", skip_all)]
async fn read_as(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Matrix(request): Matrix<get_as::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let found = download::find(&media, &mxc, authenticated(request.timeout_ms)).await?;
    answer(&media, &headers, Served::medium(&found).named(request.filename)).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`
#[tracing::instrument(name = "client.media.legacy_download", skip_all)]
#[expect(deprecated, reason = "clients and servers of before Matrix 1.11 know no other")]
async fn read_legacy(
    State(media): State<Media>,
    headers: HeaderMap,
    Matrix(request): Matrix<get_legacy::v3::Request>,
) -> Result<Response, ApiError> {
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let asking = legacy(request.allow_remote, request.timeout_ms);
    let found = download::find(&media, &mxc, asking).await?;
    answer(&media, &headers, Served::medium(&found)).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`
#[tracing::instrument(name = "client.media.legacy_download_as", skip_all)]
#[expect(deprecated, reason = "clients and servers of before Matrix 1.11 know no other")]
async fn read_legacy_as(
    State(media): State<Media>,
    headers: HeaderMap,
    Matrix(request): Matrix<get_legacy_as::v3::Request>,
) -> Result<Response, ApiError> {
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let asking = legacy(request.allow_remote, request.timeout_ms);
    let found = download::find(&media, &mxc, asking).await?;
    answer(&media, &headers, Served::medium(&found).named(request.filename)).await
}

/// How an endpoint for those who have an account asks.
pub(super) fn authenticated(wait: std::time::Duration) -> Asking {
    Asking { door: Door::Authenticated, remote: Remote::Fetched, wait }
}

/// How a deprecated endpoint asks.
pub(super) fn legacy(allow_remote: bool, wait: std::time::Duration) -> Asking {
    let remote = if allow_remote { Remote::Fetched } else { Remote::Refused };
    Asking { door: Door::Legacy, remote, wait }
}

impl From<DownloadError> for ApiError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Unknown(_) | DownloadError::ClosedDoor(_) => Self::not_found(error),
            DownloadError::NotYetUploaded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::NotYetUploaded, error)
            }
            DownloadError::Remote(_) if error.is_too_large() => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::TooLarge, error)
            }
            DownloadError::Remote(
                RemoteError::Receive(ReceiveError::Storage(_))
                | RemoteError::Storage(_)
                | RemoteError::Store(_),
            )
            | DownloadError::Store(_) => Self::internal(error),
            DownloadError::Remote(RemoteError::Source(_) | RemoteError::Receive(_)) => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error)
            }
        }
    }
}
