//! Changing a state: a batch of changes gives a new root and the nodes that are new.
//!
//! The form of a tree is a function of the set it holds, and this is the function. Entries that
//! agree in all digits so far lie in one leaf if they weigh no more than
//! [`LEAF_WEIGHT_MAX`](super::layout::LEAF_WEIGHT_MAX) together, or if their paths are equal;
//! otherwise in an inner node that skips the digits they all share and branches at the next.

use rustc_hash::FxHashMap;

use super::{
    Node, NodeSource, Placement, StateRoot, StateTree, TreeError,
    edit::{Edit, Placed, Stop},
    read::descend,
    source::load,
};

/// One change of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The event's `type`.
    pub event_type: &'a str,
    /// The event's `state_key`.
    pub state_key: &'a str,
    /// The number of the event that is to be there; `None` to have none.
    pub event: Option<u64>,
}

/// A changed state.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its root.
    pub root: StateRoot,
    /// Nodes that the old tree did not have. All of them must be stored with whatever refers to
    /// the root, also if they are stored or cached already.
    pub nodes: Vec<Node>,
}

impl<P: Placement> StateTree<P> {
    /// Changes a state. Of several changes of one key the last one counts.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn apply<S: NodeSource>(
        &self,
        source: &S,
        root: StateRoot,
        changes: &[Change<'_>],
    ) -> Result<Applied, TreeError<S::Error>> {
        let placed = self.place(changes);
        let paths: Vec<_> = placed.iter().map(|change| change.path).collect();
        let mut loaded = FxHashMap::default();
        let keep = |node: &Node, _| {
            loaded.insert(node.hash(), node.clone());
        };
        descend(source, root, &paths, keep).await?;
        loop {
            let missing = {
                let mut edit = Edit::new(self, &loaded);
                match edit.run(root, &placed) {
                    Ok(root) => return Ok(Applied { root, nodes: edit.new }),
                    Err(Stop::Corrupt(node)) => return Err(node.into()),
                    // Where a subtree became small, its neighbours have to be read.
                    Err(Stop::Missing) => edit.missing,
                }
            };
            let nodes = load(source, &missing).await?;
            loaded.extend(nodes.into_iter().map(|node| (node.hash(), node)));
        }
    }

    /// Changes in the order of their paths, one for each key.
    fn place<'a>(&self, changes: &[Change<'a>]) -> Vec<Placed<'a>> {
        let place = |change: &Change<'a>| Placed {
            path: self.placement.path(change.event_type, change.state_key),
            change: *change,
        };
        let mut placed: Vec<_> = changes.iter().map(place).collect();
        placed.sort_by(|a, b| (a.path, a.key()).cmp(&(b.path, b.key())));
        placed.dedup_by(|later, earlier| {
            let same = later.path == earlier.path && later.key() == earlier.key();
            if same {
                earlier.change = later.change;
            }
            same
        });
        placed
    }
}
