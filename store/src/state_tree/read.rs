//! Reading one state: single keys, many keys, all of a type, everything.

use std::ops::ControlFlow;

use super::{
    CorruptNode, Entry, Node, NodeHash, NodeSource, Path, Placement, StateKey, StateRoot,
    StateTree, TreeError,
    layout::{DIGITS, TYPE_DIGITS},
    node::{Inner, Kind},
    source::{load, load_one},
};

/// So many nodes are asked for at once, at most.
pub(super) const BATCH_MAX: usize = 1024;
/// So many when a listing begins, which may stop early.
const BATCH_FIRST: usize = 16;

impl<P: Placement> StateTree<P> {
    /// The event under one key.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<u64>, TreeError<S::Error>> {
        let path = self.placement.path(event_type, state_key);
        let look = |node: &Node, depth| match node.kind() {
            Kind::Leaf(leaf) => Ok(ControlFlow::Break(leaf.find(event_type, state_key))),
            Kind::Inner(inner) => step(node, inner, depth, path).map(ControlFlow::Continue),
        };
        let mut next = root.node().map(|hash| (hash, 0));
        while let Some((hash, depth)) = next {
            let looked = match source.in_memory(hash, |node| look(node, depth)) {
                Some(looked) => looked,
                None => look(&load_one(source, hash).await?, depth),
            };
            next = match looked? {
                ControlFlow::Break(event) => return Ok(event),
                ControlFlow::Continue(next) => next,
            };
        }
        Ok(None)
    }

    /// The events under many keys, in the order of `keys`.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get_many<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
        keys: &[(&str, &str)],
    ) -> Result<Vec<Option<u64>>, TreeError<S::Error>> {
        let mut found = vec![None; keys.len()];
        let mut wanted: Vec<_> = (keys.iter().enumerate())
            .map(|(index, (event_type, state_key))| {
                (self.placement.path(event_type, state_key), index)
            })
            .collect();
        wanted.sort_unstable();
        let paths: Vec<_> = wanted.iter().map(|(path, _)| *path).collect();
        let visit = |node: &Node, range: std::ops::Range<usize>| {
            let Kind::Leaf(leaf) = node.kind() else { return };
            for (_, index) in &wanted[range] {
                let (event_type, state_key) = keys[*index];
                found[*index] = leaf.find(event_type, state_key);
            }
        };
        descend(source, root, &paths, visit).await?;
        Ok(found)
    }

    /// Shows the entries, those of one type or all, in no particular order, until `visit` breaks.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn visit<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
        event_type: Option<&str>,
        mut visit: impl FnMut(Entry<'_>) -> ControlFlow<()> + Send,
    ) -> Result<(), TreeError<S::Error>> {
        let of_type = event_type.map(|event_type| self.placement.path(event_type, ""));
        let mut pending: Vec<_> = root.node().map(|hash| (hash, 0)).into_iter().collect();
        let mut batch = BATCH_FIRST;
        while !pending.is_empty() {
            let taken = pending.split_off(pending.len().saturating_sub(batch));
            let hashes: Vec<_> = taken.iter().map(|(hash, _)| *hash).collect();
            let nodes = load(source, &hashes).await?;
            for (node, (_, depth)) in nodes.iter().zip(taken) {
                match node.kind() {
                    Kind::Leaf(leaf) => {
                        let wanted = |entry: &Entry<'_>| {
                            event_type.is_none_or(|event_type| entry.event_type == event_type)
                        };
                        if leaf.entries().filter(wanted).try_for_each(&mut visit).is_break() {
                            return Ok(());
                        }
                    }
                    Kind::Inner(inner) => push_children(node, inner, depth, of_type, &mut pending)?,
                }
            }
            batch = (batch * 2).min(BATCH_MAX);
        }
        Ok(())
    }

    /// The entries of one type, or all, in no particular order.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn list<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
        event_type: Option<&str>,
    ) -> Result<Vec<(StateKey, u64)>, TreeError<S::Error>> {
        let mut entries = Vec::new();
        let collect = |entry: Entry<'_>| {
            entries.push((entry.to_key(), entry.event));
            ControlFlow::Continue(())
        };
        self.visit(source, root, event_type, collect).await?;
        Ok(entries)
    }

    /// How many entries the state has; reads one node.
    ///
    /// # Errors
    /// Where the node cannot be read.
    pub async fn count<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
    ) -> Result<u64, TreeError<S::Error>> {
        match root.node() {
            Some(hash) => Ok(load_one(source, hash).await?.count()),
            None => Ok(0),
        }
    }
}

/// The depth at which an inner node decides, which is below [`DIGITS`]; `skip` is what it skips
/// from `depth` on.
pub(super) fn branch(node: &Node, skip: &[u8], depth: usize) -> Result<usize, CorruptNode> {
    let at = depth + skip.len();
    if at < DIGITS { Ok(at) } else { Err(node.corrupt("it lies deeper than any path")) }
}

/// Where a path leads from an inner node: a child and its depth.
pub(super) fn step(
    node: &Node,
    inner: Inner<'_>,
    depth: usize,
    path: Path,
) -> Result<Option<(NodeHash, usize)>, CorruptNode> {
    let at = branch(node, inner.skip, depth)?;
    if path.agrees(depth, inner.skip) < inner.skip.len() {
        return Ok(None);
    }
    Ok(inner.child(path.digit(at)).map(|child| (child, at + 1)))
}

/// Adds the children that can hold entries of a type, or all.
fn push_children(
    node: &Node,
    inner: Inner<'_>,
    depth: usize,
    of_type: Option<Path>,
    pending: &mut Vec<(NodeHash, usize)>,
) -> Result<(), CorruptNode> {
    let at = branch(node, inner.skip, depth)?;
    match of_type {
        Some(path) if depth < TYPE_DIGITS => {
            let skip = &inner.skip[..inner.skip.len().min(TYPE_DIGITS - depth)];
            if path.agrees(depth, skip) < skip.len() {
                return Ok(());
            }
            if at < TYPE_DIGITS {
                pending.extend(inner.child(path.digit(at)).map(|child| (child, at + 1)));
                return Ok(());
            }
        }
        _ => {}
    }
    pending.extend(inner.children().map(|(_, child)| (child, at + 1)));
    Ok(())
}

/// Reads, level by level, the nodes on the way to each of `paths`, which are sorted, and shows
/// each node once with the range of the paths that lead to it.
pub(super) async fn descend<S: NodeSource>(
    source: &S,
    root: StateRoot,
    paths: &[Path],
    mut visit: impl FnMut(&Node, std::ops::Range<usize>) + Send,
) -> Result<(), TreeError<S::Error>> {
    let mut level = Vec::new();
    if !paths.is_empty() {
        level.extend(root.node().map(|hash| (hash, 0, 0..paths.len())));
    }
    while !level.is_empty() {
        let mut below = Vec::new();
        for chunk in level.chunks(BATCH_MAX) {
            let nodes = load_level(source, chunk).await?;
            for (node, (_, depth, range)) in nodes.iter().zip(chunk) {
                visit(node, range.clone());
                let Kind::Inner(inner) = node.kind() else { continue };
                let mut start = range.start;
                while start < range.end {
                    let path = paths[start];
                    let at = branch(node, inner.skip, *depth)?;
                    let alike = |other: &Path| path.parts_from(*other) > at;
                    let len = paths[start..range.end].iter().take_while(|p| alike(p)).count();
                    if let Some((child, depth)) = step(node, inner, *depth, path)? {
                        below.push((child, depth, start..start + len));
                    }
                    start += len.max(1);
                }
            }
        }
        level = below;
    }
    Ok(())
}

type Level = [(NodeHash, usize, std::ops::Range<usize>)];

async fn load_level<S: NodeSource>(
    source: &S,
    level: &Level,
) -> Result<Vec<Node>, TreeError<S::Error>> {
    if let [(hash, ..)] = level {
        return Ok(vec![load_one(source, *hash).await?]);
    }
    let hashes: Vec<_> = level.iter().map(|(hash, ..)| *hash).collect();
    load(source, &hashes).await
}
