//! Nodes: leaves of entries, and inner nodes that point to their children.
//!
//! A node is kept as the bytes that are stored; nothing is allocated to read it.
//!
//! ```text
//! leaf:   0, entries (see leaf.rs)
//! inner:  1, which digits have children (a bit each), digits skipped: their number, themselves;
//!         entries below, their weight; hashes of the children in the order of their digits
//! ```

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use super::{
    CorruptNode, Entry, NodeHash,
    hash::NodeHasher,
    layout::{DIGITS, FANOUT, HASH_LEN},
    leaf::{self, Total, put_number, take_number},
};

const LEAF: u8 = 0;
const INNER: u8 = 1;

/// Which digits have children.
pub(super) type Bitmap = u16;
const BITMAP_LEN: usize = size_of::<Bitmap>();
const _: () = assert!(Bitmap::BITS as usize == FANOUT);

/// Where the parts of an inner node lie in its bytes.
const BITMAP_AT: usize = 1;
const SKIP_LEN_AT: usize = BITMAP_AT + BITMAP_LEN;
const SKIP_AT: usize = SKIP_LEN_AT + 1;

/// A node of a tree, checked when it was read. A clone is another handle on the same bytes.
#[derive(Clone)]
pub struct Node {
    /// Its hash, then what is stored: one piece of memory, because large rooms have many nodes.
    named: Arc<[u8]>,
}

/// What a node is.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Leaf(Leaf<'a>),
    Inner(Inner<'a>),
}

/// A node of entries.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    body: &'a [u8],
}

/// A node of children.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a> {
    /// Digits that all entries below share, before the one that decides.
    pub skip: &'a [u8],
    bitmap: Bitmap,
    /// The total, then the hashes of the children.
    body: &'a [u8],
}

impl Node {
    /// A node from its bytes, whose hash was checked.
    pub(super) fn decode(hash: NodeHash, bytes: &[u8]) -> Result<Self, CorruptNode> {
        let checked = match bytes.split_first() {
            Some((&LEAF, body)) => leaf::check(body),
            Some((&INNER, _)) => check_inner(bytes),
            Some(_) => Err("it is of an unknown kind"),
            None => Err("it is empty"),
        };
        match checked {
            Ok(()) => Ok(Self::named(hash, bytes)),
            Err(reason) => Err(CorruptNode { hash, reason }),
        }
    }

    fn named(hash: NodeHash, bytes: &[u8]) -> Self {
        let mut named = Vec::with_capacity(HASH_LEN + bytes.len());
        named.extend_from_slice(&hash.0);
        named.extend_from_slice(bytes);
        Self { named: named.into() }
    }

    /// A new leaf; `entries` are sorted and not empty.
    pub(super) fn leaf(hasher: &NodeHasher, entries: &[Entry<'_>]) -> Self {
        let len = HASH_LEN + 16 + Total::of(entries).weight as usize;
        Self::made(hasher, len, |out| {
            out.push(LEAF);
            leaf::encode(entries, out);
        })
    }

    /// A new inner node.
    pub(super) fn inner(hasher: &NodeHasher, parts: &InnerParts) -> Self {
        let len = HASH_LEN + 24 + parts.skip.len() + parts.children.len() * HASH_LEN;
        Self::made(hasher, len, |out| encode_inner(parts, out))
    }

    fn made(hasher: &NodeHasher, len: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut named = Vec::with_capacity(len);
        named.resize(HASH_LEN, 0);
        encode(&mut named);
        let (name, bytes) = named.split_at_mut(HASH_LEN);
        name.copy_from_slice(&hasher.hash(bytes).0);
        Self { named: named.into() }
    }

    /// Its name.
    #[must_use]
    pub fn hash(&self) -> NodeHash {
        NodeHash(self.named.first_chunk().copied().unwrap_or_default())
    }

    /// What is to be stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.named.get(HASH_LEN..).unwrap_or_default()
    }

    /// How many entries it holds, itself and below.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total().count
    }

    pub(super) fn total(&self) -> Total {
        match self.kind() {
            Kind::Leaf(leaf) => Total::of_each(leaf.entries()),
            Kind::Inner(inner) => inner.total(),
        }
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        let bytes = self.bytes();
        match bytes.first() {
            Some(&INNER) => Kind::Inner(Inner::of(bytes).unwrap_or(Inner::NONE)),
            _ => Kind::Leaf(Leaf { body: bytes.get(1..).unwrap_or_default() }),
        }
    }

    /// The error of a node that stands where it cannot.
    pub(super) fn corrupt(&self, reason: &'static str) -> CorruptNode {
        CorruptNode { hash: self.hash(), reason }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.hash()).finish()
    }
}

fn check_inner(bytes: &[u8]) -> Result<(), &'static str> {
    const SHORT: &str = "it ends too early";
    let inner = Inner::of(bytes).ok_or(SHORT)?;
    if inner.bitmap.count_ones() < 2 {
        return Err("it has too few children");
    }
    if inner.skip.len() >= DIGITS || inner.skip.iter().any(|digit| usize::from(*digit) >= FANOUT) {
        return Err("it skips digits that no path has");
    }
    let mut rest = inner.body;
    take_number(&mut rest).and_then(|_| take_number(&mut rest)).ok_or(SHORT)?;
    if rest.len() != inner.children_len() {
        return Err("its length does not fit the number of its children");
    }
    Ok(())
}

impl<'a> Leaf<'a> {
    pub fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        leaf::entries(self.body)
    }

    pub fn find(self, event_type: &str, state_key: &str) -> Option<u64> {
        leaf::find(self.body, event_type, state_key)
    }
}

impl<'a> Inner<'a> {
    const NONE: Self = Self { skip: &[], bitmap: 0, body: &[] };

    fn of(bytes: &'a [u8]) -> Option<Self> {
        let bitmap = bytes.get(BITMAP_AT..)?.first_chunk()?;
        let skip_len = usize::from(*bytes.get(SKIP_LEN_AT)?);
        let (skip, body) = bytes.get(SKIP_AT..)?.split_at_checked(skip_len)?;
        Some(Self { skip, bitmap: Bitmap::from_le_bytes(*bitmap), body })
    }

    fn children_len(self) -> usize {
        self.bitmap.count_ones() as usize * HASH_LEN
    }

    pub fn total(self) -> Total {
        let mut rest = self.body;
        let mut number = || take_number(&mut rest).unwrap_or_default();
        Total { count: number(), weight: number() }
    }

    fn hashes(self) -> &'a [[u8; HASH_LEN]] {
        let at = self.body.len().saturating_sub(self.children_len());
        self.body.get(at..).unwrap_or_default().as_chunks().0
    }

    pub fn child(self, digit: u8) -> Option<NodeHash> {
        let bit = 1 << digit;
        if self.bitmap & bit == 0 {
            return None;
        }
        let before = (self.bitmap & (bit - 1)).count_ones() as usize;
        self.hashes().get(before).copied().map(NodeHash)
    }

    /// The digits that have children in one or both of two nodes.
    pub fn digits_of_either(self, other: Self) -> impl Iterator<Item = u8> {
        digits(self.bitmap | other.bitmap)
    }

    /// The children and their digits, in order.
    pub fn children(self) -> impl Iterator<Item = (u8, NodeHash)> + 'a {
        digits(self.bitmap).zip(self.hashes().iter().map(|hash| NodeHash(*hash)))
    }
}

/// The digits whose bits are set.
fn digits(mut bitmap: Bitmap) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let digit = bitmap.trailing_zeros() as u8;
        bitmap &= bitmap.checked_sub(1)?;
        Some(digit)
    })
}

/// Skipped digits.
pub(super) type Skip = SmallVec<[u8; 16]>;

/// What an inner node is made of.
#[derive(Debug, Clone)]
pub(super) struct InnerParts {
    pub skip: Skip,
    pub total: Total,
    /// Sorted by digit, two or more.
    pub children: Vec<(u8, NodeHash)>,
}

fn encode_inner(parts: &InnerParts, out: &mut Vec<u8>) {
    out.push(INNER);
    let bitmap = parts.children.iter().fold(0, |bits: Bitmap, (digit, _)| bits | 1 << digit);
    out.extend_from_slice(&bitmap.to_le_bytes());
    out.push(parts.skip.len() as u8);
    out.extend_from_slice(&parts.skip);
    put_number(parts.total.count, out);
    put_number(parts.total.weight, out);
    for (_, hash) in &parts.children {
        out.extend_from_slice(&hash.0);
    }
}
