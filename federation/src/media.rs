//! Media of other servers: asking for them, and where that leads (spec: Server-Server API, Content
//! Repository).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use ruma::{
    OwnedServerName, ServerName,
    api::{
        error::ErrorKind,
        federation::authenticated_media::{
            get_content::v1 as get_content, get_content_thumbnail::v1 as get_thumbnail,
        },
    },
    http_headers::ContentDisposition,
    media::Method,
};
use url::Url;

use crate::{
    Federation, PeerError,
    multipart::{self, MultipartError},
    transport::{AnswerBody, ExchangeLimits, TransportError},
};

/// A file of another server.
pub struct RemoteFile {
    /// What it is, as its server says.
    pub content_type: Option<String>,
    /// Its name, as its server says.
    pub file_name: Option<String>,
    /// The content, piece by piece.
    pub body: AnswerBody,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum RemoteMediaError {
    /// Its server has no such medium.
    #[error("{0} has no such medium")]
    Unknown(OwnedServerName),
    /// It has not been uploaded yet.
    #[error("the medium has not been uploaded yet")]
    NotYetUploaded,
    /// It is too large for one of both.
    #[error("the medium is too large")]
    TooLarge,
    /// Its server cannot be asked, or refuses.
    #[error(transparent)]
    Peer(PeerError),
    /// The answer is not of the form that the specification says.
    #[error(transparent)]
    Malformed(#[from] MultipartError),
    /// The answer leads to an address where nothing is to be had.
    #[error("the medium cannot be had where its server says: {0}")]
    Elsewhere(String),
}

impl From<PeerError> for RemoteMediaError {
    fn from(error: PeerError) -> Self {
        let PeerError::Refused { server, status, error: refusal } = &error else {
            return match error {
                PeerError::Transport { source: TransportError::TooLarge(_), .. } => Self::TooLarge,
                other => Self::Peer(other),
            };
        };
        match refusal.error_kind() {
            Some(ErrorKind::NotYetUploaded) => Self::NotYetUploaded,
            Some(ErrorKind::TooLarge) => Self::TooLarge,
            _ if *status == StatusCode::NOT_FOUND => Self::Unknown(server.clone()),
            _ => Self::Peer(error),
        }
    }
}

/// Asks `server` for one of its media. Servers of before Matrix 1.11 are asked by the endpoint that
/// they have.
///
/// # Errors
/// Where there is none to be had.
pub async fn fetch(
    federation: &Federation,
    server: &ServerName,
    media_id: &str,
    wait: Duration,
    limits: ExchangeLimits,
) -> Result<RemoteFile, RemoteMediaError> {
    let mut request = get_content::Request::new(media_id.to_owned());
    request.timeout_ms = wait;
    let answer = match federation.peers.stream(server, request, limits).await {
        Err(error) if is_older(&error) => {
            return fetch_legacy(federation, server, media_id, wait, limits).await;
        }
        other => other?,
    };
    in_parts(federation, answer, limits).await
}

/// Which thumbnail another server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThumbnailRequest {
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Whether it is cut to fill them, or fits into them.
    pub method: Method,
    /// Whether it may move.
    pub animated: bool,
}

/// Asks `server` for a thumbnail of one of its media.
///
/// # Errors
/// Where there is none to be had, also of servers of before Matrix 1.11.
pub async fn fetch_thumbnail(
    federation: &Federation,
    (server, media_id): (&ServerName, &str),
    wanted: &ThumbnailRequest,
    limits: ExchangeLimits,
) -> Result<RemoteFile, RemoteMediaError> {
    let (width, height) = (wanted.width.into(), wanted.height.into());
    let mut request = get_thumbnail::Request::new(media_id.to_owned(), width, height);
    request.method = Some(wanted.method.clone());
    request.animated = Some(wanted.animated);
    let answer = federation.peers.stream(server, request, limits).await?;
    in_parts(federation, answer, limits).await
}

/// The file in an answer of two parts, or where it leads.
async fn in_parts(
    federation: &Federation,
    answer: http::Response<AnswerBody>,
    limits: ExchangeLimits,
) -> Result<RemoteFile, RemoteMediaError> {
    let (head, body) = answer.into_parts();
    let boundary = multipart::boundary(&head.headers)?;
    let part = multipart::second_part(body, &boundary).await?;
    match text(&part.headers, header::LOCATION) {
        Some(location) => follow(federation, &location, limits).await,
        None => Ok(file(&part.headers, part.body)),
    }
}

/// Whether a server does not know the endpoint: it says so, or answers with no Matrix error at all.
fn is_older(error: &PeerError) -> bool {
    let PeerError::Refused { status, error, .. } = error else { return false };
    let unknown = matches!(
        *status,
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    unknown && matches!(error.error_kind(), None | Some(ErrorKind::Unrecognized))
}

async fn fetch_legacy(
    federation: &Federation,
    server: &ServerName,
    media_id: &str,
    wait: Duration,
    limits: ExchangeLimits,
) -> Result<RemoteFile, RemoteMediaError> {
    // The brackets of an IPv6 address are no characters of a path.
    let name = server.as_str().replace('[', "%5B").replace(']', "%5D");
    let path = format!(
        "/_matrix/media/v3/download/{name}/{media_id}?allow_remote=false&allow_redirect=true\
         &timeout_ms={}",
        wait.as_millis()
    );
    let request = http::Request::get(path).body(Bytes::new());
    let request = request.map_err(|error| PeerError::Request(error.to_string()))?;
    let answer = federation.peers.stream_unsigned(server, request, limits).await?;
    let (head, body) = answer.into_parts();
    if head.status.is_redirection() {
        let location = text(&head.headers, header::LOCATION).unwrap_or_default();
        return follow(federation, &location, limits).await;
    }
    Ok(file(&head.headers, body))
}

/// Fetches a file from where its server says that it is: any page, without our signature.
async fn follow(
    federation: &Federation,
    location: &str,
    limits: ExchangeLimits,
) -> Result<RemoteFile, RemoteMediaError> {
    let elsewhere = |error: &dyn std::fmt::Display| RemoteMediaError::Elsewhere(error.to_string());
    let url = Url::parse(location).map_err(|error| elsewhere(&error))?;
    let page = federation.pages.get(url, HeaderMap::new(), limits).await;
    let (head, body) = page.map_err(|error| elsewhere(&error))?.answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(elsewhere(&head.status));
    }
    Ok(file(&head.headers, body))
}

fn file(headers: &HeaderMap, body: AnswerBody) -> RemoteFile {
    let disposition = headers.get(header::CONTENT_DISPOSITION);
    let disposition =
        disposition.and_then(|value| ContentDisposition::try_from(value.as_bytes()).ok());
    RemoteFile {
        content_type: text(headers, header::CONTENT_TYPE),
        file_name: disposition.and_then(|disposition| disposition.filename),
        body,
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}
