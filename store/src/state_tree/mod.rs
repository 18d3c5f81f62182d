//! The state of a room at an event: a persistent hash trie of `(event type, state_key) -> event
//! number`, named by its [`StateRoot`].
//!
//! Start at [`StateTree`]: its operations read nodes through a [`NodeSource`] and give new nodes
//! back to be written; nothing here knows how nodes are stored. [`CachedNodes`] puts a
//! [`NodeCache`] in front of stored rows.
//!
//! - *Canonical.* The form of a tree is a function of the set it holds (see [`apply`](StateTree::apply)),
//!   so equal sets have equal roots, and equal subtrees are stored once.
//! - *Placed by hash.* A key's [`Path`] is the hash of its type, then of its `state_key`, under a
//!   secret of the database: one type is one subtree, and nobody outside can crowd one path.
//! - *Small.* A node is a leaf of entries whose [weight](layout) is bounded, or has up to
//!   [`FANOUT`](layout::FANOUT) children. What was tried, and what one change writes in a room of
//!   100,000 members, is told at [`layout`].
//!
//! Never here: tables, transactions, Matrix rules, clocks.

mod apply;
mod cache;
mod diff;
mod edit;
mod error;
mod follow;
mod hash;
pub mod layout;
mod leaf;
mod node;
mod path;
mod read;
mod source;
#[cfg(test)]
mod tests;

pub use apply::{Applied, Change};
pub use cache::NodeCache;
pub use diff::Difference;
pub use error::{CorruptNode, NodeReadError, TreeError};
pub use hash::{NodeHash, StateRoot};
pub use leaf::{Entry, StateKey};
pub use node::Node;
pub use path::{KeyedPlacement, Path, Placement};
pub use source::{CachedNodes, NodeRows, NodeSource};

/// The operations on trees of one database.
///
/// `P` says where keys lie; outside tests it is [`KeyedPlacement`].
#[derive(Debug, Clone)]
pub struct StateTree<P = KeyedPlacement> {
    placement: P,
    hasher: hash::NodeHasher,
}

impl StateTree {
    /// Trees under the database's secret. Another secret makes other roots of the same state.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self::with_placement(secret, KeyedPlacement::new(secret))
    }
}

impl<P: Placement> StateTree<P> {
    /// Trees whose keys are placed by `placement`.
    #[must_use]
    pub fn with_placement(secret: &[u8; 32], placement: P) -> Self {
        Self { placement, hasher: hash::NodeHasher::new(secret) }
    }

    /// Reads a stored node back.
    ///
    /// # Errors
    /// Where `bytes` are not those that `hash` names, or are no node.
    pub fn decode_node(&self, hash: NodeHash, bytes: &[u8]) -> Result<Node, CorruptNode> {
        if self.hasher.hash(bytes) != hash {
            return Err(CorruptNode { hash, reason: "its bytes have another hash" });
        }
        Node::decode(hash, bytes)
    }
}
