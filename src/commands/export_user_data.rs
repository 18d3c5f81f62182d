//! `millrace export-user-data`: everything that the running server holds of a user, as a file of
//! lines of JSON. It asks over the admin API, so that the server need not be stopped.

use std::{io, net::SocketAddr, path::PathBuf};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use ruma::UserId;
use serde_json::Value;
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt,
    net::TcpStream,
};

use super::register_user::reachable;
use crate::config::Config;

/// How the last line of a whole export begins.
const LAST: &str = r#"{"data":{"user_id":"#;
/// How it ends.
const LAST_KIND: &str = r#""kind":"end"}"#;

/// What is to be exported.
pub struct Export {
    /// Of whom: a user ID, or the part of it before the colon.
    pub user: String,
    /// The file, which does not exist yet.
    pub output: PathBuf,
    /// An administrator's access token.
    pub access_token: String,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The configuration lacks something.
    #[error("{0}")]
    Config(&'static str),
    /// No user.
    #[error("{0} is not a user")]
    User(String),
    /// Nobody listens.
    #[error("the server does not run at {0}: start it with `millrace serve`")]
    NotRunning(SocketAddr),
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The connection broke, or what came is not what we asked for.
    #[error("the server did not answer as expected: {0}")]
    Answer(String),
    /// The file cannot be written.
    #[error("{path} cannot be written: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes the export and returns how many lines it has. The file is there only when it is whole.
///
/// # Errors
/// A sentence that says what to do.
pub async fn run(config: &Config, export: &Export) -> Result<usize, ExportError> {
    let name = config.server.name().ok_or(ExportError::Config("server_name must be set"))?;
    let address = config.server.listen_on().next();
    let address = address.ok_or(ExportError::Config("address and port name nowhere"))?;
    let user = UserId::parse_with_server_name(&*export.user, &name);
    let user = user.map_err(|_| ExportError::User(export.user.clone()))?;
    let mut partial = export.output.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file_error = |source| ExportError::File { path: export.output.clone(), source };
    if fs::try_exists(&export.output).await.map_err(file_error)? {
        return Err(file_error(io::ErrorKind::AlreadyExists.into()));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    options.mode(0o600); // It is nobody else's business.
    let mut file = options.open(&partial).await.map_err(file_error)?;
    let path = format!("/_millrace/admin/v1/users/{user}/export");
    let written = receive(reachable(address), &path, &export.access_token, &mut file).await;
    let lines = match written {
        Ok(lines) => lines,
        Err(error) => {
            let _ = fs::remove_file(&partial).await;
            return Err(match error {
                Failure::Said(error) => error,
                Failure::File(source) => file_error(source),
            });
        }
    };
    file.sync_all().await.map_err(file_error)?;
    fs::rename(&partial, &export.output).await.map_err(file_error)?;
    Ok(lines)
}

enum Failure {
    Said(ExportError),
    File(io::Error),
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::Said(ExportError::Answer(error.to_string()))
    }
}

async fn receive(
    address: SocketAddr,
    path: &str,
    access_token: &str,
    file: &mut File,
) -> Result<usize, Failure> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|_| Failure::Said(ExportError::NotRunning(address)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Failure::Said(ExportError::Answer(error.to_string())))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        let body = response.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = answer["error"].as_str().unwrap_or("no reason given").to_owned();
        return Err(Failure::Said(ExportError::Refused(error)));
    }
    let (mut body, mut lines, mut last) = (response.into_body(), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        lines += data.iter().filter(|byte| **byte == b'\n').count();
        keep_last_line(&mut last, &data);
        file.write_all(&data).await.map_err(Failure::File)?;
    }
    connection.abort();
    let last = String::from_utf8_lossy(&last);
    let last = last.trim_end();
    if !(last.starts_with(LAST) && last.ends_with(LAST_KIND)) {
        let message = "the export ended early; the server's log says why".to_owned();
        return Err(Failure::Said(ExportError::Answer(message)));
    }
    Ok(lines)
}

/// Adds `data` to what has come, and forgets all lines but the last.
fn keep_last_line(last: &mut Vec<u8>, data: &[u8]) {
    last.extend_from_slice(data);
    let end = last.len().saturating_sub(1);
    if let Some(newline) = last[..end].iter().rposition(|byte| *byte == b'\n') {
        last.drain(..=newline);
    }
}
