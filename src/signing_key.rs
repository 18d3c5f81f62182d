//! The file that holds a server's signing key, in the form that Synapse writes.

use base64::{Engine, alphabet, engine::DecodePaddingMode, engine::general_purpose};

/// Accepts padding, writes none, as keys are written in Matrix.
const BASE64: general_purpose::GeneralPurpose = general_purpose::GeneralPurpose::new(
    &alphabet::STANDARD,
    general_purpose::GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An ed25519 key and its name.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyFile {
    /// What follows `ed25519:` in the key's ID.
    pub version: String,
    /// The secret.
    pub seed: [u8; 32],
}

/// Why a text is no signing key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// There are not three words, the first of them `ed25519`.
    #[error("a signing key is one line: ed25519, a name of letters, digits and _, and the key")]
    Form,
    /// The third word is not 32 bytes in base64.
    #[error("the key must be 32 bytes in base64")]
    Key,
}

impl SigningKeyFile {
    /// A new key of random bytes; the first four name it.
    #[must_use]
    pub fn from_random(name: [u8; 4], seed: [u8; 32]) -> Self {
        let letters = name.map(|byte| char::from(b'a' + byte % 26));
        Self { version: format!("a_{}", letters.iter().collect::<String>()), seed }
    }

    /// Reads the line that [`Self::to_line`] writes.
    ///
    /// # Errors
    /// [`SigningKeyError`], which never repeats the key.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        let mut words = text.split_whitespace();
        let (Some("ed25519"), Some(version), Some(key), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(SigningKeyError::Form);
        };
        if !version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(SigningKeyError::Form);
        }
        let seed = BASE64.decode(key).ok().and_then(|seed| seed.try_into().ok());
        let seed = seed.ok_or(SigningKeyError::Key)?;
        Ok(Self { version: version.to_owned(), seed })
    }

    /// The file's one line, without a line end.
    #[must_use]
    pub fn to_line(&self) -> String {
        format!("ed25519 {} {}", self.version, BASE64.encode(self.seed))
    }
}

impl std::fmt::Debug for SigningKeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeyFile").field("version", &self.version).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = SigningKeyFile::from_random([0, 1, 27, 255], [7; 32]);
        assert_eq!(key.version, "a_abbv");
        assert_eq!(SigningKeyFile::parse(&format!("{}\n", key.to_line())), Ok(key));
    }

    #[test]
    fn padding_does_not_matter() {
        let padded = format!("ed25519 a_1 {}=", BASE64.encode([1; 32]));
        assert_eq!(SigningKeyFile::parse(&padded).unwrap().seed, [1; 32]);
    }

    #[test]
    fn other_texts_are_refused() {
        let key = BASE64.encode([1; 32]);
        for text in
            [String::new(), key.clone(), format!("rsa a {key}"), format!("ed25519 a:b {key}")]
        {
            assert_eq!(SigningKeyFile::parse(&text), Err(SigningKeyError::Form));
        }
        assert_eq!(SigningKeyFile::parse("ed25519 a_1 AAAA"), Err(SigningKeyError::Key));
    }

    #[test]
    fn a_key_is_never_printed_by_accident() {
        let key = SigningKeyFile::from_random([0; 4], [7; 32]);
        assert!(!format!("{key:?}").contains(&BASE64.encode([7; 32])));
        assert!(!format!("{key:?}").contains('7'));
    }
}
