//! `millrace register-user`: an account on the running server, through the shared-secret endpoint.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha1::Sha1;
use tokio::net::TcpStream;

use crate::config::Config;

/// The endpoint that tools use to create accounts (not part of the Matrix specification).
const ENDPOINT: &str = "/_synapse/admin/v1/register";

/// The account to create.
#[derive(Clone)]
pub struct NewUser {
    /// The part of the user ID before the colon.
    pub username: String,
    /// The password.
    pub password: String,
    /// Whether the account is an administrator's.
    pub admin: Admin,
}

/// Whether an account is an administrator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admin {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Why there is no new account.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The configuration has no shared secret.
    #[error("registration_shared_secret is not set: set it, and restart the server")]
    NoSecret,
    /// Nobody listens.
    #[error("the server does not run at {0}: start it with `millrace serve`")]
    NotRunning(SocketAddr),
    /// The configuration names no address.
    #[error("address and port name nowhere to connect to")]
    NoAddress,
    /// The server said no.
    #[error("the server refused: {0}")]
    Refused(String),
    /// What answered is not what we asked for.
    #[error("the server did not answer as expected: {0}")]
    Answer(String),
}

/// Creates the account and returns its user ID.
///
/// # Errors
/// A sentence that says what to do.
pub async fn run(config: &Config, user: &NewUser) -> Result<String, RegisterError> {
    let secret = config.registration.registration_shared_secret.as_deref();
    let secret = secret.ok_or(RegisterError::NoSecret)?;
    let address = config.server.listen_on().next().ok_or(RegisterError::NoAddress)?;
    let address = reachable(address);
    let nonce = call(address, Request::get(ENDPOINT), Bytes::new()).await?;
    let nonce = text(&nonce, "nonce")?;
    let body = json!({
        "nonce": nonce,
        "username": user.username,
        "password": user.password,
        "admin": user.admin == Admin::Yes,
        "mac": proof(secret, &nonce, user),
    });
    let body = Bytes::from(body.to_string());
    text(&call(address, Request::post(ENDPOINT), body).await?, "user_id")
}

/// Asks the person at the terminal for a line.
///
/// # Errors
/// If there is no terminal to read from.
pub fn ask(question: &str) -> io::Result<String> {
    io::stdout().write_all(question.as_bytes())?;
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Asks the person at the terminal for a password, unseen, until they enter the same one twice.
///
/// # Errors
/// If there is no terminal to read from.
pub fn ask_new_password() -> io::Result<String> {
    loop {
        let password = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Password again: ")? == password {
            return Ok(password);
        }
        writeln!(io::stdout(), "These are not the same.")?;
    }
}

/// The proof that the caller knows the secret: HMAC-SHA1 over the fields, in hexadecimal.
fn proof(secret: &str, nonce: &str, user: &NewUser) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    let admin = if user.admin == Admin::Yes { "admin" } else { "notadmin" };
    mac.update([nonce, &user.username, &user.password, admin].join("\0").as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("strings take everything");
        hex
    })
}

/// Where to connect to for what listens on all addresses.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

async fn call(
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
) -> Result<Value, RegisterError> {
    let odd = |error: &dyn std::error::Error| RegisterError::Answer(error.to_string());
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|_| RegisterError::NotRunning(address))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| odd(&error))?;
    let connection = tokio::spawn(connection);
    let request = request
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| odd(&error))?;
    let response = sender.send_request(request).await.map_err(|error| odd(&error))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| odd(&error))?.to_bytes();
    connection.abort();
    let answer: Value = serde_json::from_slice(&body).map_err(|error| odd(&error))?;
    if status == StatusCode::OK {
        Ok(answer)
    } else {
        Err(RegisterError::Refused(text(&answer, "error")?))
    }
}

fn text(answer: &Value, field: &str) -> Result<String, RegisterError> {
    let missing = || RegisterError::Answer(format!("{field} is missing"));
    answer[field].as_str().map(str::to_owned).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};

    use super::*;
    use crate::{
        serve::{self, Port},
        shutdown,
    };

    fn user() -> NewUser {
        NewUser { username: "pepper".into(), password: "roni".into(), admin: Admin::Yes }
    }

    fn config(address: SocketAddr, secret: Option<&str>) -> Config {
        let mut config = Config::default();
        config.server.address = crate::config::server::OneOrMany::One(address.ip());
        config.server.port = crate::config::server::OneOrMany::One(address.port());
        config.registration.registration_shared_secret = secret.map(str::to_owned);
        config
    }

    /// A server of one endpoint, which tells what it was sent.
    async fn server() -> SocketAddr {
        let create = async |Json(body): Json<Value>| {
            if body["username"] == "taken" {
                let error = json!({ "errcode": "M_USER_IN_USE", "error": "User ID already taken" });
                return (StatusCode::BAD_REQUEST, Json(error));
            }
            let user_id = format!("{}+{}", body["mac"].as_str().unwrap(), body["admin"]);
            (StatusCode::OK, Json(json!({ "user_id": user_id })))
        };
        let nonce = async || Json(json!({ "nonce": "thisisanonce" }));
        let router = Router::new().route(ENDPOINT, get(nonce).post(create));
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let never = shutdown::Shutdown::default();
        let port = Port { listener, router, tls: None };
        tokio::spawn(serve::serve(vec![port], never, 10));
        address
    }

    #[tokio::test]
    async fn the_proof_is_the_one_that_synapse_documents() {
        let config = config(server().await, Some("shared_secret"));
        let answer = run(&config, &user()).await.unwrap();
        // Computed with Python's hmac module over "thisisanonce\0pepper\0roni\0admin".
        assert_eq!(answer, "594db9d5565a94ddcd40ae19e69a215ec1cc4a94+true");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_server_s_words() {
        let config = config(server().await, Some("shared_secret"));
        let taken = NewUser { username: "taken".into(), ..user() };
        let error = run(&config, &taken).await.unwrap_err().to_string();
        assert_eq!(error, "the server refused: User ID already taken");
    }

    #[tokio::test]
    async fn a_server_that_does_not_run_or_has_no_secret_is_a_sentence() {
        let listener = serve::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = run(&config(address, Some("s")), &user()).await.unwrap_err().to_string();
        assert!(error.contains("does not run"), "{error}");
        let error = run(&config(address, None), &user()).await.unwrap_err().to_string();
        assert!(error.contains("registration_shared_secret is not set"), "{error}");
    }
}
