//! Uploads, and what the media repository allows: client-server API, "Content repository".

use axum::{Router, body::Body, extract::State, response::Response};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use millrace_media::{
    InvalidMediaId, Media, Mxc, QuotaError, ReceiveError,
    upload::{self, Description, UploadError},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedMxcUri, UInt,
    api::{
        client::{
            authenticated_media::get_media_config as get_config,
            media::{create_content, create_content_async, create_mxc_uri, get_media_config},
        },
        error::{ErrorKind, LimitExceededErrorData},
    },
};

use super::{
    error::ApiError,
    extract::{Matrix, Streamed},
    json::raw_json,
    limits::EndpointClass,
    requester::Requester,
    router::MatrixRouter,
    user_limits::UserLimits,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .matrix(upload)
        .matrix(create)
        .matrix(upload_to)
        .matrix(read_config)
        .matrix(read_legacy_config)
}

/// `POST /_matrix/media/v3/upload`
#[tracing::instrument(name = "client.media.upload", skip_all)]
async fn upload(
    State(media): State<Media>,
    requester: Requester,
    limits: UserLimits,
    Streamed { headers, request, body }: Streamed<create_content::v3::Request>,
) -> Result<Matrix<create_content::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let described = description(&headers, request.content_type, request.filename);
    let mxc = upload::upload(&media, &requester.user, described, chunks(body)).await?;
    Ok(Matrix(create_content::v3::Response::new(uri(&mxc))))
}

/// `POST /_matrix/media/v1/create`
#[tracing::instrument(name = "client.media.create", skip_all)]
async fn create(
    State(media): State<Media>,
    requester: Requester,
    limits: UserLimits,
    Matrix(_): Matrix<create_mxc_uri::v1::Request>,
) -> Result<Matrix<create_mxc_uri::v1::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let created = upload::create(&media, &requester.user).await?;
    let expires_at = MilliSecondsSinceUnixEpoch(UInt::new_saturating(created.expires_ms));
    let mut response = create_mxc_uri::v1::Response::new(uri(&created.mxc));
    response.unused_expires_at = Some(expires_at);
    Ok(Matrix(response))
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
#[tracing::instrument(name = "client.media.upload_to", skip_all)]
async fn upload_to(
    State(media): State<Media>,
    requester: Requester,
    limits: UserLimits,
    Streamed { headers, request, body }: Streamed<create_content_async::v3::Request>,
) -> Result<Response, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let mxc = Mxc::new(request.server_name, request.media_id)?;
    let described = description(&headers, request.content_type, request.filename);
    upload::upload_to(&media, &requester.user, &mxc, described, chunks(body)).await?;
    Ok(raw_json("{}".to_owned())) // ruma's type cannot be made outside of it
}

/// `GET /_matrix/client/v1/media/config`
#[tracing::instrument(name = "client.media.config", skip_all)]
async fn read_config(
    State(media): State<Media>,
    _: Requester,
    Matrix(_): Matrix<get_config::v1::Request>,
) -> Result<Matrix<get_config::v1::Response>, ApiError> {
    Ok(Matrix(get_config::v1::Response::new(upload_size(&media))))
}

/// `GET /_matrix/media/v3/config`
#[tracing::instrument(name = "client.media.legacy_config", skip_all)]
#[expect(deprecated, reason = "clients of before Matrix 1.11 know no other")]
async fn read_legacy_config(
    State(media): State<Media>,
    _: Requester,
    Matrix(_): Matrix<get_media_config::v3::Request>,
) -> Result<Matrix<get_media_config::v3::Response>, ApiError> {
    Ok(Matrix(get_media_config::v3::Response::new(upload_size(&media))))
}

fn upload_size(media: &Media) -> UInt {
    UInt::new_saturating(media.settings.upload_bytes_max)
}

fn description(
    headers: &HeaderMap,
    content_type: Option<String>,
    file_name: Option<String>,
) -> Description {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    Description {
        content_type: content_type.filter(|kind| !kind.is_empty()),
        file_name: file_name.filter(|name| !name.is_empty()),
        bytes: announced.and_then(|value| value.parse().ok()),
    }
}

fn chunks(body: Body) -> impl futures::Stream<Item = Result<bytes::Bytes, axum::Error>> {
    body.into_data_stream().fuse()
}

fn uri(mxc: &Mxc) -> OwnedMxcUri {
    mxc.to_string().into()
}

impl From<InvalidMediaId> for ApiError {
    fn from(error: InvalidMediaId) -> Self {
        Self::invalid_param(error)
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Receive(ReceiveError::TooLarge(_)) => Self::too_large(error),
            UploadError::Receive(ReceiveError::Broken(_)) => {
                Self::bad_request(ErrorKind::Unknown, error)
            }
            UploadError::Receive(ReceiveError::Storage(_))
            | UploadError::Storage(_)
            | UploadError::Store(_) => Self::internal(error),
            UploadError::Quota(QuotaError::Pending(_)) => {
                let kind = ErrorKind::LimitExceeded(LimitExceededErrorData::new());
                Self::new(StatusCode::TOO_MANY_REQUESTS, kind, error)
            }
            UploadError::Quota(QuotaError::Bytes(_) | QuotaError::Files(_))
            | UploadError::NotOwner => Self::forbidden(error),
            UploadError::FileName | UploadError::ContentType => Self::invalid_param(error),
            UploadError::Unknown(_) => Self::not_found(error),
            UploadError::Uploaded => {
                Self::new(StatusCode::CONFLICT, ErrorKind::CannotOverwriteMedia, error)
            }
        }
    }
}
