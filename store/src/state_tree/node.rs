//! Nodes: leaves of entries, and inner nodes that point to their children.
//!
//! A node is kept as the bytes that are stored; nothing is allocated to read it.
//!
//! ```text
//! leaf:   0, entries (see leaf.rs)
//! inner:  1, which digits have children (a bit each), digits skipped: their number, themselves;
//!         entries below, their weight; hashes of the children in the order of their digits
//! ```

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
pub(super) type Bitmap = u8;
const BITMAP_LEN: usize = size_of::<Bitmap>();
const _: () = assert!(Bitmap::BITS as usize == FANOUT);

/// A node of a tree, checked when it was read.
#[derive(Debug)]
pub struct Node {
    hash: NodeHash,
    total: Total,
    /// The inner node's children; zero in a leaf.
    bitmap: Bitmap,
    /// Where the hashes of the children, or the entries, begin.
    body_at: u16,
    skip_len: u8,
    bytes: Box<[u8]>,
}

/// What a node is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'a> {
    Leaf(Leaf<'a>),
    Inner(Inner<'a>),
}

/// A node of entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf<'a> {
    body: &'a [u8],
}

/// A node of children.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inner<'a> {
    /// Digits that all entries below share, before the one that decides.
    pub skip: &'a [u8],
    bitmap: Bitmap,
    children: &'a [[u8; HASH_LEN]],
}

impl Node {
    /// A node from its bytes, whose hash was checked.
    pub(super) fn decode(hash: NodeHash, bytes: Vec<u8>) -> Result<Self, CorruptNode> {
        let bytes = bytes.into_boxed_slice();
        Self::parse(hash, bytes).map_err(|reason| CorruptNode { hash, reason })
    }

    fn parse(hash: NodeHash, bytes: Box<[u8]>) -> Result<Self, &'static str> {
        match bytes.split_first() {
            Some((&LEAF, body)) => {
                let total = leaf::check(body)?;
                Ok(Self { hash, total, bitmap: 0, body_at: 1, skip_len: 0, bytes })
            }
            Some((&INNER, rest)) => {
                let (bitmap, skip_len, total, children) = parse_inner(rest)?;
                let body_at = bytes.len() - children;
                let body_at = u16::try_from(body_at).map_err(|_| "its header is too long")?;
                Ok(Self { hash, total, bitmap, body_at, skip_len, bytes })
            }
            Some(_) => Err("it is of an unknown kind"),
            None => Err("it is empty"),
        }
    }

    /// A new leaf; `entries` are sorted and not empty.
    pub(super) fn leaf(hasher: &NodeHasher, entries: &[Entry<'_>]) -> Self {
        let total = Total::of(entries);
        let mut bytes = Vec::with_capacity(16 + total.weight as usize);
        bytes.push(LEAF);
        leaf::encode(entries, &mut bytes);
        let hash = hasher.hash(&bytes);
        Self { hash, total, bitmap: 0, body_at: 1, skip_len: 0, bytes: bytes.into_boxed_slice() }
    }

    /// A new inner node.
    pub(super) fn inner(hasher: &NodeHasher, parts: &InnerParts) -> Self {
        let bytes = encode_inner(parts);
        let hash = hasher.hash(&bytes);
        Self::decode(hash, bytes).expect("parts make a node")
    }

    /// Its name.
    #[must_use]
    pub fn hash(&self) -> NodeHash {
        self.hash
    }

    /// What is to be stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Entries below it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total.count
    }

    pub(super) fn total(&self) -> Total {
        self.total
    }

    pub(super) fn kind(&self) -> Kind<'_> {
        let body = self.bytes.get(usize::from(self.body_at)..).unwrap_or_default();
        if self.bitmap == 0 {
            return Kind::Leaf(Leaf { body });
        }
        let skip_at = 2 + BITMAP_LEN;
        let skip = self.bytes.get(skip_at..skip_at + usize::from(self.skip_len));
        let (children, _) = body.as_chunks();
        let skip = skip.unwrap_or_default();
        Kind::Inner(Inner { skip, bitmap: self.bitmap, children })
    }

    /// The error of a node that stands where it cannot.
    pub(super) fn corrupt(&self, reason: &'static str) -> CorruptNode {
        CorruptNode { hash: self.hash, reason }
    }
}

/// The bitmap, the number of skipped digits, the total, and the bytes of the children.
fn parse_inner(rest: &[u8]) -> Result<(Bitmap, u8, Total, usize), &'static str> {
    const SHORT: &str = "it ends too early";
    let (bitmap, rest) = rest.split_first_chunk::<BITMAP_LEN>().ok_or(SHORT)?;
    let bitmap = Bitmap::from_le_bytes(*bitmap);
    let (&skip_len, rest) = rest.split_first().ok_or(SHORT)?;
    let (skip, mut rest) = rest.split_at_checked(skip_len.into()).ok_or(SHORT)?;
    let count = take_number(&mut rest).ok_or(SHORT)?;
    let weight = take_number(&mut rest).ok_or(SHORT)?;
    if bitmap.count_ones() < 2 {
        return Err("it has too few children");
    }
    if skip.len() >= DIGITS || skip.iter().any(|digit| usize::from(*digit) >= FANOUT) {
        return Err("it skips digits that no path has");
    }
    if rest.len() != bitmap.count_ones() as usize * HASH_LEN {
        return Err("its length does not fit the number of its children");
    }
    Ok((bitmap, skip_len, Total { count, weight }, rest.len()))
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
    pub fn child(self, digit: u8) -> Option<NodeHash> {
        let bit = 1 << digit;
        if self.bitmap & bit == 0 {
            return None;
        }
        let before = (self.bitmap & (bit - 1)).count_ones() as usize;
        self.children.get(before).copied().map(NodeHash)
    }

    /// The children and their digits, in order.
    pub fn children(self) -> impl Iterator<Item = (u8, NodeHash)> + 'a {
        let digits = (0..FANOUT as u8).filter(move |digit| self.bitmap & (1 << digit) != 0);
        digits.zip(self.children.iter().map(|hash| NodeHash(*hash)))
    }
}

/// What an inner node is made of.
#[derive(Debug, Clone)]
pub(super) struct InnerParts {
    pub skip: SmallVec<[u8; DIGITS]>,
    pub total: Total,
    /// Sorted by digit, two or more.
    pub children: SmallVec<[(u8, NodeHash); FANOUT]>,
}


fn encode_inner(parts: &InnerParts) -> Vec<u8> {
    let len = 24 + parts.skip.len() + parts.children.len() * HASH_LEN;
    let mut out = Vec::with_capacity(len);
    out.push(INNER);
    let bitmap = parts.children.iter().fold(0, |bits: Bitmap, (digit, _)| bits | 1 << digit);
    out.extend_from_slice(&bitmap.to_le_bytes());
    out.push(parts.skip.len() as u8);
    out.extend_from_slice(&parts.skip);
    put_number(parts.total.count, &mut out);
    put_number(parts.total.weight, &mut out);
    for (_, hash) in &parts.children {
        out.extend_from_slice(&hash.0);
    }
    out
}
