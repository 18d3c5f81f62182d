//! Where nodes come from.

use super::{Node, NodeCache, NodeHash, NodeReadError, Placement, StateTree, TreeError};

/// Gives nodes by their hashes. Every call may be a round trip; the operations ask for all nodes
/// of a level at once.
pub trait NodeSource: Sync {
    /// Why nodes cannot be had.
    type Error: std::error::Error + Send + 'static;

    /// The nodes with these hashes, in their order; a missing one is an error.
    fn nodes(
        &self,
        hashes: &[NodeHash],
    ) -> impl Future<Output = Result<Vec<Node>, Self::Error>> + Send;

    /// Shows a node that can be had without waiting, if the source has a faster way to it.
    fn in_memory<T>(&self, _hash: NodeHash, _read: impl FnOnce(&Node) -> T) -> Option<T> {
        None
    }
}

/// Reads the stored bytes of nodes.
pub trait NodeRows: Sync {
    /// Why rows cannot be had.
    type Error: std::error::Error + Send + 'static;

    /// The bytes of the nodes with these hashes, in their order; `None` where there is no row.
    fn rows(
        &self,
        hashes: &[NodeHash],
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, Self::Error>> + Send;
}

/// Stored nodes behind a cache. Nodes never change, so what is cached is always right.
#[derive(Debug, Clone, Copy)]
pub struct CachedNodes<'a, R, P = super::KeyedPlacement> {
    /// Checks what is read.
    pub tree: &'a StateTree<P>,
    /// Shared by all rooms.
    pub cache: &'a NodeCache,
    /// One room's rows.
    pub rows: R,
}

impl<R: NodeRows, P: Placement> NodeSource for CachedNodes<'_, R, P> {
    type Error = NodeReadError<R::Error>;

    async fn nodes(&self, hashes: &[NodeHash]) -> Result<Vec<Node>, Self::Error> {
        let mut found: Vec<_> = hashes.iter().map(|hash| self.cache.get(*hash)).collect();
        let absent = || hashes.iter().zip(&found).filter(|(_, node)| node.is_none());
        let missing: Vec<_> = absent().map(|(hash, _)| *hash).collect();
        if !missing.is_empty() {
            let rows = self.rows.rows(&missing).await.map_err(NodeReadError::Rows)?;
            let mut rows = missing.iter().zip(rows);
            for slot in found.iter_mut().filter(|slot| slot.is_none()) {
                let Some((hash, row)) = rows.next() else { break };
                let bytes = row.ok_or(NodeReadError::Missing(*hash))?;
                let node = self.tree.decode_node(*hash, &bytes)?;
                self.cache.insert(node.clone());
                *slot = Some(node);
            }
        }
        let named = hashes.iter().zip(found);
        named.map(|(hash, node)| node.ok_or(NodeReadError::Missing(*hash))).collect()
    }

    fn in_memory<T>(&self, hash: NodeHash, read: impl FnOnce(&Node) -> T) -> Option<T> {
        self.cache.read(hash, read)
    }
}

/// All nodes of `hashes`, asked for together.
pub(super) async fn load<S: NodeSource>(
    source: &S,
    hashes: &[NodeHash],
) -> Result<Vec<Node>, TreeError<S::Error>> {
    let nodes = source.nodes(hashes).await.map_err(TreeError::Source)?;
    if nodes.len() != hashes.len() {
        return Err(TreeError::Short { asked: hashes.len(), given: nodes.len() });
    }
    Ok(nodes)
}

/// One node.
pub(super) async fn load_one<S: NodeSource>(
    source: &S,
    hash: NodeHash,
) -> Result<Node, TreeError<S::Error>> {
    if let Some(node) = source.in_memory(hash, Node::clone) {
        return Ok(node);
    }
    load(source, &[hash]).await?.pop().ok_or(TreeError::Short { asked: 1, given: 0 })
}
