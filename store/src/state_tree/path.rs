//! Where a key lies in the tree.

use std::fmt;

use super::{
    hash::{subkey, truncated},
    layout::{DIGIT_BITS, DIGITS, FANOUT, KEY_DIGITS, TYPE_DIGITS},
};

/// The way from the root to a key: [`DIGITS`] digits, those of the type first.
///
/// Two keys may have the same path; they share a leaf then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(u128);

const TYPE_BITS: usize = TYPE_DIGITS * DIGIT_BITS;
const KEY_BITS: usize = KEY_DIGITS * DIGIT_BITS;
const _: () = assert!(TYPE_BITS <= 64 && KEY_BITS <= 128 && TYPE_BITS + KEY_BITS <= 128);

impl Path {
    /// The path that begins with the low bits of `of_type` and goes on with those of `of_key`.
    #[must_use]
    pub const fn new(of_type: u64, of_key: u128) -> Self {
        let of_key = of_key & (u128::MAX >> (128 - KEY_BITS));
        let of_type = of_type & (u64::MAX >> (64 - TYPE_BITS));
        Self(((of_type as u128) << KEY_BITS) | of_key)
    }

    /// The digit that decides at `depth`, which is below [`DIGITS`].
    pub(super) fn digit(self, depth: usize) -> u8 {
        let shift = DIGIT_BITS * (DIGITS - 1).saturating_sub(depth);
        ((self.0 >> shift) as u8) & (FANOUT - 1) as u8
    }

    /// The first depth at which two paths part, or [`DIGITS`].
    pub(super) fn parts_from(self, other: Self) -> usize {
        let differing = self.0 ^ other.0;
        let unused = 128 - TYPE_BITS - KEY_BITS;
        ((differing.leading_zeros() as usize - unused) / DIGIT_BITS).min(DIGITS)
    }

    /// How many digits of `skip` agree with those of the path from `depth` on.
    pub(super) fn agrees(self, depth: usize, skip: &[u8]) -> usize {
        let digits = (depth..).map(|at| self.digit(at));
        skip.iter().zip(digits).take_while(|(a, b)| **a == *b).count()
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..DIGITS).try_for_each(|depth| write!(f, "{:x}", self.digit(depth)))
    }
}

/// Says where keys lie. Two keys of one type agree in the digits of the type.
pub trait Placement: Send + Sync {
    /// Where a key lies.
    fn path(&self, event_type: &str, state_key: &str) -> Path;
}

/// Places keys by keyed hashes, so that only who knows the secret can choose where.
#[derive(Clone)]
pub struct KeyedPlacement {
    type_key: [u8; 32],
    state_key: [u8; 32],
    /// Memberships are nearly all of a large room's state.
    member: u64,
}

const MEMBER: &str = "m.room.member";

impl KeyedPlacement {
    /// Placement under the database's secret.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let type_key = subkey(secret, "type");
        let member = hash_of_type(&type_key, MEMBER);
        Self { type_key, state_key: subkey(secret, "state_key"), member }
    }
}

fn hash_of_type(key: &[u8; 32], event_type: &str) -> u64 {
    u64::from_be_bytes(truncated(&blake3::keyed_hash(key, event_type.as_bytes())))
}

impl Placement for KeyedPlacement {
    fn path(&self, event_type: &str, state_key: &str) -> Path {
        let of_type = match event_type {
            MEMBER => self.member,
            _ => hash_of_type(&self.type_key, event_type),
        };
        let of_key = truncated(&blake3::keyed_hash(&self.state_key, state_key.as_bytes()));
        Path::new(of_type, u128::from_be_bytes(of_key))
    }
}

impl fmt::Debug for KeyedPlacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedPlacement") // the keys are secrets
    }
}
