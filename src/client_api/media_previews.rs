//! URL previews: client-server API, "Content repository".

use axum::{Router, extract::State};
use http::StatusCode;
use millrace_media::{
    Media, ReceiveError,
    preview::{self, PreviewError},
};
use ruma::api::{
    client::{
        authenticated_media::get_media_preview as get, media::get_media_preview as get_legacy,
    },
    error::ErrorKind,
};
use serde_json::value::RawValue;

use super::{
    error::ApiError, extract::Matrix, limits::EndpointClass, requester::Requester,
    router::MatrixRouter, user_limits::UserLimits,
};
use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new().matrix(read).matrix(read_legacy)
}

/// `GET /_matrix/client/v1/media/preview_url`
#[tracing::instrument(name = "client.media.preview", skip_all)]
async fn read(
    State(media): State<Media>,
    requester: Requester,
    limits: UserLimits,
    Matrix(request): Matrix<get::v1::Request>,
) -> Result<Matrix<get::v1::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let json = preview::preview(&media, &request.url).await?;
    let json = RawValue::from_string(json).map_err(ApiError::internal)?;
    Ok(Matrix(get::v1::Response::from_raw_value(json)))
}

/// `GET /_matrix/media/v3/preview_url`
#[tracing::instrument(name = "client.media.legacy_preview", skip_all)]
#[expect(deprecated, reason = "clients of before Matrix 1.11 know no other")]
async fn read_legacy(
    State(media): State<Media>,
    requester: Requester,
    limits: UserLimits,
    Matrix(request): Matrix<get_legacy::v3::Request>,
) -> Result<Matrix<get_legacy::v3::Response>, ApiError> {
    limits.check(EndpointClass::Other, &requester.user)?;
    let json = preview::preview(&media, &request.url).await?;
    let json = RawValue::from_string(json).map_err(ApiError::internal)?;
    Ok(Matrix(get_legacy::v3::Response::from_raw_value(json)))
}

impl From<PreviewError> for ApiError {
    fn from(error: PreviewError) -> Self {
        match error {
            // As Synapse, which then has no such endpoint.
            PreviewError::Disabled => Self::unknown_endpoint(),
            PreviewError::Url(_) => Self::bad_request(ErrorKind::Unknown, error),
            PreviewError::Source(_)
            | PreviewError::Status(_)
            | PreviewError::Receive(ReceiveError::TooLarge(_) | ReceiveError::Broken(_)) => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, error)
            }
            PreviewError::Receive(ReceiveError::Storage(_))
            | PreviewError::Storage(_)
            | PreviewError::Store(_) => Self::internal(error),
        }
    }
}
