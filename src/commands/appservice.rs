//! `millrace appservice`: application services of the running server. It asks over the admin API, so
//! that nothing has to be restarted.

use std::{io, net::SocketAddr, path::PathBuf};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{fs, net::TcpStream};

use super::register_user::reachable;
use crate::{config::Config, sso::encoded};

/// Below which application services are.
const ENDPOINT: &str = "/_millrace/admin/v1/appservices";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Register the service that a file describes, or change it.
    Register(PathBuf),
    /// Remove a service that was registered so.
    Unregister(String),
    /// Tell how all are doing.
    List,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum AppserviceError {
    /// The configuration lacks something.
    #[error("{0}")]
    Config(&'static str),
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("the server does not run at {0}: start it with `millrace serve`")]
    NotRunning(SocketAddr),
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The connection broke, or what came is not what we asked for.
    #[error("the server did not answer as expected: {0}")]
    Answer(String),
}

/// Does it, and returns what to tell.
///
/// # Errors
/// A sentence that says what to do.
pub async fn run(
    config: &Config,
    action: &Action,
    access_token: &str,
) -> Result<String, AppserviceError> {
    let address = config.server.listen_on().next().map(reachable);
    let address = address.ok_or(AppserviceError::Config("address and port name nowhere"))?;
    let ask = async |method, path: &str, body: Option<Value>| {
        let answer = ask(address, (method, path), access_token, body).await;
        answer.map_err(|failure| failure.into_error(address))
    };
    match action {
        Action::Register(path) => {
            let text = fs::read_to_string(path).await;
            let text =
                text.map_err(|source| AppserviceError::File { path: path.clone(), source })?;
            let answer = ask(Method::POST, ENDPOINT, Some(json!({ "registration": text }))).await?;
            Ok(format!("registered {}, which is {}", answer["id"], answer["sender"]))
        }
        Action::Unregister(id) => {
            let path = format!("{ENDPOINT}/{}", encoded(id));
            ask(Method::DELETE, &path, None).await?;
            Ok(format!("removed {id}"))
        }
        Action::List => {
            let answer = ask(Method::GET, ENDPOINT, None).await?;
            let all = answer["appservices"].as_array().map_or(&[][..], Vec::as_slice);
            Ok(all.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn line(service: &Value) -> String {
    let text = |field: &str| service[field].as_str().unwrap_or("nowhere").to_owned();
    let state = match (service["failures"].as_u64(), service["waiting"].as_u64()) {
        (Some(0) | None, Some(0) | None) => "told everything".to_owned(),
        (Some(0) | None, Some(waiting)) => format!("{waiting} waiting"),
        (Some(failures), waiting) => {
            format!("not answering ({failures} tries), {} waiting", waiting.unwrap_or(0))
        }
    };
    format!(
        "{}\t{}\t{}\t{}\t{state}",
        text("id"),
        text("sender"),
        text("url"),
        text("registered_by")
    )
}

enum Failure {
    NotRunning,
    Said(AppserviceError),
}

impl Failure {
    fn into_error(self, address: SocketAddr) -> AppserviceError {
        match self {
            Self::NotRunning => AppserviceError::NotRunning(address),
            Self::Said(error) => error,
        }
    }

    fn odd(error: impl std::fmt::Display) -> Self {
        Self::Said(AppserviceError::Answer(error.to_string()))
    }
}

async fn ask(
    address: SocketAddr,
    (method, path): (Method, &str),
    access_token: &str,
    body: Option<Value>,
) -> Result<Value, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|_| Failure::NotRunning)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Failure::odd)?;
    let connection = tokio::spawn(connection);
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(Failure::odd)?;
    let response = sender.send_request(request).await.map_err(Failure::odd)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(Failure::odd)?.to_bytes();
    connection.abort();
    let answer: Value = serde_json::from_slice(&body).map_err(Failure::odd)?;
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let error = answer["error"].as_str().unwrap_or("no reason given").to_owned();
    Err(Failure::Said(AppserviceError::Refused(error)))
}
