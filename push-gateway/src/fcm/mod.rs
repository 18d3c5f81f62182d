//! Google's Firebase Cloud Messaging, HTTP v1.

mod oauth;
mod payload;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use url::Url;

use crate::{
    config::{App, Common, FcmOptions},
    jwt::KeyError,
    notification::{Device, Notification},
    vendor::{Answer, Pause, Push, Unauthorised, Unsent, Vendor, Verdict},
};

pub use oauth::{ServiceAccount, Tokens};

/// Longest registration token that can be one, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// One app of Google's.
pub struct Fcm {
    url: Url,
    tokens: Tokens,
    options: FcmOptions,
    common: Common,
}

impl Fcm {
    /// Reads the service account. `client` asks for tokens.
    ///
    /// # Errors
    /// Where the account or an address cannot be used.
    pub fn new(options: &FcmOptions, app: &App, client: reqwest::Client) -> Result<Self, KeyError> {
        let account = KeyError::in_file(&options.service_account_file, ServiceAccount::from_json)?;
        let project = options.project_id.as_ref().or(account.project_id.as_ref());
        let project = project.ok_or_else(|| {
            KeyError::new("project_id: is needed, the service account names none".to_owned())
        })?;
        let base = options.url.as_deref().unwrap_or("https://fcm.googleapis.com");
        let url = Url::parse(base)
            .and_then(|base| base.join(&format!("/v1/projects/{project}/messages:send")))
            .map_err(|error| KeyError::new(format!("url: {base} is no address: {error}")))?;
        let tokens = Tokens::new(account, client);
        Ok(Self { url, tokens, options: options.clone(), common: app.common.clone() })
    }
}

#[async_trait]
impl Vendor for Fcm {
    fn name(&self) -> &'static str {
        "fcm"
    }

    fn push(&self, notification: &Notification, device: &Device) -> Result<Push, Unsent> {
        if device.pushkey.is_empty() || device.pushkey.len() > TOKEN_BYTES_MAX {
            return Err(Unsent::InvalidKey("it has not the length of a token".to_owned()));
        }
        let body = payload::build(notification, device, &self.options.fcm_options, &self.common)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Push {
            url: self.url.clone(),
            headers,
            body: Bytes::from(body),
            pushkey_ts: device.pushkey_ts,
        })
    }

    async fn authorization(&self, _: &Push) -> Result<Option<HeaderValue>, Unauthorised> {
        self.tokens.current().await.map(Some)
    }

    fn forget(&self, refused: &HeaderValue) {
        self.tokens.forget(refused);
    }

    fn judge(&self, _: &Push, answer: &Answer) -> Verdict {
        if answer.status.is_success() {
            return Verdict::Delivered;
        }
        let said = answer.json();
        let error = &said["error"];
        let details = error["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        let code = details.iter().find_map(|detail| detail["errorCode"].as_str());
        let word = code.or(error["status"].as_str()).unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        let reason = if word.is_empty() { answer.text() } else { format!("{word}: {message}") };
        match (answer.status.as_u16(), word) {
            (404, "UNREGISTERED") | (403, "SENDER_ID_MISMATCH") => Verdict::Rejected(reason),
            (400, "INVALID_ARGUMENT") if is_about_the_token(details, message) => {
                Verdict::Rejected(reason)
            }
            (401, "THIRD_PARTY_AUTH_ERROR") | (403 | 404, _) => Verdict::Refused(reason),
            (401, _) => Verdict::Expired(reason),
            (429, _) => match answer.later(Pause::App, reason) {
                // Without a word about when, Google wants a minute.
                Verdict::Later { after: None, pause, reason } => {
                    let after = Some(std::time::Duration::from_mins(1));
                    Verdict::Later { after, pause, reason }
                }
                verdict => verdict,
            },
            (500.., _) => answer.later(Pause::App, reason),
            _ => Verdict::Dropped(reason),
        }
    }
}

/// An argument that is not valid may be the content, which says nothing against the key.
fn is_about_the_token(details: &[Value], message: &str) -> bool {
    let mut violations = details
        .iter()
        .filter_map(|detail| detail["fieldViolations"].as_array())
        .flatten()
        .filter_map(|violation| violation["field"].as_str())
        .peekable();
    if violations.peek().is_some() {
        return violations.any(|field| field == "message.token");
    }
    message.contains("registration token is not a valid")
}

#[cfg(test)]
mod tests;
