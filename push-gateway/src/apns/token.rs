//! The token that proves to Apple who we are: the same for all requests of twenty to sixty minutes.

use std::path::Path;

use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    clock,
    jwt::{EcKey, KeyError},
    vendor::{Unauthorised, header_value},
};

/// Apple refuses tokens older than an hour, and new ones more often than each twenty minutes.
const RENEWED_AFTER_S: u64 = 45 * 60;
const RENEWED_NOT_BEFORE_S: u64 = 20 * 60;

/// Makes tokens.
pub struct TokenSigner {
    key: EcKey,
    key_id: String,
    team_id: String,
    current: Mutex<Option<Token>>,
}

struct Token {
    header: HeaderValue,
    made_s: u64,
    refused: bool,
}

impl TokenSigner {
    /// Reads a key (.p8).
    ///
    /// # Errors
    /// Where there is none.
    pub fn from_file(file: &Path, key_id: &str, team_id: &str) -> Result<Self, KeyError> {
        let key = KeyError::in_file(file, EcKey::from_pem)?;
        let (key_id, team_id) = (key_id.to_owned(), team_id.to_owned());
        Ok(Self { key, key_id, team_id, current: Mutex::new(None) })
    }

    /// The token to send now.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn current(&self) -> Result<HeaderValue, Unauthorised> {
        let now = clock::now_s();
        let mut current = self.current.lock();
        if let Some(token) = &*current {
            let lives_s = if token.refused { RENEWED_NOT_BEFORE_S } else { RENEWED_AFTER_S };
            if now < token.made_s + lives_s {
                return Ok(token.header.clone());
            }
        }
        let claims = json!({ "iss": self.team_id, "iat": now });
        let token = self.key.sign(Some(&self.key_id), &claims);
        let token = token.map_err(|error| Unauthorised::Later(error.to_string()))?;
        let header = header_value(&format!("bearer {token}")).ok_or_else(|| {
            Unauthorised::Refused("key_id: has characters that it cannot".to_owned())
        })?;
        *current = Some(Token { header: header.clone(), made_s: now, refused: false });
        Ok(header)
    }

    /// Makes a new one as soon as Apple takes one.
    pub fn forget(&self, refused: &HeaderValue) {
        let mut current = self.current.lock();
        if let Some(token) = current.as_mut().filter(|token| token.header == *refused) {
            token.refused = true;
        }
    }
}
