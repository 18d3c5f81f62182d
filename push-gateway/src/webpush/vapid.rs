//! Tokens that tell push services who sends (RFC 8292), one for each service.

use std::num::NonZeroUsize;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use lru::LruCache;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    clock,
    jwt::EcKey,
    vendor::{Unauthorised, header_value},
};

/// How long a token is good, in seconds; services take a day at most.
const GOOD_S: u64 = 12 * 3600;
/// Used for half of that.
const USED_S: u64 = GOOD_S / 2;
/// Push services whose tokens are remembered.
const SERVICES_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("more than none");

/// Makes tokens.
pub(super) struct Vapid {
    key: EcKey,
    contact: String,
    tokens: Mutex<LruCache<String, (u64, HeaderValue)>>,
}

impl Vapid {
    pub(super) fn new(key: EcKey, contact: &str) -> Self {
        let contact = format!("mailto:{contact}");
        Self { key, contact, tokens: Mutex::new(LruCache::new(SERVICES_MAX)) }
    }

    /// The header for a push service, by its origin.
    pub(super) fn current(&self, origin: &str) -> Result<HeaderValue, Unauthorised> {
        let now = clock::now_s();
        let mut tokens = self.tokens.lock();
        if let Some((made, header)) = tokens.get(origin)
            && now < made + USED_S
        {
            return Ok(header.clone());
        }
        let claims = json!({ "aud": origin, "exp": now + GOOD_S, "sub": self.contact });
        let token = self.key.sign(None, &claims);
        let token = token.map_err(|error| Unauthorised::Later(error.to_string()))?;
        let public = URL_SAFE_NO_PAD.encode(self.key.public());
        let header = header_value(&format!("vapid t={token}, k={public}"))
            .ok_or_else(|| Unauthorised::Refused("the token is no header".to_owned()))?;
        tokens.put(origin.to_owned(), (now, header.clone()));
        Ok(header)
    }

    /// Makes a new one next time.
    pub(super) fn forget(&self, refused: &HeaderValue) {
        let mut tokens = self.tokens.lock();
        let origin = tokens.iter().find(|(_, (_, header))| header == refused);
        if let Some(origin) = origin.map(|(origin, _)| origin.clone()) {
            tokens.pop(&origin);
        }
    }
}
