//! Room states: the store's trees over a room's rows, behind a cache shared by all rooms.

use std::{ops::ControlFlow, sync::Arc};

use futures::FutureExt;
use millrace_store::{
    Error, Node, Read, Tx,
    state_tree::{
        Applied, CachedNodes, Change, Difference, Entry, NodeCache, NodeHash, NodeReadError,
        NodeRows, StateKey, StateRoot, StateTree, TreeError,
    },
    tables::{ABOUT, STATE_NODES},
};
use ruma::RoomId;

use crate::Env;

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the state of {room} cannot be read: {source}")]
pub struct StateError {
    /// The room.
    pub room: ruma::OwnedRoomId,
    /// The reason.
    #[source]
    pub source: Box<TreeError<NodeReadError<Error>>>,
}

/// The trees of all rooms.
#[derive(Clone)]
pub struct States {
    tree: Arc<StateTree>,
    cache: Arc<NodeCache>,
}

/// One room's node rows, read through a snapshot or a transaction.
struct RoomNodes<'a, R> {
    read: &'a R,
    room: &'a RoomId,
}

impl<R: Read> NodeRows for RoomNodes<'_, R> {
    type Error = Error;

    async fn rows(&self, hashes: &[NodeHash]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys = hashes.iter().map(|hash| hash.to_bytes());
        self.read.get_many(&STATE_NODES, self.room, keys).await
    }
}

impl States {
    /// The trees of a store; their secret is drawn at the first start.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn open(env: &Env, cache_bytes: usize) -> millrace_store::Result<Self> {
        let mut fresh = [0; 32];
        env.random.fill(&mut fresh);
        let secret = env
            .store
            .transact(|tx| {
                async move {
                    if let Some(kept) = tx.get(&ABOUT, Node, "state_secret").await? {
                        return Ok(kept);
                    }
                    let secret: String = fresh.iter().map(|byte| format!("{byte:02x}")).collect();
                    tx.put(&ABOUT, Node, "state_secret", &secret);
                    Ok::<_, Error>(secret)
                }
                .boxed()
            })
            .await?;
        // Only its being secret matters, so any derivation to 32 bytes will do.
        let secret: [u8; 32] = *sha2_digest(secret.as_bytes());
        Ok(Self {
            tree: Arc::new(StateTree::new(&secret)),
            cache: Arc::new(NodeCache::new(cache_bytes)),
        })
    }

    fn nodes<'a, R: Read>(
        &'a self,
        read: &'a R,
        room: &'a RoomId,
    ) -> CachedNodes<'a, RoomNodes<'a, R>> {
        CachedNodes { tree: &self.tree, cache: &self.cache, rows: RoomNodes { read, room } }
    }

    /// Number of the event at one place of a state.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
        (event_type, state_key): (&str, &str),
    ) -> Result<Option<u64>, StateError> {
        let nodes = self.nodes(read, room);
        self.tree.get(&nodes, root, event_type, state_key).await.map_err(|error| fail(room, error))
    }

    /// Numbers of the events at many places of a state, in the order of the places.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get_many(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
        places: &[(&str, &str)],
    ) -> Result<Vec<Option<u64>>, StateError> {
        let nodes = self.nodes(read, room);
        self.tree.get_many(&nodes, root, places).await.map_err(|error| fail(room, error))
    }

    /// Numbers of the events at the same places of many states, in the order of `roots` and of the
    /// places. Cheap where each state differs little from the one before.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn get_in_each<const N: usize>(
        &self,
        read: &impl Read,
        room: &RoomId,
        roots: &[StateRoot],
        places: [(&str, &str); N],
    ) -> Result<Vec<[Option<u64>; N]>, StateError> {
        let nodes = self.nodes(read, room);
        let found = self.tree.get_in_each(&nodes, roots, places).await;
        found.map_err(|error| fail(room, error))
    }

    /// The whole state, or that of one event type, in no particular order.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn list(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
        event_type: Option<&str>,
    ) -> Result<Vec<(StateKey, u64)>, StateError> {
        let nodes = self.nodes(read, room);
        self.tree.list(&nodes, root, event_type).await.map_err(|error| fail(room, error))
    }

    /// As [`States::list`], only the numbers of the events.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn numbers(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
        event_type: Option<&str>,
    ) -> Result<Vec<u64>, StateError> {
        let nodes = self.nodes(read, room);
        let mut numbers = Vec::new();
        let collect = |entry: Entry<'_>| {
            numbers.push(entry.event);
            ControlFlow::Continue(())
        };
        let visited = self.tree.visit(&nodes, root, event_type, collect).await;
        visited.map_err(|error| fail(room, error))?;
        Ok(numbers)
    }

    /// How many entries a state has.
    ///
    /// # Errors
    /// Where its root cannot be read.
    pub async fn count(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
    ) -> Result<u64, StateError> {
        let nodes = self.nodes(read, room);
        self.tree.count(&nodes, root).await.map_err(|error| fail(room, error))
    }

    /// What differs between two states.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn diff(
        &self,
        read: &impl Read,
        room: &RoomId,
        old: StateRoot,
        new: StateRoot,
    ) -> Result<Vec<Difference>, StateError> {
        if old == new {
            return Ok(Vec::new());
        }
        let nodes = self.nodes(read, room);
        self.tree.diff(&nodes, old, new).await.map_err(|error| fail(room, error))
    }

    /// Changes the state `root`, writes the new nodes, and returns the new root.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn change(
        &self,
        tx: &Tx,
        room: &RoomId,
        root: StateRoot,
        changes: &[Change<'_>],
    ) -> Result<StateRoot, StateError> {
        if changes.is_empty() {
            return Ok(root);
        }
        let applied = self.changed(tx, room, root, changes).await?;
        self.write(tx, room, &applied.nodes);
        Ok(applied.root)
    }

    /// What changes make of the state `root`, without writing it.
    ///
    /// # Errors
    /// Where a node cannot be read.
    pub async fn changed(
        &self,
        read: &impl Read,
        room: &RoomId,
        root: StateRoot,
        changes: &[Change<'_>],
    ) -> Result<Applied, StateError> {
        let nodes = self.nodes(read, room);
        self.tree.apply(&nodes, root, changes).await.map_err(|error| fail(room, error))
    }

    /// Writes nodes, which belong with whatever refers to them.
    pub fn write(&self, tx: &Tx, room: &RoomId, nodes: &[millrace_store::state_tree::Node]) {
        for node in nodes {
            tx.put(&STATE_NODES, room, node.hash().to_bytes(), &node.bytes().to_vec());
            // Content-addressed: right even if the transaction fails.
            self.cache.insert(node.clone());
        }
    }
}

fn sha2_digest(bytes: &[u8]) -> Box<[u8; 32]> {
    use sha2::Digest;
    Box::new(sha2::Sha256::digest(bytes).into())
}

fn fail(room: &RoomId, source: TreeError<NodeReadError<Error>>) -> StateError {
    StateError { room: room.to_owned(), source: Box::new(source) }
}
