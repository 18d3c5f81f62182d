//! Order-preserving encodings of keys: comparing the bytes compares the values.
//!
//! Text is closed by `00`, so that a tuple sorts by its first part, then its second, and no part
//! is mistaken for the start of another. The bytes 0 and 1 within it are written as `01 01` and
//! `01 02`; whatever the next part begins with, it cannot be taken for one of them.

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

const END: u8 = 0;
const ESCAPE: u8 = 1;

fn encode_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 1);
    for &byte in bytes {
        match byte {
            END | ESCAPE => out.extend_from_slice(&[ESCAPE, byte + 1]),
            _ => out.push(byte),
        }
    }
    out.push(END);
}

fn decode_text(input: &mut &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        match byte {
            END => return Some(text),
            ESCAPE => {
                let (&escaped, rest) = input.split_first()?;
                *input = rest;
                text.push(escaped.checked_sub(1).filter(|byte| *byte <= ESCAPE)?);
            }
            _ => text.push(byte),
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn encoded(key: &impl EncodeKey) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    /// Texts of few letters, those with a meaning of their own among them.
    fn text() -> impl Strategy<Value = String> {
        let letters = prop::sample::select(vec!['\u{0}', '\u{1}', '\u{2}', 'a', '\u{10ffff}']);
        prop::collection::vec(letters, 0..5).prop_map(String::from_iter)
    }

    fn keeps_order<K: KeyPart + Ord + Debug>(a: &K, b: &K) {
        let (encoded_a, encoded_b) = (encoded(a), encoded(b));
        assert_eq!(encoded_a.cmp(&encoded_b), a.cmp(b), "{a:?} and {b:?}");
        let mut rest = &encoded_a[..];
        assert_eq!(K::decode(&mut rest).as_ref(), Some(a));
        assert!(rest.is_empty());
        assert!(a == b || !encoded_b.starts_with(&encoded_a), "{a:?} looks like part of {b:?}");
    }

    proptest! {
        #[test]
        fn comparing_bytes_compares_keys(
            a in (text(), text(), any::<i64>()),
            b in (text(), text(), any::<i64>()),
            bytes in any::<([u8; 3], [u8; 3])>(),
        ) {
            keeps_order(&a, &b);
            keeps_order(&(a.0.clone(), a.2), &(b.0.clone(), b.2));
            keeps_order(&(a.2, a.1.clone()), &(b.2, b.1.clone()));
            keeps_order(&(a.0.clone(), u64::MAX - a.1.len() as u64), &(b.0.clone(), 0));
            keeps_order(&(a.0.clone(), bytes.0), &(b.0.clone(), bytes.1));
            // One text is often the start of the other.
            let longer = a.0.clone() + &b.0;
            keeps_order(&(a.0.clone(), [0xff_u8, 0, 1]), &(longer, [0xff_u8, 0, 1]));
        }

        #[test]
        fn bytes_that_are_no_key_are_refused(bytes in prop::collection::vec(0..4_u8, 0..8)) {
            let mut rest = &bytes[..];
            if let Some(text) = String::decode(&mut rest) {
                let read = bytes.len() - rest.len();
                prop_assert_eq!(encoded(&text), &bytes[..read]);
            }
        }
    }
}
