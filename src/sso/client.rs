//! Requests to services that the administrator named: identity providers, captchas.

use std::time::Duration;

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde::de::DeserializeOwned;

/// How long one exchange may take: somebody waits before a browser.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 512 * 1024;

/// Asks services that the administrator named, wherever they are.
#[derive(Clone)]
pub struct WebClient(reqwest::Client);

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No client can be made.
    #[error("requests cannot be made: {0}")]
    Setup(String),
    /// It cannot be reached.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there is no answer.
        reason: String,
    },
    /// It refused.
    #[error("{url} answered {status}: {body}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of what it said.
        body: String,
    },
    /// Its answer is not of the right form.
    #[error("{url} sent an answer that cannot be read: {reason}")]
    Unreadable {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl WebClient {
    /// A client that trusts the usual authorities, and these.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, ProviderError> {
        let builder = client_builder(authorities)?.timeout(TIMEOUT);
        let client = builder.redirect(reqwest::redirect::Policy::none()).build();
        client.map(Self).map_err(|error| ProviderError::Setup(error.to_string()))
    }

    /// A JSON document.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        bearer: Option<&str>,
    ) -> Result<T, ProviderError> {
        let mut request = self.0.get(url).header(http::header::ACCEPT, "application/json");
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        read(url, request).await
    }

    /// What a form is answered with. `login` is a name and a password to log in with.
    ///
    /// # Errors
    /// Where the service refuses.
    pub async fn post_form<T: DeserializeOwned>(
        &self,
        url: &str,
        login: Option<(&str, &str)>,
        form: &[(&str, &str)],
    ) -> Result<T, ProviderError> {
        let mut request = self
            .0
            .post(url)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form_encoded(form));
        if let Some((name, password)) = login {
            // RFC 6749, 2.3.1: both are written as in a form first.
            request = request.basic_auth(encoded(name), Some(encoded(password)));
        }
        read(url, request).await
    }
}

/// A client that trusts the usual authorities, and these: for services that the administrator named.
///
/// # Errors
/// Where TLS cannot be set up.
pub(crate) fn client_builder(
    authorities: Vec<CertificateDer<'static>>,
) -> Result<reqwest::ClientBuilder, ProviderError> {
    let setup = |error: &dyn std::error::Error| ProviderError::Setup(error.to_string());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for authority in authorities {
        roots.add(authority).map_err(|error| setup(&error))?;
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("Millrace/", env!("CARGO_PKG_VERSION"))))
}

async fn read<T: DeserializeOwned>(
    url: &str,
    request: reqwest::RequestBuilder,
) -> Result<T, ProviderError> {
    let unreachable = |error: reqwest::Error| ProviderError::Unreachable {
        url: url.to_owned(),
        reason: error.to_string(),
    };
    let unreadable = |reason: String| ProviderError::Unreadable { url: url.to_owned(), reason };
    let mut answer = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(unreadable(format!("it is larger than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    let status = answer.status();
    if !status.is_success() {
        let body = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(ProviderError::Refused { url: url.to_owned(), status: status.as_u16(), body });
    }
    serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))
}

/// Fields as a query or a form has them.
pub(super) fn form_encoded(fields: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| format!("{}={}", encoded(name), encoded(value));
    fields.iter().map(field).collect::<Vec<_>>().join("&")
}

/// A text within a query or a form.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}
