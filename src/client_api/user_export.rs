//! Everything that the server holds of a user, for `millrace export-user-data`:
//! `/_millrace/admin/v1/users/{userId}/export` (not part of the Matrix specification).

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::TryStreamExt;
use http::{HeaderValue, header};
use millrace_domain::{
    accounts::Requester,
    export::{self, ExportError, Lines},
};
use millrace_media::{Media, Mxc, moderate, storage::StorageError};
use millrace_store::rows::media::{Content, Medium};
use ruma::{OwnedUserId, UserId};
use serde_json::json;
use tokio::sync::mpsc;

use super::{error::ApiError, extract::PathArguments};
use crate::app::{App, RoomsPart};

/// Lines that wait for a slow reader.
const LINES_WAITING_MAX: usize = 64;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/_millrace/admin/v1/users/{user}/export", get(read))
}

/// `GET /_millrace/admin/v1/users/{userId}/export`: for administrators, and for users of themselves.
#[tracing::instrument(name = "admin.users.export", skip_all)]
async fn read(
    (State(rooms), State(media)): (State<RoomsPart>, State<Media>),
    requester: Requester,
    PathArguments(user): PathArguments<OwnedUserId>,
) -> Result<Response, ApiError> {
    if !requester.admin && requester.user != user {
        return Err(ApiError::forbidden("You are no administrator of this server"));
    }
    export::check(&rooms, &user).await?;
    let (lines, mut waiting) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(async move {
        if let Err(error) = write(&rooms, &media, &user, &Lines(lines)).await {
            tracing::warn!(%user, %error, "an export ended early");
        }
    });
    let stream = futures::stream::poll_fn(move |context| {
        waiting
            .poll_recv(context)
            .map(|line| line.map(|line| Ok::<_, std::convert::Infallible>(Bytes::from(line))))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response())
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Store(#[from] millrace_store::Error),
}

async fn write(
    rooms: &RoomsPart,
    media: &Media,
    user: &UserId,
    lines: &Lines,
) -> Result<(), WriteError> {
    export::export(rooms, user, lines).await?;
    for (mxc, medium) in moderate::media_of(media, user).await? {
        write_medium(media, (&mxc, &medium), lines).await?;
    }
    Ok(export::end(user, lines).await?)
}

/// A medium: what is known of it, then its content in pieces, but for what is quarantined.
async fn write_medium(
    media: &Media,
    (mxc, medium): (&Mxc, &Medium),
    lines: &Lines,
) -> Result<(), WriteError> {
    let Content::Stored { blob, bytes } = medium.content else { return Ok(()) };
    let uri = mxc.to_string();
    let quarantined = medium.quarantined_by.is_some();
    let data = json!({
        "uri": uri,
        "content_type": medium.content_type,
        "file_name": medium.file_name,
        "bytes": bytes,
        "created": medium.created_ms,
        "quarantined": quarantined,
    });
    lines.put("media", data).await?;
    if quarantined {
        return Ok(());
    }
    let (mut content, mut offset) = (media.read(&blob, 0..bytes).await?, 0);
    while let Some(piece) = content.try_next().await? {
        let data = json!({
            "uri": uri, "offset": offset, "base64": BASE64_STANDARD.encode(&piece),
        });
        lines.put("media_content", data).await?;
        offset += piece.len();
    }
    Ok(())
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Unknown(_) => Self::not_found(error),
            ExportError::BrokenOff | ExportError::Read(_) | ExportError::Store(_) => {
                Self::internal(error)
            }
        }
    }
}
