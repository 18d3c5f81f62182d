//! The numbers that the form of a tree depends on. Changing one makes other trees of the same
//! state, so it needs a new format of the database.

/// Bytes of a node's hash.
pub const HASH_LEN: usize = 12;
/// Bits that one step down the tree decides.
pub const DIGIT_BITS: usize = 4;
/// Children of a node at most.
pub const FANOUT: usize = 1 << DIGIT_BITS;
/// Digits of a path that come from the event type.
pub const TYPE_DIGITS: usize = 8;
/// Digits of a path that come from the state key.
pub const KEY_DIGITS: usize = 24;
/// Digits of a path.
pub const DIGITS: usize = TYPE_DIGITS + KEY_DIGITS;
/// Entries that weigh together at most so much share one leaf.
pub const LEAF_WEIGHT_MAX: u64 = 512;
/// Weight of an entry beside the bytes of its type and state key.
pub const ENTRY_WEIGHT: u64 = 8;
