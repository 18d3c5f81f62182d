//! How values are written: MessagePack with named fields, so that a field can be added later
//! with `#[serde(default)]` and old rows still read; or raw bytes where speed and size matter.

/// A value as a table declares it.
pub trait Value: Sized + Send + 'static {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads it back.
    ///
    /// # Errors
    /// The reason in words where `bytes` are not of this form.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

/// Implements [`Value`] for serde types, by MessagePack with named fields.
#[macro_export]
macro_rules! serde_value {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::Value for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                $crate::value::encode_serde(self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, String> {
                $crate::value::decode_serde(bytes)
            }
        }
    )*};
}

/// Appends `value` as MessagePack; used by [`serde_value!`].
pub fn encode_serde<T: serde::Serialize>(value: &T, out: &mut Vec<u8>) {
    rmp_serde::encode::write_named(out, value).expect("our own types have a MessagePack form");
}

/// Reads MessagePack; used by [`serde_value!`].
///
/// # Errors
/// The reason in words where `bytes` are not of this form.
pub fn decode_serde<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

impl Value for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(bytes.to_vec())
    }
}

impl Value for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Self::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    }
}

impl Value for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &[u8]) -> Result<Self, String> {
        Ok(())
    }
}

impl Value for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.try_into().map_err(|_| format!("{} bytes, not 8", bytes.len()))?;
        Ok(Self::from_be_bytes(bytes))
    }
}

impl Value for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.try_into().map_err(|_| format!("{} bytes, not 8", bytes.len()))?;
        Ok(Self::from_be_bytes(bytes))
    }
}

impl Value for ruma::OwnedEventId {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        Self::try_from(text).map_err(|error| error.to_string())
    }
}
