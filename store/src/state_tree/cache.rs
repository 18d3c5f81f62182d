//! Decoded nodes in memory, shared by all rooms.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;

use super::{Node, NodeHash};

/// Shards, so that threads seldom meet. A power of two.
const SHARDS: usize = 32;
/// Bytes that a cached node costs beside those that are stored: its header, counts, map entry.
const NODE_OVERHEAD: usize = size_of::<Node>() + 16 + size_of::<Slot>() + 2 * 24;

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
    slots: Vec<Slot>,
    by_hash: HashMap<u64, u32, BuildHasherDefault<AlreadyHashed>>,
    bytes: usize,
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    node: Arc<Node>,
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
        // The high bits choose the shard, the low ones the place in its map.
        &self.shards[(hash.bits() >> 48) as usize % SHARDS]
    }

    /// The node, if it is held.
    #[must_use]
    pub fn get(&self, hash: NodeHash) -> Option<Arc<Node>> {
        let shard = self.shard(hash).read();
        let slot = shard.slots.get(*shard.by_hash.get(&hash.bits())? as usize)?;
        if slot.node.hash() != hash {
            return None; // Another node with the same 64 bits.
        }
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&slot.node))
    }

    /// Holds a node, and drops others where that makes too many.
    pub fn insert(&self, node: Arc<Node>) {
        if cost(&node) > self.shard_bytes_max {
            return;
        }
        let mut shard = self.shard(node.hash()).write();
        if shard.by_hash.contains_key(&node.hash().bits()) {
            return;
        }
        shard.bytes += cost(&node);
        while shard.bytes > self.shard_bytes_max && !shard.slots.is_empty() {
            shard.drop_one();
        }
        let at = shard.slots.len() as u32;
        shard.by_hash.insert(node.hash().bits(), at);
        shard.slots.push(Slot { node, used: AtomicBool::new(false) });
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
        for _ in 0..2 * self.slots.len() {
            let at = self.hand % self.slots.len();
            self.hand = at + 1;
            if !std::mem::take(self.slots[at].used.get_mut()) {
                self.remove(at);
                return;
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let slot = self.slots.swap_remove(at);
        self.bytes -= cost(&slot.node);
        self.by_hash.remove(&slot.node.hash().bits());
        if let Some(moved) = self.slots.get(at) {
            self.by_hash.insert(moved.node.hash().bits(), at as u32);
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
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}
