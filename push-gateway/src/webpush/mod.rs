//! Web Push (RFC 8030) with VAPID (RFC 8292), for browsers and UnifiedPush.

mod encrypt;
mod payload;
mod vapid;

use std::net::IpAddr;

use async_trait::async_trait;
use base64::{
    Engine,
    alphabet::URL_SAFE as URL_SAFE_ALPHABET,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD,
    },
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use ring::digest;
use serde_json::Value;
use url::{Host, Url};

use crate::{
    config::{App, Common, SentPriority, WebPushOptions},
    glob,
    internet::{AddressRange, may_connect},
    jwt::{EcKey, KeyError},
    notification::{Device, Notification, Priority},
    vendor::{Answer, Pause, Push, Unauthorised, Unsent, Vendor, Verdict},
};

/// Keys of browsers are base64 for addresses, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longest endpoint, in bytes.
const ENDPOINT_BYTES_MAX: usize = 2048;

/// One app in browsers.
pub struct WebPush {
    vapid: vapid::Vapid,
    allowed_addresses: Vec<AddressRange>,
    options: WebPushOptions,
    common: Common,
}

impl WebPush {
    /// Reads the key of VAPID.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(
        options: &WebPushOptions,
        app: &App,
        allowed_addresses: &[AddressRange],
    ) -> Result<Self, KeyError> {
        let key = KeyError::in_file(&options.vapid_private_key, EcKey::from_pem)?;
        Ok(Self {
            vapid: vapid::Vapid::new(key, &options.vapid_contact_email),
            allowed_addresses: allowed_addresses.to_vec(),
            options: options.clone(),
            common: app.common.clone(),
        })
    }

    /// Where a device is, if we go there.
    fn endpoint(&self, device: &Device) -> Result<Url, Unsent> {
        let invalid = |why: &str| Unsent::InvalidKey(why.to_owned());
        let endpoint = text(device, "endpoint").ok_or_else(|| invalid("it has no endpoint"))?;
        let url = Url::parse(endpoint).map_err(|_| invalid("its endpoint is no address"))?;
        if endpoint.len() > ENDPOINT_BYTES_MAX
            || url.scheme() != "https"
            || !url.username().is_empty()
        {
            return Err(invalid("its endpoint is no address with https"));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if address.is_some_and(|address| !may_connect(address, &self.allowed_addresses)) {
            return Err(invalid("its endpoint is not public"));
        }
        let host = url.host_str().unwrap_or_default();
        let allowed = self.options.allowed_endpoints.as_ref();
        if allowed
            .is_some_and(|allowed| !allowed.iter().any(|pattern| glob::matches(pattern, host)))
        {
            return Err(invalid("its endpoint is not among allowed_endpoints"));
        }
        Ok(url)
    }

    fn headers(&self, notification: &Notification, device: &Device) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert("ttl", self.options.ttl.into());
        let urgency = match (self.common.priority, notification.prio) {
            (SentPriority::High, _) | (SentPriority::Given, Priority::High) => "high",
            (SentPriority::Low, _) | (SentPriority::Given, Priority::Low) => "low",
        };
        headers.insert("urgency", HeaderValue::from_static(urgency));
        let last_only = device.data.get("only_last_per_room") == Some(&Value::Bool(true));
        if let Some(room) = notification.room_id.as_ref().filter(|_| last_only) {
            // 32 characters at most: what is waiting for the room gives way to this.
            let hash = digest::digest(&digest::SHA256, room.as_bytes());
            let topic = URL_SAFE_NO_PAD.encode(&hash.as_ref()[..24]);
            headers.insert("topic", HeaderValue::from_str(&topic).expect("base64 is a value"));
        }
        headers
    }
}

fn text<'a>(device: &'a Device, key: &str) -> Option<&'a str> {
    device.data.get(key).and_then(Value::as_str)
}

#[async_trait]
impl Vendor for WebPush {
    fn name(&self) -> &'static str {
        "webpush"
    }

    fn push(&self, notification: &Notification, device: &Device) -> Result<Push, Unsent> {
        let url = self.endpoint(device)?;
        let invalid = |why: &str| Unsent::InvalidKey(why.to_owned());
        let auth = text(device, "auth").and_then(|auth| BASE64.decode(auth).ok());
        let auth: [u8; 16] = auth
            .and_then(|auth| auth.try_into().ok())
            .ok_or_else(|| invalid("it has no secret of 16 bytes in auth"))?;
        let public = BASE64.decode(&device.pushkey).unwrap_or_default();
        let plain = payload::build(notification, device, &self.common)?;
        let body = encrypt::aes128gcm(&plain, &public, &auth)
            .map_err(|encrypt::InvalidKey| invalid("it is no point on the curve P-256"))?;
        let headers = self.headers(notification, device);
        Ok(Push { url, headers, body: Bytes::from(body), pushkey_ts: device.pushkey_ts })
    }

    async fn authorization(&self, push: &Push) -> Result<Option<HeaderValue>, Unauthorised> {
        self.vapid.current(&push.url.origin().ascii_serialization()).map(Some)
    }

    fn forget(&self, refused: &HeaderValue) {
        self.vapid.forget(refused);
    }

    fn judge(&self, _: &Push, answer: &Answer) -> Verdict {
        let reason = answer.text();
        match answer.status.as_u16() {
            200..=299 => Verdict::Delivered,
            404 | 410 => Verdict::Rejected(reason),
            401 | 403 => Verdict::Refused(reason),
            408 | 429 | 500.. => answer.later(Pause::Device, reason),
            _ => Verdict::Dropped(reason),
        }
    }
}

#[cfg(test)]
mod tests;
