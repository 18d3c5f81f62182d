//! One batch of changes against nodes that were read: the pure part of
//! [`StateTree::apply`](super::StateTree::apply).

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{
    Change, CorruptNode, Entry, Node, NodeHash, Path, Placement, StateRoot, StateTree,
    layout::{FANOUT, LEAF_WEIGHT_MAX},
    leaf::Total,
    node::{Inner, InnerParts, Kind, Leaf, Skip},
    read::branch,
};

/// A change and where its key lies.
#[derive(Clone, Copy)]
pub(super) struct Placed<'a> {
    pub path: Path,
    pub change: Change<'a>,
}

impl<'a> Placed<'a> {
    pub fn key(&self) -> (&'a str, &'a str) {
        (self.change.event_type, self.change.state_key)
    }

    fn entry(&self) -> Option<Entry<'a>> {
        let Change { event_type, state_key, event } = self.change;
        event.map(|event| Entry { event_type, state_key, event })
    }
}

/// Why an edit did not get to its end.
pub(super) enum Stop {
    /// Nodes have to be read first: [`Edit::missing`].
    Missing,
    Corrupt(CorruptNode),
}

impl From<CorruptNode> for Stop {
    fn from(node: CorruptNode) -> Self {
        Self::Corrupt(node)
    }
}

/// A subtree after the changes. A node is hashed only when it is known to stay.
enum Subtree<'a> {
    /// As it was, at the place where it was.
    Stored(NodeHash),
    Empty,
    /// Sorted by key.
    Leaf(Vec<Entry<'a>>),
    Inner(InnerParts),
}

impl Subtree<'_> {
    /// What a changed subtree holds.
    fn changed_total(&self) -> Option<Total> {
        match self {
            Self::Stored(_) => None,
            Self::Empty => Some(Total::default()),
            Self::Leaf(entries) => Some(Total::of(entries)),
            Self::Inner(parts) => Some(parts.total),
        }
    }
}

type Children<'a> = Vec<(u8, Subtree<'a>)>;

/// An inner node, or what is left of it below a new branch in its skipped digits.
#[derive(Clone, Copy)]
struct Trunk<'a> {
    node: &'a Node,
    inner: Inner<'a>,
    /// Digits to skip from `depth` on.
    skip: &'a [u8],
    depth: usize,
}

/// One pass over the nodes at hand.
pub(super) struct Edit<'a, P> {
    tree: &'a StateTree<P>,
    loaded: &'a FxHashMap<NodeHash, Node>,
    /// Nodes without which it cannot go on.
    pub missing: Vec<NodeHash>,
    /// Nodes that were made.
    pub new: Vec<Node>,
}

impl<'a, P: Placement> Edit<'a, P> {
    pub fn new(tree: &'a StateTree<P>, loaded: &'a FxHashMap<NodeHash, Node>) -> Self {
        Self { tree, loaded, missing: Vec::new(), new: Vec::new() }
    }

    /// Makes the changes, which are in the order of their paths.
    pub fn run(&mut self, root: StateRoot, changes: &[Placed<'a>]) -> Result<StateRoot, Stop> {
        if changes.is_empty() {
            return Ok(root);
        }
        let subtree = match root.node() {
            Some(hash) => self.change(hash, 0, changes)?,
            None => self.grow_from(changes, 0),
        };
        Ok(self.seal(subtree).into())
    }

    fn node(&mut self, hash: NodeHash) -> Result<&'a Node, Stop> {
        self.loaded.get(&hash).ok_or_else(|| {
            self.missing.push(hash);
            Stop::Missing
        })
    }

    /// A stored subtree, changed.
    fn change(
        &mut self,
        hash: NodeHash,
        depth: usize,
        changes: &[Placed<'a>],
    ) -> Result<Subtree<'a>, Stop> {
        let node = self.node(hash)?;
        match node.kind() {
            Kind::Leaf(leaf) => Ok(match merge(leaf, changes) {
                Some(entries) => self.grow(entries, depth),
                None => Subtree::Stored(hash),
            }),
            Kind::Inner(inner) => {
                branch(node, inner.skip, depth)?;
                self.change_inner(Trunk { node, inner, skip: inner.skip, depth }, changes)
            }
        }
    }

    fn change_inner(
        &mut self,
        trunk: Trunk<'a>,
        changes: &[Placed<'a>],
    ) -> Result<Subtree<'a>, Stop> {
        let Trunk { node, inner, skip, depth } = trunk;
        let inserted = changes.iter().filter(|placed| placed.change.event.is_some());
        let alike = inserted.map(|placed| placed.path.agrees(depth, skip)).min();
        if let Some(alike) = alike.filter(|alike| *alike < skip.len()) {
            return self.fork(trunk, alike, changes);
        }
        let at = depth + skip.len();
        let mut total = node.total();
        let mut children: Children<'a> = Vec::with_capacity(FANOUT);
        let mut stopped = None;
        for group in groups(agreeing(changes, depth, skip), at) {
            let digit = group[0].path.digit(at);
            let (before, after) = match inner.child(digit) {
                Some(hash) => {
                    let before = self.node(hash).map(Node::total);
                    (before, self.change(hash, at + 1, group))
                }
                None => (Ok(Total::default()), Ok(self.grow_from(group, at + 1))),
            };
            match (before, after) {
                (Ok(before), Ok(subtree)) => {
                    let Some(after) = subtree.changed_total() else { continue };
                    total = total.replace(before, after);
                    children.push((digit, subtree));
                }
                (Err(stop), _) | (_, Err(stop)) => stopped = Some(stop),
            }
        }
        if let Some(stop) = stopped {
            return Err(stop);
        }
        if children.is_empty() && skip.len() == inner.skip.len() {
            return Ok(Subtree::Stored(node.hash()));
        }
        let changed = children.iter().fold(0_u64, |digits, (digit, _)| digits | 1 << digit);
        let kept = inner.children().filter(|(digit, _)| changed & (1 << digit) == 0);
        children.extend(kept.map(|(digit, hash)| (digit, Subtree::Stored(hash))));
        self.join(node, skip.into(), children, total)
    }

    /// A new branch within the skipped digits of an inner node, after the first `alike` of them.
    fn fork(
        &mut self,
        trunk: Trunk<'a>,
        alike: usize,
        changes: &[Placed<'a>],
    ) -> Result<Subtree<'a>, Stop> {
        let Trunk { node, skip, depth, .. } = trunk;
        let (skip, below) = (&skip[..alike], &skip[alike..]);
        let Some((&old_digit, below)) = below.split_first() else {
            return self.change_inner(trunk, changes);
        };
        let at = depth + alike;
        let old = Trunk { skip: below, depth: at + 1, ..trunk };
        let mut children: Children<'a> = Vec::with_capacity(FANOUT);
        let mut of_old: &[Placed<'a>] = &[];
        for group in groups(agreeing(changes, depth, skip), at) {
            match group[0].path.digit(at) {
                digit if digit == old_digit => of_old = group,
                digit => children.push((digit, self.grow_from(group, at + 1))),
            }
        }
        children.push((old_digit, self.change_inner(old, of_old)?));
        let total = children.iter().fold(Total::default(), |sum, (_, child)| {
            sum.replace(Total::default(), child.changed_total().unwrap_or(node.total()))
        });
        self.join(node, skip.into(), children, total)
    }

    /// The subtree of these children in the form that its set has. `node` is whose they were.
    fn join(
        &mut self,
        node: &Node,
        mut skip: Skip,
        mut children: Children<'a>,
        total: Total,
    ) -> Result<Subtree<'a>, Stop> {
        children.retain(|(_, child)| !matches!(child, Subtree::Empty));
        if children.is_empty() {
            return Ok(Subtree::Empty);
        }
        if total.weight <= LEAF_WEIGHT_MAX {
            return self.flatten(node, children);
        }
        if children.len() == 1
            && let Some((digit, child)) = children.pop()
        {
            skip.push(digit);
            return self.lengthen(skip, child);
        }
        children.sort_unstable_by_key(|(digit, _)| *digit);
        let children = children.into_iter();
        let children = children
            .filter_map(|(digit, child)| self.seal(child).map(|hash| (digit, hash)))
            .collect();
        Ok(Subtree::Inner(InnerParts { skip, total, children }))
    }

    /// All entries of small children as one leaf.
    fn flatten(&mut self, node: &Node, children: Children<'a>) -> Result<Subtree<'a>, Stop> {
        let mut entries = Vec::new();
        let mut is_missing = false;
        for (_, child) in children {
            match child {
                Subtree::Empty => {}
                Subtree::Leaf(leaf) => entries.extend(leaf),
                Subtree::Inner(_) => return Err(too_heavy(node).into()),
                Subtree::Stored(hash) => match self.node(hash).map(Node::kind) {
                    Ok(Kind::Leaf(leaf)) => entries.extend(leaf.entries()),
                    Ok(Kind::Inner(_)) => return Err(too_heavy(node).into()),
                    Err(_) => is_missing = true,
                },
            }
        }
        if is_missing {
            return Err(Stop::Missing);
        }
        entries.sort_unstable_by_key(Entry::key);
        Ok(Subtree::Leaf(entries))
    }

    /// What was an only child, in the place of its parent.
    fn lengthen(&mut self, mut skip: Skip, child: Subtree<'a>) -> Result<Subtree<'a>, Stop> {
        match child {
            Subtree::Inner(parts) => {
                skip.extend_from_slice(&parts.skip);
                Ok(Subtree::Inner(InnerParts { skip, ..parts }))
            }
            Subtree::Stored(hash) => {
                let node = self.node(hash)?;
                Ok(match node.kind() {
                    // Not `Stored`: that would say that nothing changed in its parent's place.
                    Kind::Leaf(leaf) => Subtree::Leaf(leaf.entries().collect()),
                    Kind::Inner(inner) => {
                        skip.extend_from_slice(inner.skip);
                        let children = inner.children().collect();
                        Subtree::Inner(InnerParts { skip, total: node.total(), children })
                    }
                })
            }
            Subtree::Leaf(_) | Subtree::Empty => Ok(child),
        }
    }

    /// A subtree of what `changes` insert; they are in the order of their paths.
    fn grow_from(&mut self, changes: &[Placed<'a>], depth: usize) -> Subtree<'a> {
        let inserted = changes.iter().filter_map(|placed| Some((placed.path, placed.entry()?)));
        let inserted: Vec<_> = inserted.collect();
        self.grow_placed(&inserted, depth)
    }

    /// A subtree of entries that are sorted by key.
    fn grow(&mut self, entries: Vec<Entry<'a>>, depth: usize) -> Subtree<'a> {
        if !entries.is_empty() && Total::of(&entries).weight <= LEAF_WEIGHT_MAX {
            return Subtree::Leaf(entries);
        }
        let path = |entry: &Entry<'_>| self.tree.placement.path(entry.event_type, entry.state_key);
        let mut placed: Vec<_> = entries.iter().map(|entry| (path(entry), *entry)).collect();
        placed.sort_by_key(|(path, _)| *path);
        self.grow_placed(&placed, depth)
    }

    /// A subtree of entries that are sorted by path.
    fn grow_placed(&mut self, placed: &[(Path, Entry<'a>)], depth: usize) -> Subtree<'a> {
        let ([(first, _), ..], [.., (last, _)]) = (placed, placed) else {
            return Subtree::Empty;
        };
        let entries = placed.iter().map(|(_, entry)| *entry);
        let count = placed.len() as u64;
        let total = Total { count, weight: entries.clone().map(|entry| entry.weight()).sum() };
        if total.weight <= LEAF_WEIGHT_MAX || first == last {
            let mut entries: Vec<_> = entries.collect();
            entries.sort_unstable_by_key(Entry::key);
            return Subtree::Leaf(entries);
        }
        let at = first.parts_from(*last);
        let skip = (depth..at).map(|depth| first.digit(depth)).collect();
        let mut children = Vec::with_capacity(FANOUT);
        for group in placed.chunk_by(|(a, _), (b, _)| a.digit(at) == b.digit(at)) {
            let child = self.grow_placed(group, at + 1);
            children.extend(self.seal(child).map(|hash| (group[0].0.digit(at), hash)));
        }
        Subtree::Inner(InnerParts { skip, total, children })
    }

    /// Gives a subtree its hash, now that its node is known to stay.
    fn seal(&mut self, subtree: Subtree<'a>) -> Option<NodeHash> {
        let node = match subtree {
            Subtree::Empty => return None,
            Subtree::Stored(hash) => return Some(hash),
            Subtree::Leaf(entries) => Node::leaf(&self.tree.hasher, &entries),
            Subtree::Inner(parts) => Node::inner(&self.tree.hasher, &parts),
        };
        let hash = node.hash();
        self.new.push(node);
        Some(hash)
    }
}

fn too_heavy(node: &Node) -> CorruptNode {
    node.corrupt("it holds more than it says")
}

/// Those of `changes` whose paths have the digits `skip` from `depth` on. They lie side by side.
fn agreeing<'c, 'a>(changes: &'c [Placed<'a>], depth: usize, skip: &[u8]) -> &'c [Placed<'a>] {
    let agrees = |placed: &Placed<'_>| placed.path.agrees(depth, skip) == skip.len();
    let start = changes.iter().position(agrees).unwrap_or(changes.len());
    let len = changes[start..].iter().take_while(|placed| agrees(placed)).count();
    &changes[start..start + len]
}

/// `changes` by their digit at a depth.
fn groups<'c, 'a>(changes: &'c [Placed<'a>], at: usize) -> impl Iterator<Item = &'c [Placed<'a>]> {
    changes.chunk_by(move |a, b| a.path.digit(at) == b.path.digit(at))
}

/// A leaf's entries after the changes, sorted; `None` where they stay as they are.
fn merge<'a>(leaf: Leaf<'a>, changes: &[Placed<'a>]) -> Option<Vec<Entry<'a>>> {
    let mut changes: SmallVec<[Placed<'a>; 4]> = changes.into();
    changes.sort_unstable_by_key(Placed::key);
    let mut changes = changes.into_iter().peekable();
    let mut is_changed = false;
    let mut merged = Vec::with_capacity(16);
    for entry in leaf.entries() {
        while let Some(before) = changes.next_if(|change| change.key() < entry.key()) {
            is_changed |= before.change.event.is_some();
            merged.extend(before.entry());
        }
        match changes.next_if(|change| change.key() == entry.key()) {
            Some(change) => {
                is_changed |= change.change.event != Some(entry.event);
                merged.extend(change.entry());
            }
            None => merged.push(entry),
        }
    }
    for after in changes {
        is_changed |= after.change.event.is_some();
        merged.extend(after.entry());
    }
    is_changed.then_some(merged)
}
