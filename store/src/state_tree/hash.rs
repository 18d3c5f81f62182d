//! Names of nodes and of whole states.

use std::fmt;

use super::layout::HASH_LEN;

/// The keyed hash of a node's bytes, which is its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeHash(pub(super) [u8; HASH_LEN]);

impl NodeHash {
    /// The hash as it is stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HASH_LEN] {
        self.0
    }

    /// A hash as it was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// A few of its bits: they are as good as any other hash of it.
    pub(super) fn bits(self) -> u64 {
        self.0.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
    }
}

impl fmt::Display for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a whole state: equal states have equal roots.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateRoot([u8; HASH_LEN]);

impl StateRoot {
    /// The state without entries.
    pub const EMPTY: Self = Self([0; HASH_LEN]);

    /// The root as it is stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HASH_LEN] {
        self.0
    }

    /// A root as it was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// Whether the state has no entries.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// The topmost node; none where the state is empty.
    #[must_use]
    pub fn node(self) -> Option<NodeHash> {
        (!self.is_empty()).then_some(NodeHash(self.0))
    }
}

impl serde::Serialize for StateRoot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for StateRoot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(RootVisitor)
    }
}

struct RootVisitor;

impl serde::de::Visitor<'_> for RootVisitor {
    type Value = StateRoot;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_LEN} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<StateRoot, E> {
        let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
        Ok(StateRoot(bytes))
    }
}

impl From<Option<NodeHash>> for StateRoot {
    fn from(node: Option<NodeHash>) -> Self {
        node.map_or(Self::EMPTY, |hash| Self(hash.0))
    }
}

impl fmt::Debug for StateRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Some(hash) => fmt::Display::fmt(&hash, f),
            None => f.write_str("EMPTY"),
        }
    }
}

/// Names nodes by their bytes.
#[derive(Clone)]
pub(super) struct NodeHasher {
    key: [u8; 32],
}

impl NodeHasher {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: subkey(secret, "node") }
    }

    pub fn hash(&self, bytes: &[u8]) -> NodeHash {
        NodeHash(truncated(&blake3::keyed_hash(&self.key, bytes)))
    }
}

impl fmt::Debug for NodeHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeHasher") // the key is a secret
    }
}

/// An independent key for one purpose.
pub(super) fn subkey(secret: &[u8; 32], purpose: &str) -> [u8; 32] {
    *blake3::keyed_hash(secret, purpose.as_bytes()).as_bytes()
}

/// The first `N` bytes of a hash; `N` is at most 32.
pub(super) fn truncated<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    const { assert!(N <= blake3::OUT_LEN) };
    std::array::from_fn(|at| hash.as_bytes()[at])
}
