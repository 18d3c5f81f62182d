//! Apple's push notification service: HTTP/2, by token or by certificate.

mod payload;
mod token;

use async_trait::async_trait;
use base64::{
    Engine,
    alphabet::STANDARD as STANDARD_ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::{
    clock,
    config::{ApnsOptions, App, Common, Platform, PushType, SentPriority},
    jwt::KeyError,
    notification::{Device, Notification, Priority},
    vendor::{Answer, Pause, Push, Unauthorised, Unsent, Vendor, Verdict, header_value},
};

pub use token::TokenSigner;

/// Push keys are base64, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Device tokens are of variable length; longer ones than this are none, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// One app of Apple's.
pub struct Apns {
    base: Url,
    signer: Option<TokenSigner>,
    options: ApnsOptions,
    common: Common,
}

impl Apns {
    /// Reads the key for tokens, if the app has one.
    ///
    /// # Errors
    /// Where the key or an address cannot be used.
    pub fn new(options: &ApnsOptions, app: &App) -> Result<Self, KeyError> {
        let base = options.url.as_deref().unwrap_or(match options.platform {
            Platform::Production => "https://api.push.apple.com",
            Platform::Sandbox => "https://api.sandbox.push.apple.com",
        });
        let base = Url::parse(base)
            .map_err(|error| KeyError::new(format!("url: {base} is no address: {error}")))?;
        let signer = match (&options.keyfile, &options.key_id, &options.team_id) {
            (Some(file), Some(key_id), Some(team_id)) => {
                Some(TokenSigner::from_file(file, key_id, team_id)?)
            }
            _ => None,
        };
        Ok(Self { base, signer, options: options.clone(), common: app.common.clone() })
    }

    fn token(&self, device: &Device) -> Result<String, Unsent> {
        let invalid = |why: &str| Unsent::InvalidKey(why.to_owned());
        if !self.options.convert_device_token_to_hex {
            let hex = device.pushkey.bytes().all(|byte| byte.is_ascii_hexdigit());
            let fits = hex && (1..=2 * TOKEN_BYTES_MAX).contains(&device.pushkey.len());
            return if fits {
                Ok(device.pushkey.clone())
            } else {
                Err(invalid("it is not hexadecimal"))
            };
        }
        let bytes = BASE64.decode(&device.pushkey).map_err(|_| invalid("it is not base64"))?;
        if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX {
            return Err(invalid("it has not the length of a device token"));
        }
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn priority(&self, given: Priority) -> &'static str {
        match (self.options.push_type, self.common.priority, given) {
            // Apple refuses any other priority for these.
            (PushType::Background, _, _) => "5",
            (_, SentPriority::High, _) | (_, SentPriority::Given, Priority::High) => "10",
            (_, SentPriority::Low, _) | (_, SentPriority::Given, Priority::Low) => "5",
        }
    }

    fn headers(&self, notification: &Notification, device: &Device) -> Result<HeaderMap, Unsent> {
        let mut headers = HeaderMap::new();
        let (push_type, suffix) = match self.options.push_type {
            PushType::Alert => ("alert", ""),
            PushType::Background => ("background", ""),
            PushType::Voip => ("voip", ".voip"),
        };
        headers.insert("apns-push-type", HeaderValue::from_static(push_type));
        headers.insert("apns-priority", HeaderValue::from_static(self.priority(notification.prio)));
        let topic = self.options.topic.as_ref().unwrap_or(&device.app_id);
        let suffix = if topic.ends_with(suffix) { "" } else { suffix };
        let topic = header_value(&format!("{topic}{suffix}"))
            .ok_or_else(|| Unsent::InvalidKey("its app ID is no topic".to_owned()))?;
        headers.insert("apns-topic", topic);
        if let Some(ttl) = self.options.ttl {
            headers.insert("apns-expiration", (clock::now_s() + ttl).into());
        }
        Ok(headers)
    }
}

#[async_trait]
impl Vendor for Apns {
    fn name(&self) -> &'static str {
        "apns"
    }

    fn push(&self, notification: &Notification, device: &Device) -> Result<Push, Unsent> {
        let token = self.token(device)?;
        let body = payload::build(notification, device, &self.options, &self.common)?;
        let mut url = self.base.clone();
        url.set_path(&format!("/3/device/{token}"));
        Ok(Push {
            url,
            headers: self.headers(notification, device)?,
            body: Bytes::from(body),
            pushkey_ts: device.pushkey_ts,
        })
    }

    async fn authorization(&self, _: &Push) -> Result<Option<HeaderValue>, Unauthorised> {
        self.signer.as_ref().map(TokenSigner::current).transpose()
    }

    fn forget(&self, refused: &HeaderValue) {
        if let Some(signer) = &self.signer {
            signer.forget(refused);
        }
    }

    fn judge(&self, push: &Push, answer: &Answer) -> Verdict {
        if answer.status.is_success() {
            return Verdict::Delivered;
        }
        let said = answer.json();
        let word = said.get("reason").and_then(Value::as_str).unwrap_or_default();
        let reason = if word.is_empty() { answer.text() } else { word.to_owned() };
        match (answer.status.as_u16(), word) {
            (400, "BadDeviceToken" | "DeviceTokenNotForTopic" | "MissingDeviceToken") => {
                Verdict::Rejected(reason)
            }
            (410, _) => {
                // Since when the token is dead, in milliseconds: one confirmed later lives.
                let since = said.get("timestamp").and_then(Value::as_u64).unwrap_or(u64::MAX);
                let confirmed = push.pushkey_ts.unwrap_or(0).saturating_mul(1000);
                if confirmed > since { Verdict::Dropped(reason) } else { Verdict::Rejected(reason) }
            }
            (403, "ExpiredProviderToken") => Verdict::Expired(reason),
            (400, "BadTopic" | "MissingTopic" | "TopicDisallowed" | "BadCertificate")
            | (403, _) => Verdict::Refused(reason),
            (429, "TooManyProviderTokenUpdates") => answer.later(Pause::App, reason),
            (429, _) => answer.later(Pause::Device, reason),
            (500.., _) => answer.later(Pause::App, reason),
            _ => Verdict::Dropped(reason),
        }
    }
}

#[cfg(test)]
mod tests;
