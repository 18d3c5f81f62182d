//! What differs between two states. Only subtrees whose hashes differ are read.

use super::{
    CorruptNode, Entry, Node, NodeHash, NodeSource, Path, Placement, StateKey, StateRoot,
    StateTree, TreeError,
    layout::FANOUT,
    node::Kind,
    read::{BATCH_MAX, branch},
    source::load,
};

/// A key under which two states have not the same event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The key.
    pub key: StateKey,
    /// The first state's event.
    pub old: Option<u64>,
    /// The second state's event.
    pub new: Option<u64>,
}

impl<P: Placement> StateTree<P> {
    /// The keys under which two states differ, in no particular order.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn diff<S: NodeSource>(
        &self,
        source: &S,
        old: StateRoot,
        new: StateRoot,
    ) -> Result<Vec<Difference>, TreeError<S::Error>> {
        let top = |root: StateRoot| root.node().map_or(Side::Empty, Side::Stored);
        let mut walk = Walk { tree: self, pending: Vec::new(), found: Vec::new() };
        walk.push(0, [top(old), top(new)]);
        while !walk.pending.is_empty() {
            let rest = walk.pending.len().saturating_sub(BATCH_MAX / 2);
            let mut pairs = walk.pending.split_off(rest);
            read_sides(source, &mut pairs).await?;
            for pair in pairs {
                walk.step(pair)?;
            }
        }
        Ok(walk.found)
    }
}

/// One state's part of a pair of subtrees.
#[derive(Clone)]
enum Side {
    Empty,
    Stored(NodeHash),
    Leaf(Node),
    /// An inner node, so many of whose skipped digits are behind.
    Inner(Node, usize),
    /// Part of a leaf, where the other state has an inner node. Sorted by key.
    Entries(Vec<Placed>),
}

#[derive(Clone)]
struct Placed {
    path: Path,
    key: StateKey,
    event: u64,
}

/// Subtrees at the same place in both states.
struct Pair {
    depth: usize,
    sides: [Side; 2],
}

/// Replaces what is only named by what is read.
async fn read_sides<S: NodeSource>(
    source: &S,
    pairs: &mut [Pair],
) -> Result<(), TreeError<S::Error>> {
    let sides = pairs.iter().flat_map(|pair| &pair.sides);
    let hashes: Vec<_> = sides
        .filter_map(|side| match side {
            Side::Stored(hash) => Some(*hash),
            _ => None,
        })
        .collect();
    let mut nodes = load(source, &hashes).await?.into_iter();
    for side in pairs.iter_mut().flat_map(|pair| &mut pair.sides) {
        if let Side::Stored(_) = side
            && let Some(node) = nodes.next()
        {
            *side = match node.kind() {
                Kind::Leaf(_) => Side::Leaf(node),
                Kind::Inner(_) => Side::Inner(node, 0),
            };
        }
    }
    Ok(())
}

struct Walk<'t, P> {
    tree: &'t StateTree<P>,
    pending: Vec<Pair>,
    found: Vec<Difference>,
}

impl<P: Placement> Walk<'_, P> {
    fn push(&mut self, depth: usize, sides: [Side; 2]) {
        match &sides {
            [Side::Empty, Side::Empty] => {}
            [Side::Stored(a), Side::Stored(b)] if a == b => {}
            _ => self.pending.push(Pair { depth, sides }),
        }
    }

    /// Compares two subtrees that are read, as far as their topmost nodes go.
    fn step(&mut self, Pair { depth, sides }: Pair) -> Result<(), CorruptNode> {
        match &sides {
            [Side::Inner(old, 0), Side::Inner(new, 0)] if self.descend(depth, old, new)? => Ok(()),
            [Side::Inner(..), _] | [_, Side::Inner(..)] => self.split(depth, sides),
            [Side::Leaf(old), Side::Leaf(new)] => {
                if let (Kind::Leaf(old), Kind::Leaf(new)) = (old.kind(), new.kind()) {
                    self.compare(old.entries(), new.entries());
                }
                Ok(())
            }
            [old, new] => {
                let (old, new) = (self.placed(old), self.placed(new));
                self.compare(old.iter().map(Placed::entry), new.iter().map(Placed::entry));
                Ok(())
            }
        }
    }

    /// Walks two sorted lists of entries side by side.
    fn compare<'e>(
        &mut self,
        old: impl Iterator<Item = Entry<'e>>,
        new: impl Iterator<Item = Entry<'e>>,
    ) {
        let (mut old, mut new) = (old.peekable(), new.peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.key().cmp(&new.key()),
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            let (was, is) = (before.map(|entry| entry.event), after.map(|entry| entry.event));
            if was != is
                && let Some(entry) = before.or(after)
            {
                self.found.push(Difference { key: entry.to_key(), old: was, new: is });
            }
        }
    }

    /// Pairs up the children of two inner nodes that branch at the same place, as nearly all do;
    /// says whether these did.
    fn descend(&mut self, depth: usize, old: &Node, new: &Node) -> Result<bool, CorruptNode> {
        let (Kind::Inner(old_inner), Kind::Inner(new_inner)) = (old.kind(), new.kind()) else {
            return Ok(false);
        };
        if old_inner.skip != new_inner.skip {
            return Ok(false);
        }
        let at = branch(old, old_inner.skip, depth)?;
        let side = |child: Option<NodeHash>| child.map_or(Side::Empty, Side::Stored);
        for digit in old_inner.digits_of_either(new_inner) {
            let (old, new) = (old_inner.child(digit), new_inner.child(digit));
            if old != new {
                self.push(at + 1, [side(old), side(new)]);
            }
        }
        Ok(true)
    }

    /// Pairs up what lies below two subtrees of which at least one is an inner node.
    fn split(&mut self, depth: usize, sides: [Side; 2]) -> Result<(), CorruptNode> {
        let sides = sides.map(|side| match side {
            Side::Leaf(_) => Side::Entries(self.placed(&side)),
            side => side,
        });
        let way = shared_way(depth, &sides)?;
        let at = depth + way.len();
        let [old, new] = sides.map(|side| children(side, at, way.len()));
        for (old, new) in old.into_iter().zip(new) {
            self.push(at + 1, [old, new]);
        }
        Ok(())
    }

    /// The entries of a side without inner nodes, sorted by key.
    fn placed(&self, side: &Side) -> Vec<Placed> {
        match side {
            Side::Entries(entries) => entries.clone(),
            Side::Leaf(node) => {
                let Kind::Leaf(leaf) = node.kind() else { return Vec::new() };
                let place = |entry: Entry<'_>| Placed {
                    path: self.tree.placement.path(entry.event_type, entry.state_key),
                    key: entry.to_key(),
                    event: entry.event,
                };
                leaf.entries().map(place).collect()
            }
            Side::Empty | Side::Stored(_) | Side::Inner(..) => Vec::new(),
        }
    }
}

/// The digits that all below both sides share from `depth` on.
fn shared_way(depth: usize, sides: &[Side; 2]) -> Result<Vec<u8>, CorruptNode> {
    let mut way: Option<Vec<u8>> = None;
    for side in sides {
        let Side::Inner(node, behind) = side else { continue };
        let Kind::Inner(inner) = node.kind() else { continue };
        let skip = inner.skip.get(*behind..).unwrap_or_default();
        branch(node, skip, depth)?;
        let alike = |way: &Vec<u8>| way.iter().zip(skip).take_while(|(a, b)| a == b).count();
        let len = way.as_ref().map_or(skip.len(), alike);
        way = Some(skip[..len].to_vec());
    }
    let mut way = way.unwrap_or_default();
    for side in sides {
        let Side::Entries(entries) = side else { continue };
        let alike = entries.iter().map(|placed| placed.path.agrees(depth, &way)).min();
        way.truncate(alike.unwrap_or(way.len()));
    }
    Ok(way)
}

/// What lies below a side, by the digit that decides at depth `at`, after `len` shared digits.
fn children(side: Side, at: usize, len: usize) -> [Side; FANOUT] {
    let mut children = std::array::from_fn(|_| Side::Empty);
    match side {
        Side::Inner(node, behind) => {
            let Kind::Inner(inner) = node.kind() else { return children };
            let behind = behind + len;
            if let Some(digit) = inner.skip.get(behind).copied() {
                children[usize::from(digit)] = Side::Inner(node, behind + 1);
            } else {
                for (digit, hash) in inner.children() {
                    children[usize::from(digit)] = Side::Stored(hash);
                }
            }
        }
        Side::Entries(entries) => {
            for placed in entries {
                let child = &mut children[usize::from(placed.path.digit(at))];
                match child {
                    Side::Entries(entries) => entries.push(placed),
                    _ => *child = Side::Entries(vec![placed]),
                }
            }
        }
        Side::Empty | Side::Stored(_) | Side::Leaf(_) => {}
    }
    children
}

impl Placed {
    fn entry(&self) -> Entry<'_> {
        let StateKey { event_type, state_key } = &self.key;
        Entry { event_type, state_key, event: self.event }
    }
}
