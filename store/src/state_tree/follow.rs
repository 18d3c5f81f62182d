//! The same few keys in many states, of which each differs little from the one before.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::{
    CorruptNode, Node, NodeHash, NodeSource, Path, Placement, StateRoot, StateTree, TreeError,
    node::Kind, read::step, source::load_one,
};

/// A node and its depth.
type Place = (NodeHash, usize);
/// The event, or the place below that leads to it.
type Looked = Result<ControlFlow<Option<u64>, Option<Place>>, CorruptNode>;

/// The way to one key in the state that was looked at last.
struct Way<'k> {
    event_type: &'k str,
    state_key: &'k str,
    path: Path,
    /// The nodes on the way, from the root on. What lies behind the last that was passed may be of
    /// an earlier state: still, from each node on, it is the way to `found`.
    nodes: SmallVec<[Place; 8]>,
    found: Option<u64>,
}

impl<P: Placement> StateTree<P> {
    /// The events under `keys`, in their order, in each of `roots`, in theirs. Of each state only
    /// the nodes are read in which the way to a key differs from that in the state before.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get_in_each<S: NodeSource, const N: usize>(
        &self,
        source: &S,
        roots: &[StateRoot],
        keys: [(&str, &str); N],
    ) -> Result<Vec<[Option<u64>; N]>, TreeError<S::Error>> {
        let mut ways = keys.map(|(event_type, state_key)| {
            let path = self.placement.path(event_type, state_key);
            Way { event_type, state_key, path, nodes: SmallVec::new(), found: None }
        });
        let mut found = Vec::with_capacity(roots.len());
        for root in roots {
            follow(source, *root, &mut ways).await?;
            found.push(ways.each_ref().map(|way| way.found));
        }
        Ok(found)
    }
}

/// Goes all ways in one state; the root is looked at once.
async fn follow<S: NodeSource>(
    source: &S,
    root: StateRoot,
    ways: &mut [Way<'_>],
) -> Result<(), TreeError<S::Error>> {
    let Some(hash) = root.node() else {
        ways.iter_mut().for_each(|way| way.end(0, None));
        return Ok(());
    };
    let look = |node: &Node| -> SmallVec<[Looked; 2]> {
        ways.iter().map(|way| way.look(node, 0)).collect()
    };
    let looked = match source.in_memory(hash, look) {
        Some(looked) => looked,
        None => {
            let node = load_one(source, hash).await?;
            ways.iter().map(|way| way.look(&node, 0)).collect()
        }
    };
    for (way, looked) in ways.iter_mut().zip(looked) {
        if !way.knows(0, (hash, 0)) {
            way.go_on(source, looked?).await?;
        }
    }
    Ok(())
}

impl Way<'_> {
    fn look(&self, node: &Node, depth: usize) -> Looked {
        match node.kind() {
            Kind::Leaf(leaf) => Ok(ControlFlow::Break(leaf.find(self.event_type, self.state_key))),
            Kind::Inner(inner) => step(node, inner, depth, self.path).map(ControlFlow::Continue),
        }
    }

    /// From below the root to the key, or to a node that was passed before: the same node at the
    /// same depth leads to the same event.
    async fn go_on<S: NodeSource>(
        &mut self,
        source: &S,
        mut looked: ControlFlow<Option<u64>, Option<Place>>,
    ) -> Result<(), TreeError<S::Error>> {
        let mut passed = 1;
        loop {
            let place = match looked {
                ControlFlow::Break(found) => {
                    self.end(passed, found);
                    return Ok(());
                }
                ControlFlow::Continue(None) => {
                    self.end(passed, None);
                    return Ok(());
                }
                ControlFlow::Continue(Some(place)) => place,
            };
            if self.knows(passed, place) {
                return Ok(());
            }
            passed += 1;
            let (hash, depth) = place;
            looked = match source.in_memory(hash, |node| self.look(node, depth)) {
                Some(looked) => looked?,
                None => self.look(&load_one(source, hash).await?, depth)?,
            };
        }
    }

    /// Whether the way led through `place` as its node number `at`; from now on it does.
    fn knows(&mut self, at: usize, place: Place) -> bool {
        match self.nodes.get_mut(at) {
            Some(known) => std::mem::replace(known, place) == place,
            None => {
                self.nodes.push(place);
                false
            }
        }
    }

    /// The way has so many nodes, and this is at its end.
    fn end(&mut self, passed: usize, found: Option<u64>) {
        self.nodes.truncate(passed);
        self.found = found;
    }
}
