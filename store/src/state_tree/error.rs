//! What can go wrong with a tree.

use super::NodeHash;

/// A node whose bytes cannot have been written by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("state tree node {hash} is corrupt: {reason}")]
pub struct CorruptNode {
    /// The name under which it was stored.
    pub hash: NodeHash,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Why an operation on a tree failed. `E` is the error of the [`NodeSource`](super::NodeSource).
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E> {
    /// Nodes could not be read.
    #[error("nodes of a state tree could not be read")]
    Source(#[source] E),
    /// A node was read that does not fit where it stands.
    #[error(transparent)]
    Corrupt(#[from] CorruptNode),
    /// The source answered with fewer nodes than it was asked for.
    #[error("the source of state tree nodes gave {given} nodes for {asked} hashes")]
    Short {
        /// How many hashes it was given.
        asked: usize,
        /// How many nodes it gave back.
        given: usize,
    },
}

/// Why [`CachedNodes`](super::CachedNodes) has no answer. `E` is the error of the
/// [`NodeRows`](super::NodeRows).
#[derive(Debug, thiserror::Error)]
pub enum NodeReadError<E> {
    /// The rows could not be read.
    #[error("rows of a state tree could not be read")]
    Rows(#[source] E),
    /// A node that another one refers to is not stored.
    #[error("state tree node {0} is missing")]
    Missing(NodeHash),
    /// A row is no node.
    #[error(transparent)]
    Corrupt(#[from] CorruptNode),
}
