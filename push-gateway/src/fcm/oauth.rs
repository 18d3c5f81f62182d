//! Access tokens of a Google service account (RFC 7523).

use std::time::Duration;

use http::{HeaderValue, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    clock,
    jwt::{KeyError, RsaKey},
    vendor::{Unauthorised, header_value},
};

/// What the token allows.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// How long the proof for the token's server is good, in seconds: the most that Google takes.
const ASSERTION_S: u64 = 3600;
/// A token is renewed this long before its end; if that fails, it is used until then.
const RENEWED_BEFORE_END: Duration = Duration::from_mins(5);
/// After a failure, the next attempt is not made before this time has passed.
const NOT_AGAIN_WITHIN: Duration = Duration::from_secs(1);

/// The key of a service account.
pub struct ServiceAccount {
    /// The project that it belongs to.
    pub project_id: Option<String>,
    client_email: String,
    token_uri: String,
    key_id: Option<String>,
    key: RsaKey,
}

#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    project_id: Option<String>,
    #[serde(default = "google")]
    token_uri: String,
}

fn google() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

struct Token {
    header: HeaderValue,
    until: Instant,
}

/// The access token of an account, asked for when it is needed.
pub struct Tokens {
    account: ServiceAccount,
    client: reqwest::Client,
    current: Mutex<Option<Token>>,
    /// Whoever holds it asks for a token. Inside: when that failed last, and how.
    asking: tokio::sync::Mutex<Option<(Instant, Unauthorised)>>,
}

impl ServiceAccount {
    /// Reads the file that Google hands out.
    ///
    /// # Errors
    /// Where something is missing in it.
    pub fn from_json(content: &[u8]) -> Result<Self, KeyError> {
        let file: AccountFile = serde_json::from_slice(content)
            .map_err(|error| KeyError::new(format!("is no key of a service account: {error}")))?;
        Ok(Self {
            key: RsaKey::from_pem(file.private_key.as_bytes())?,
            project_id: file.project_id,
            client_email: file.client_email,
            token_uri: file.token_uri,
            key_id: file.private_key_id,
        })
    }
}

impl Tokens {
    pub(super) fn new(account: ServiceAccount, client: reqwest::Client) -> Self {
        let asking = tokio::sync::Mutex::new(None);
        Self { account, client, current: Mutex::new(None), asking }
    }

    /// The header with a token that is good for now.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn current(&self) -> Result<HeaderValue, Unauthorised> {
        if let Some(header) = self.good_for(RENEWED_BEFORE_END) {
            return Ok(header);
        }
        let mut asking = self.asking.lock().await;
        if let Some(header) = self.good_for(RENEWED_BEFORE_END) {
            return Ok(header); // who held the lock before has got it
        }
        let asked = match &*asking {
            Some((at, failure)) if at.elapsed() < NOT_AGAIN_WITHIN => Err(failure.clone()),
            _ => self.ask().await.inspect_err(|failure| {
                *asking = Some((Instant::now(), failure.clone()));
            }),
        };
        match (asked, self.good_for(Duration::ZERO)) {
            (Ok(token), _) => {
                let header = token.header.clone();
                *self.current.lock() = Some(token);
                Ok(header)
            }
            (Err(_), Some(old)) => Ok(old),
            (Err(failure), None) => Err(failure),
        }
    }

    /// Asks for a new one next time.
    pub fn forget(&self, refused: &HeaderValue) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|token| token.header == *refused) {
            *current = None;
        }
    }

    fn good_for(&self, longer_than: Duration) -> Option<HeaderValue> {
        let current = self.current.lock();
        let good = current.as_ref().filter(|token| token.until > Instant::now() + longer_than);
        good.map(|token| token.header.clone())
    }

    async fn ask(&self) -> Result<Token, Unauthorised> {
        let account = &self.account;
        let now = clock::now_s();
        let claims = json!({
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + ASSERTION_S,
        });
        let assertion = account.key.sign(account.key_id.as_deref(), &claims);
        let assertion = assertion.map_err(|error| Unauthorised::Later(error.to_string()))?;
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let later = |error: reqwest::Error| {
            Unauthorised::Later(format!("{} did not answer: {error}", account.token_uri))
        };
        let answer = self
            .client
            .post(&account.token_uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .map_err(later)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(later)?;
        let said = || {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            format!("{} answered {status}: {text}", account.token_uri)
        };
        if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(Unauthorised::Later(said()));
        }
        if !status.is_success() {
            return Err(Unauthorised::Refused(said()));
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| Unauthorised::Later(said()))?;
        let header = header_value(&format!("Bearer {}", answer.access_token))
            .ok_or_else(|| Unauthorised::Later(said()))?;
        Ok(Token { header, until: Instant::now() + Duration::from_secs(answer.expires_in) })
    }
}
