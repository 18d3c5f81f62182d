//! A server's signing key: ed25519, named by a key ID, kept in a one-line text file.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD_NO_PAD,
};
use ed25519_dalek::{Signer, SigningKey};
use ruma::{
    AnyKeyName, CanonicalJsonObject, OwnedSigningKeyId, ServerName, SigningKeyAlgorithm,
    SigningKeyId,
    signatures::{self, KeyPair, Signature},
};
use std::fmt;

/// The longest key name taken from a file; the specification asks only for `[a-zA-Z0-9_]`.
const NAME_LEN_MAX: usize = 64;

/// Reads seeds as leniently as others write them: padded or not, unused bits set or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key that a server signs its events and requests with. Its secret is never shown by `Debug`.
pub struct ServerSigningKey {
    name: String,
    key: SigningKey,
}

/// Why a text is not a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningKey {
    /// Not the three words `ed25519 NAME SEED`.
    #[error("expected `ed25519 NAME SEED` on one line")]
    Form,
    /// A key of another algorithm.
    #[error("only ed25519 keys can sign")]
    Algorithm,
    /// The name holds something other than letters, digits and underscores, or is too long.
    #[error("a key name consists of at most 64 letters, digits and underscores")]
    Name,
    /// The seed is not 32 bytes of base64.
    #[error("the seed must be 32 bytes in base64")]
    Seed,
}

impl ServerSigningKey {
    /// The key with this name (`a_xxxx`) and secret seed. A new key is one made of 32 random bytes.
    ///
    /// # Errors
    /// Where the name cannot be part of a key ID.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, InvalidSigningKey> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(fits) {
            return Err(InvalidSigningKey::Name);
        }
        Ok(Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) })
    }

    /// Parses a key file: `ed25519 NAME SEED`, the seed in base64 with or without padding. This is
    /// the format other servers use, too; further lines are not read.
    ///
    /// # Errors
    /// Where the text is not such a file.
    pub fn from_file_text(text: &str) -> Result<Self, InvalidSigningKey> {
        let line = text.lines().find(|line| !line.trim().is_empty());
        let mut words = line.ok_or(InvalidSigningKey::Form)?.split_ascii_whitespace();
        let (Some(algorithm), Some(name), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(InvalidSigningKey::Form);
        };
        if algorithm != "ed25519" {
            return Err(InvalidSigningKey::Algorithm);
        }
        let seed = LENIENT.decode(seed).map_err(|_| InvalidSigningKey::Seed)?;
        Self::new(name, &seed.try_into().map_err(|_| InvalidSigningKey::Seed)?)
    }

    /// The key file's text, which [`ServerSigningKey::from_file_text`] reads. It is a secret.
    pub fn to_file_text(&self) -> String {
        format!("ed25519 {} {}\n", self.name, BASE64_STANDARD_NO_PAD.encode(self.key.to_bytes()))
    }

    /// The key's ID, `ed25519:NAME`.
    pub fn key_id(&self) -> OwnedSigningKeyId<AnyKeyName> {
        SigningKeyId::<AnyKeyName>::from_parts(
            SigningKeyAlgorithm::Ed25519,
            self.name.as_str().into(),
        )
    }

    /// The public half, in unpadded base64, as it is published.
    pub fn public_base64(&self) -> String {
        BASE64_STANDARD_NO_PAD.encode(self.public_bytes())
    }

    /// The public half.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Signs an object in the name of `server`, adding to its `signatures` (spec: Signing JSON).
    ///
    /// # Errors
    /// Where the object has `signatures` that are none.
    pub fn sign_json(
        &self,
        server: &ServerName,
        object: &mut CanonicalJsonObject,
    ) -> Result<(), signatures::JsonError> {
        signatures::sign_json(server.as_str(), self, object)
    }
}

impl KeyPair for ServerSigningKey {
    fn sign(&self, message: &[u8]) -> Signature {
        Signature::new(self.key_id(), self.key.sign(message).to_bytes().to_vec())
    }
}

impl fmt::Debug for ServerSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerSigningKey").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification's example key (Appendices, Cryptographic test vectors).
    const SPEC_SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    #[test]
    fn signatures_are_those_of_the_specification() {
        let text = format!("ed25519 1 {SPEC_SEED}");
        let key = ServerSigningKey::from_file_text(&text).unwrap();
        for (unsigned, signature) in [
            (
                "{}",
                "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
            ),
            (
                r#"{"one":1,"two":"Two"}"#,
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ] {
            let mut object: CanonicalJsonObject = serde_json::from_str(unsigned).unwrap();
            key.sign_json("domain".try_into().unwrap(), &mut object).unwrap();
            let signed = serde_json::to_value(&object).unwrap();
            assert_eq!(signed["signatures"]["domain"]["ed25519:1"], signature);
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", InvalidSigningKey::Form),
            ("ed25519 a_x", InvalidSigningKey::Form),
            ("ed25519 a_x AAAA more", InvalidSigningKey::Form),
            ("rsa a_x AAAA", InvalidSigningKey::Algorithm),
            ("ed25519 a-x YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", InvalidSigningKey::Name),
            ("ed25519 a_x AAAA", InvalidSigningKey::Seed),
            ("ed25519 a_x ?", InvalidSigningKey::Seed),
        ] {
            assert_eq!(ServerSigningKey::from_file_text(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn debug_output_keeps_the_secret() {
        let key = ServerSigningKey::new("a_b", &[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), r#"ServerSigningKey("a_b")"#);
    }

    proptest! {
        #[test]
        fn a_key_survives_its_file(seed in any::<[u8; 32]>(), name in "[a-zA-Z0-9_]{1,64}") {
            let key = ServerSigningKey::new(&name, &seed).unwrap();
            let again = ServerSigningKey::from_file_text(&key.to_file_text()).unwrap();
            prop_assert_eq!(again.key_id(), key.key_id());
            prop_assert_eq!(again.public_bytes(), key.public_bytes());
        }
    }
}
