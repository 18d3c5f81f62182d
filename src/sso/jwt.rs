//! Signatures of ID tokens (RFC 7515, RFC 7517, RFC 7518).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is not of the form of a signed token.
    #[error("the ID token is malformed")]
    Malformed,
    /// It is signed in a way that we do not take; unsigned, for example.
    #[error("the ID token is signed by {0:?}, which is not supported")]
    Algorithm(String),
    /// No key of the provider is the one that signed it.
    #[error("no key of the provider signed the ID token")]
    NoKey,
}

/// The keys of a provider.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Jwks {
    pub keys: Vec<Jwk>,
}

/// One key. What we cannot use is left out when it comes to it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// The claims of a token that one of `keys` signed. Only the signature is checked here.
pub(super) fn verify(token: &str, keys: &Jwks) -> Result<Map<String, Value>, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
    let signature = decode(signature)?;
    if !matches!(&*header.alg, "RS256" | "RS384" | "RS512" | "PS256" | "ES256" | "ES384" | "EdDSA")
    {
        return Err(JwtError::Algorithm(header.alg));
    }
    let may_sign = |key: &&Jwk| {
        key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && key.alg.as_ref().is_none_or(|alg| *alg == header.alg)
            && (header.kid.is_none() || key.kid.is_none() || key.kid == header.kid)
    };
    let mut candidates = keys.keys.iter().filter(may_sign);
    let good = |key: &Jwk| key.signed(&header.alg, signed.as_bytes(), &signature).is_some();
    if !candidates.any(good) {
        return Err(JwtError::NoKey);
    }
    serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)
}

impl Jwk {
    /// Something, if this key made the signature.
    fn signed(&self, alg: &str, message: &[u8], signature: &[u8]) -> Option<()> {
        let part = |part: &Option<String>| {
            BASE64_URL_SAFE_NO_PAD.decode(part.as_ref()?.trim_end_matches('=')).ok()
        };
        let rsa = |parameters: &'static RsaParameters| {
            let key = RsaPublicKeyComponents { n: part(&self.n)?, e: part(&self.e)? };
            key.verify(parameters, message, signature).ok()
        };
        let plain = |algorithm: &'static dyn VerificationAlgorithm, key: Vec<u8>| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).ok()
        };
        let point = || Some([vec![4], part(&self.x)?, part(&self.y)?].concat());
        match (alg, &*self.kty, self.crv.as_deref()) {
            ("RS256", "RSA", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            ("RS384", "RSA", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            ("RS512", "RSA", _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            ("PS256", "RSA", _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            ("ES256", "EC", Some("P-256")) => plain(&ECDSA_P256_SHA256_FIXED, point()?),
            ("ES384", "EC", Some("P-384")) => plain(&ECDSA_P384_SHA384_FIXED, point()?),
            ("EdDSA", "OKP", Some("Ed25519")) => plain(&ED25519, part(&self.x)?),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, Appendix A.2.
    const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7\
        AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
        BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K\
        0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
        hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
        p0igcN_IoypGlUPQGe77Rw";
    const RS256_KEY: &str = r#"{"keys":[{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}]}"#;

    #[test]
    fn a_token_of_the_specification_is_believed_and_no_changed_one() {
        let keys: Jwks = serde_json::from_str(RS256_KEY).unwrap();
        assert_eq!(verify(RS256, &keys).unwrap()["iss"], "joe");
        let (signed, signature) = RS256.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let other = BASE64_URL_SAFE_NO_PAD.encode(r#"{"iss":"jim"}"#);
        let forged = format!("{header}.{other}.{signature}");
        assert_eq!(verify(&forged, &keys), Err(JwtError::NoKey));
        for alg in ["none", "HS256"] {
            let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
            let unsigned = format!("{header}.{claims}.");
            assert_eq!(verify(&unsigned, &keys), Err(JwtError::Algorithm(alg.to_owned())));
        }
        for malformed in ["", "a.b", "a.b.c", "..."] {
            assert_eq!(verify(malformed, &keys), Err(JwtError::Malformed), "{malformed:?}");
        }
        assert_eq!(verify(RS256, &Jwks::default()), Err(JwtError::NoKey));
    }
}
