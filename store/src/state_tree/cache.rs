//! Decoded nodes in memory, shared by all rooms.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

use super::{Node, NodeHash, layout::HASH_LEN};

/// Shards, so that threads seldom meet. A power of two.
const SHARDS: usize = 32;
/// Bytes that a cached node costs beside those that are stored: its name, reference counts, its
/// places in the map (which is up to half empty) and on the clock.
const NODE_OVERHEAD: usize = HASH_LEN + 16 + 2 * size_of::<(NodeHash, Slot)>() + HASH_LEN;

/// Nodes by hash, bounded by bytes.
///
/// A full shard drops what was not asked for since the hand of its clock last came by.
#[derive(Debug)]
pub struct NodeCache {
    shards: Box<[RwLock<Shard>]>,
    shard_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    nodes: HashMap<NodeHash, Slot, BuildHasherDefault<AlreadyHashed>>,
    clock: Vec<NodeHash>,
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    node: Node,
    used: AtomicBool,
}

impl NodeCache {
    /// An empty cache that grows to about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, shard_bytes_max: bytes_max / SHARDS }
    }

    fn shard(&self, hash: NodeHash) -> &RwLock<Shard> {
        // Not the bits that the shard's map looks at first.
        &self.shards[(hash.bits() >> 40) as usize % SHARDS]
    }

    /// The node, if it is held.
    #[must_use]
    pub fn get(&self, hash: NodeHash) -> Option<Node> {
        self.read(hash, Node::clone)
    }

    /// Shows the node to `read`, if it is held. Cheaper than [`NodeCache::get`], whose handle is
    /// counted in the node's own memory.
    pub fn read<T>(&self, hash: NodeHash, read: impl FnOnce(&Node) -> T) -> Option<T> {
        let shard = self.shard(hash).read();
        let slot = shard.nodes.get(&hash)?;
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(read(&slot.node))
    }

    /// Holds a node, and drops others where that makes too many.
    pub fn insert(&self, node: Node) {
        let (hash, cost) = (node.hash(), cost(&node));
        if cost > self.shard_bytes_max {
            return;
        }
        let mut shard = self.shard(hash).write();
        if shard.nodes.contains_key(&hash) {
            return;
        }
        while shard.bytes + cost > self.shard_bytes_max && !shard.clock.is_empty() {
            shard.drop_one();
        }
        shard.bytes += cost;
        shard.clock.push(hash);
        shard.nodes.insert(hash, Slot { node, used: AtomicBool::new(false) });
    }

    /// Bytes held, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }
}

fn cost(node: &Node) -> usize {
    node.bytes().len() + NODE_OVERHEAD
}

impl Shard {
    /// Moves the clock's hand to a node that was not used since it last came by, and drops it.
    fn drop_one(&mut self) {
        // Two rounds suffice: the first forgets every use.
        for _ in 0..2 * self.clock.len() {
            let at = self.hand % self.clock.len();
            self.hand = at + 1;
            let slot = self.nodes.get_mut(&self.clock[at]);
            if !slot.is_some_and(|slot| std::mem::take(slot.used.get_mut())) {
                let hash = self.clock.swap_remove(at);
                self.bytes -= self.nodes.remove(&hash).map_or(0, |slot| cost(&slot.node));
                return;
            }
        }
    }
}

/// Takes bits of a keyed hash as they are.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, hash: &[u8]) {
        self.0 = hash.first_chunk().map_or(0, |bits| u64::from_le_bytes(*bits));
    }
    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}
