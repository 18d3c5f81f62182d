//! Tokens that prove who we are (RFC 7519), signed with ring.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

/// A private key on the curve P-256, for APNs and VAPID (`ES256`).
pub struct EcKey(EcdsaKeyPair);

/// A private RSA key, for Google's OAuth (`RS256`).
pub struct RsaKey(RsaKeyPair);

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// The DER of a PKCS #8 structure around a SEC 1 key of P-256, up to the length of that key.
const PKCS8_HEAD: [u8; 24] = [
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
];

impl EcKey {
    /// Reads PEM: PKCS #8 (`PRIVATE KEY`, as Apple's .p8 files) or SEC 1 (`EC PRIVATE KEY`, as
    /// `openssl ecparam -genkey` writes it), with the public key in it.
    ///
    /// # Errors
    /// Where there is no such key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|error| KeyError(format!("holds no private key (PEM): {error}")))?;
        let pkcs8 = match &key {
            PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
            PrivateKeyDer::Sec1(key) => in_pkcs8(key.secret_sec1_der())?,
            _ => return Err(KeyError("holds no key on the curve P-256".to_owned())),
        };
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map(Self)
            .map_err(|error| {
                KeyError(format!("holds no key on the curve P-256 with its public key: {error}"))
            })
    }

    /// The public key: 65 bytes, uncompressed.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// A token with these claims. `kid` names the key where the reader has several.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn sign(&self, kid: Option<&str>, claims: &Value) -> Result<String, KeyError> {
        let mut header = json!({ "typ": "JWT", "alg": "ES256" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let content = content(&header, claims);
        let signature = self.0.sign(&SystemRandom::new(), content.as_bytes());
        let signature = signature.map_err(|_| KeyError("cannot sign".to_owned()))?;
        Ok(format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl RsaKey {
    /// Reads PEM: PKCS #8, as in the files of Google's service accounts.
    ///
    /// # Errors
    /// Where there is no such key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|error| KeyError(format!("holds no private key (PEM): {error}")))?;
        let pair = match &key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(KeyError("holds no RSA key".to_owned())),
        };
        pair.map(Self).map_err(|error| KeyError(format!("holds no RSA key: {error}")))
    }

    /// A token with these claims.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn sign(&self, kid: Option<&str>, claims: &Value) -> Result<String, KeyError> {
        let mut header = json!({ "typ": "JWT", "alg": "RS256" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let content = content(&header, claims);
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), content.as_bytes(), &mut signature)
            .map_err(|_| KeyError("cannot sign".to_owned()))?;
        Ok(format!("{content}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn content(header: &Value, claims: &Value) -> String {
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

fn in_pkcs8(sec1: &[u8]) -> Result<Vec<u8>, KeyError> {
    // All lengths of a key of P-256 fit into DER's short form, or its form of one more byte.
    let long = |length: usize| {
        u8::try_from(length).map_err(|_| KeyError("holds a key that is too long".to_owned()))
    };
    let mut inner = PKCS8_HEAD.to_vec();
    match long(sec1.len())? {
        length @ ..0x80 => inner.extend([0x04, length]),
        length => inner.extend([0x04, 0x81, length]),
    }
    inner.extend(sec1);
    let mut outer = vec![0x30, 0x81, long(inner.len())?];
    outer.extend(inner);
    Ok(outer)
}

impl KeyError {
    /// A problem in words.
    #[must_use]
    pub fn new(problem: String) -> Self {
        Self(problem)
    }

    /// Reads a file, and says which where that fails.
    ///
    /// # Errors
    /// Where it cannot be read, or `read` does not like it.
    pub fn in_file<T>(
        path: &std::path::Path,
        read: impl FnOnce(&[u8]) -> Result<T, Self>,
    ) -> Result<T, Self> {
        let in_file = |problem: String| Self(format!("{}: {problem}", path.display()));
        let content = std::fs::read(path).map_err(|error| in_file(error.to_string()))?;
        read(&content).map_err(|error| in_file(error.0))
    }
}
