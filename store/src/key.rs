//! Order-preserving encodings of keys: comparing the bytes compares the values.
//!
//! Text is written with each NUL doubled to `00 ff` and closed by `00`, so that a tuple sorts
//! by its first part, then its second, and no part is mistaken for the start of another.

use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName,
    OwnedTransactionId, OwnedUserId,
};

/// Writes itself as one or more key parts.
pub trait EncodeKey {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A key type as a table declares it: what a scan gives back.
pub trait KeyPart: EncodeKey + Sized + Send + 'static {
    /// Takes one value off the front of `input`; `None` where the bytes are not of this form.
    fn decode(input: &mut &[u8]) -> Option<Self>;
}

/// Something that encodes exactly as `K` does, such as `&UserId` for `OwnedUserId`.
pub trait KeyRef<K>: EncodeKey {}

fn encode_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 1);
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.push(0);
}

fn decode_text(input: &mut &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (*input.get(at)?, input.get(at + 1)) {
            (0, Some(0xff)) => {
                text.push(0);
                at += 2;
            }
            (0, _) => {
                *input = &input[at + 1..];
                return Some(text);
            }
            (byte, _) => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

macro_rules! integer_keys {
    ($($int:ty => $unsigned:ty, $flip:expr;)*) => {$(
        impl EncodeKey for $int {
            fn encode(&self, out: &mut Vec<u8>) {
                // Flipping the sign bit makes negative numbers sort before positive ones.
                out.extend_from_slice(&((*self as $unsigned) ^ $flip).to_be_bytes());
            }
        }
        impl KeyRef<$int> for $int {}
        impl KeyPart for $int {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                let (head, rest) = input.split_first_chunk()?;
                *input = rest;
                Some((<$unsigned>::from_be_bytes(*head) ^ $flip) as $int)
            }
        }
    )*};
}
integer_keys! {
    u8 => u8, 0;
    u16 => u16, 0;
    u32 => u32, 0;
    u64 => u64, 0;
    i32 => u32, 1 << 31;
    i64 => u64, 1 << 63;
}

impl<const N: usize> EncodeKey for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}
impl<const N: usize> KeyRef<[u8; N]> for [u8; N] {}
impl<const N: usize> KeyPart for [u8; N] {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        let (head, rest) = input.split_first_chunk()?;
        *input = rest;
        Some(*head)
    }
}

impl EncodeKey for str {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self.as_bytes(), out);
    }
}
impl EncodeKey for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_text(self.as_bytes(), out);
    }
}
impl KeyRef<String> for str {}
impl KeyRef<String> for String {}
impl KeyPart for String {
    fn decode(input: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(decode_text(input)?).ok()
    }
}

macro_rules! identifier_keys {
    ($($owned:ty, $borrowed:ty;)*) => {$(
        impl EncodeKey for $owned {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_text(self.as_bytes(), out);
            }
        }
        impl EncodeKey for $borrowed {
            fn encode(&self, out: &mut Vec<u8>) {
                encode_text(self.as_bytes(), out);
            }
        }
        impl KeyRef<$owned> for $owned {}
        impl KeyRef<$owned> for $borrowed {}
        impl KeyPart for $owned {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Self::try_from(String::from_utf8(decode_text(input)?).ok()?).ok()
            }
        }
    )*};
}
identifier_keys! {
    OwnedUserId, ruma::UserId;
    OwnedRoomId, ruma::RoomId;
    OwnedEventId, ruma::EventId;
    OwnedRoomAliasId, ruma::RoomAliasId;
    OwnedServerName, ruma::ServerName;
    OwnedDeviceId, ruma::DeviceId;
    OwnedTransactionId, ruma::TransactionId;
}

impl EncodeKey for () {
    fn encode(&self, _: &mut Vec<u8>) {}
}
impl KeyRef<()> for () {}
impl KeyPart for () {
    fn decode(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<T: EncodeKey + ?Sized> EncodeKey for &T {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}
impl<K, T: KeyRef<K> + ?Sized> KeyRef<K> for &T {}

macro_rules! tuple_keys {
    ($($name:ident $key:ident),*) => {
        impl<$($name: EncodeKey),*> EncodeKey for ($($name,)*) {
            #[expect(non_snake_case, reason = "a type parameter names the field of its type")]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($name,)*) = self;
                $($name.encode(out);)*
            }
        }
        impl<$($key,)* $($name: KeyRef<$key>),*> KeyRef<($($key,)*)> for ($($name,)*) {}
        impl<$($name: KeyPart),*> KeyPart for ($($name,)*) {
            fn decode(input: &mut &[u8]) -> Option<Self> {
                Some(($($name::decode(input)?,)*))
            }
        }
    };
}
tuple_keys!(A KA, B KB);
tuple_keys!(A KA, B KB, C KC);
tuple_keys!(A KA, B KB, C KC, D KD);
