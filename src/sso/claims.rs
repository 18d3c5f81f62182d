//! What has to be true of an ID token beside its signature (OpenID Connect Core 1.0, 3.1.3.7).

use serde_json::{Map, Value};

/// How far the clocks of a provider and of ours may differ, in seconds.
const SKEW_S: u64 = 120;

/// What is expected of an ID token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    pub now_s: u64,
}

/// An ID token is not for us, not for this sign-on, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ID token's {0} is not what it must be")]
pub struct BadClaim(pub &'static str);

/// The subject of an ID token that is what it must be.
pub(super) fn subject(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
) -> Result<String, BadClaim> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(BadClaim("iss"));
    }
    let audience: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !audience.contains(&expected.client_id) {
        return Err(BadClaim("aud"));
    }
    let party = text("azp");
    if party.map_or(audience.len() > 1, |party| party != expected.client_id) {
        return Err(BadClaim("azp"));
    }
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from 2^53")]
    let now = |skew: i64| (expected.now_s as f64) + (skew as f64);
    let skew = SKEW_S.cast_signed();
    if time("exp").is_none_or(|end| end <= now(-skew)) {
        return Err(BadClaim("exp"));
    }
    if time("iat").is_some_and(|made| made > now(skew)) {
        return Err(BadClaim("iat"));
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(BadClaim("nonce"));
    }
    let subject = text("sub").filter(|subject| !subject.is_empty() && subject.len() <= 255);
    subject.map(ToOwned::to_owned).ok_or(BadClaim("sub"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXPECTED: Expected<'_> =
        Expected { issuer: "https://id", client_id: "us", nonce: "n", now_s: 1000 };

    fn check(change: &Value) -> Result<String, BadClaim> {
        let mut claims = json!({
            "iss": "https://id", "aud": "us", "exp": 1100, "iat": 990, "nonce": "n", "sub": "s",
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        subject(claims.as_object().unwrap(), &EXPECTED)
    }

    #[test]
    fn a_token_is_for_us_for_this_sign_on_and_for_now() {
        assert_eq!(check(&json!({})), Ok("s".to_owned()));
        assert_eq!(check(&json!({ "aud": ["us", "they"], "azp": "us" })), Ok("s".to_owned()));
        for (name, change) in [
            ("iss", json!({ "iss": "https://id/" })),
            ("aud", json!({ "aud": ["they"] })),
            ("aud", json!({ "aud": null })),
            ("azp", json!({ "aud": ["us", "they"] })),
            ("azp", json!({ "azp": "they" })),
            ("exp", json!({ "exp": 880 })),
            ("exp", json!({ "exp": "9999" })),
            ("iat", json!({ "iat": 1121 })),
            ("nonce", json!({ "nonce": "m" })),
            ("nonce", json!({ "nonce": null })),
            ("sub", json!({ "sub": "" })),
        ] {
            assert_eq!(check(&change), Err(BadClaim(name)), "{change}");
        }
    }
}
