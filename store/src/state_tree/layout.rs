//! The numbers that the form of a tree depends on. Changing one makes other trees of the same
//! state, so it needs a new format of the database.
//!
//! They were chosen for the bytes and the rows that one change of a membership writes, in a room
//! with 13 other state events and user names of 20 to 25 bytes. A row costs its key, too: about
//! 64 bytes in the log. Bytes of the nodes, and nodes, on average:
//!
//! | fan-out | hash | leaf weight | 10 members | 1,000      | 10,000     | 100,000     | 200,000     |
//! |--------:|-----:|------------:|-----------:|-----------:|-----------:|------------:|------------:|
//! |       4 |   16 |         512 | 395 in 2.7 | 610 in 7.9 | 768 in 9.3 | 885 in 11.0 | 917 in 11.7 |
//! |       8 |   16 |         512 | 405 in 2.0 | 672 in 6.2 | 818 in 7.3 | 982 in 8.3  | 1061 in 8.4 |
//! |       8 |   12 |         512 | 379 in 2.0 | 545 in 6.2 | 654 in 7.3 | 784 in 8.3  | 861 in 8.4  |
//! |      16 |   16 |         512 | 405 in 2.0 | 837 in 4.0 | 1051 in 5.0 | 1270 in 6.0 | 1354 in 6.0 |
//! |  **16** | **12** |   **512** | 365 in 2.0 | 670 in 4.0 | 824 in 5.0 | 987 in 6.0  | 1061 in 6.0 |
//! |      16 |   12 |        1024 | 542 in 1.0 | 670 in 4.0 | 827 in 5.0 | 1111 in 5.6 | 1061 in 6.0 |
//! |      32 |   12 |         800 | 542 in 1.0 | 882 in 4.3 | 1244 in 4.3 | 1460 in 5.3 | 1561 in 5.3 |
//!
//! Keys included, 16 children under hashes of 12 bytes write least among those that take no more
//! than six round trips to a key, 1,371 bytes for 100,000 members. A hash of 96 bits makes an
//! accident among 10 billion nodes a matter of one in a billion, and nobody who lacks the
//! database's secret can look for one.

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
