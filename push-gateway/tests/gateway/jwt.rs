//! Reading tokens, as vendors do.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

/// Header and claims of a token that was signed by the key; `None` where it was not.
pub fn read(
    token: &str,
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
) -> Option<(Value, Value)> {
    let (content, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    UnparsedPublicKey::new(algorithm, public).verify(content.as_bytes(), &signature).ok()?;
    let (header, claims) = content.split_once('.')?;
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    Some((part(header)?, part(claims)?))
}

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "tokens state the real time")]
pub fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
