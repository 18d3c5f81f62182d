//! What all vendors have in common: a request for a device, proof of who we are, and an answer that
//! means something.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;
use url::Url;

use crate::notification::{Device, Notification};

/// A request for one device, complete but for the proof of who we are. Always `POST`.
#[derive(Debug, Clone)]
pub struct Push {
    /// Where it goes.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When the app last confirmed the device's key, in seconds.
    pub pushkey_ts: Option<u64>,
}

/// Why there is no request for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// The notification has nothing that this app shows.
    Nothing,
    /// The key cannot be one of the vendor's.
    InvalidKey(String),
    /// The content cannot be sent to this vendor, however often it is tried.
    Undeliverable(String),
}

/// What a vendor answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, its beginning if it is long.
    pub body: Bytes,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The vendor has taken it.
    Delivered,
    /// The key is not valid and will not be again.
    Rejected(String),
    /// This notification is not taken, however often it is tried; the key may be good.
    Dropped(String),
    /// The vendor does not take our proof of who we are: make a new one.
    Expired(String),
    /// The vendor refuses the gateway until an administrator does something.
    Refused(String),
    /// To be tried again.
    Later {
        /// What the vendor said, if it said when.
        after: Option<Duration>,
        /// For whom.
        pause: Pause,
        /// In the vendor's words.
        reason: String,
    },
}

/// Who is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// This device only.
    Device,
    /// All devices of the app.
    App,
}

/// Why there is no proof of who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unauthorised {
    /// For now.
    Later(String),
    /// Until an administrator does something.
    Refused(String),
}

/// One way to devices.
#[async_trait]
pub trait Vendor: Send + Sync {
    /// Its name in the log and in metrics.
    fn name(&self) -> &'static str;

    /// The request for a device.
    ///
    /// # Errors
    /// Where there is nothing to send or the device cannot be one.
    fn push(&self, notification: &Notification, device: &Device) -> Result<Push, Unsent>;

    /// The header that proves who we are; none where the connection does.
    ///
    /// # Errors
    /// Where the proof cannot be had.
    async fn authorization(&self, push: &Push) -> Result<Option<HeaderValue>, Unauthorised>;

    /// Forgets a proof that was not taken.
    fn forget(&self, refused: &HeaderValue);

    /// What an answer means.
    fn judge(&self, push: &Push, answer: &Answer) -> Verdict;
}

impl Answer {
    /// The body as JSON; `null` where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The beginning of the body, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        format!("{} {}", self.status.as_u16(), text.trim()).trim().to_owned()
    }

    /// `Retry-After`: seconds, or a date.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the date is one of the real time")]
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(std::time::SystemTime::now()).unwrap_or_default())
    }

    /// The verdict of a vendor that cannot take it now.
    #[must_use]
    pub fn later(&self, pause: Pause, reason: String) -> Verdict {
        Verdict::Later { after: self.retry_after(), pause, reason }
    }
}

/// A header's value of text that may not be one.
#[must_use]
pub fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
