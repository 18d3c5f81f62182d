//! Cost follows change: one change, one lookup and the diff of two states that differ in ten
//! entries, in rooms of 1,000, 10,000 and 100,000 members. Prints what one change writes, too.
#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::{collections::HashMap, convert::Infallible, hint::black_box};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use millrace_store::state_tree::{
    Applied, CachedNodes, Change, Node, NodeCache, NodeHash, NodeRows, StateRoot, StateTree,
};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
const CHANGES_MEASURED: u64 = 1_000;

/// Stored rows.
#[derive(Default)]
struct Rows(HashMap<NodeHash, Vec<u8>>);

impl NodeRows for &Rows {
    type Error = Infallible;

    async fn rows(&self, hashes: &[NodeHash]) -> Result<Vec<Option<Vec<u8>>>, Infallible> {
        Ok(hashes.iter().map(|hash| self.0.get(hash).cloned()).collect())
    }
}

/// A room of so many members and the usual other state.
struct Room {
    tree: StateTree,
    rows: Rows,
    cache: NodeCache,
    members: u64,
    root: StateRoot,
    /// Where the walk through the members is.
    at: u64,
}

const OTHER_TYPES: [&str; 13] = [
    "m.room.create",
    "m.room.power_levels",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.encryption",
    "m.room.server_acl",
    "m.room.pinned_events",
    "m.room.related_groups",
];

fn user(n: u64) -> String {
    format!("@user{n}:example.org")
}

impl Room {
    fn new(members: u64) -> Self {
        let mut room = Self {
            tree: StateTree::new(&[1; 32]),
            rows: Rows::default(),
            cache: NodeCache::new(256 << 20),
            members,
            root: StateRoot::EMPTY,
            at: 0,
        };
        let users: Vec<_> = (0..members).map(user).collect();
        let users = users.iter().map(|user| ("m.room.member", user.as_str()));
        let others = OTHER_TYPES.iter().map(|event_type| (*event_type, ""));
        let changes: Vec<_> = (others.chain(users).zip(1_000_000..))
            .map(|((event_type, state_key), n)| Change { event_type, state_key, event: Some(n) })
            .collect();
        let applied = room.apply(room.root, &changes);
        room.store(&applied.nodes);
        room.root = applied.root;
        room
    }

    fn source(&self) -> CachedNodes<'_, &Rows> {
        CachedNodes { tree: &self.tree, cache: &self.cache, rows: &self.rows }
    }

    fn apply(&self, root: StateRoot, changes: &[Change<'_>]) -> Applied {
        block_on(self.tree.apply(&self.source(), root, changes)).expect("nodes are there")
    }

    fn store(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.rows.0.insert(node.hash(), node.bytes().to_vec());
            self.cache.insert(node.clone());
        }
    }

    /// Another member each time, far from the last one.
    fn next_user(&mut self) -> String {
        self.at = self.at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        user((self.at >> 32) % self.members)
    }

    fn change(&self, user: &str) -> Applied {
        let change =
            Change { event_type: "m.room.member", state_key: user, event: Some(2_000_000) };
        self.apply(self.root, &[change])
    }

    /// Nodes and bytes that one change writes, on average.
    fn written(&mut self) -> (f64, f64) {
        let (mut nodes, mut bytes) = (0, 0);
        for _ in 0..CHANGES_MEASURED {
            let user = self.next_user();
            let applied = self.change(&user);
            nodes += applied.nodes.len();
            bytes += applied.nodes.iter().map(|node| node.bytes().len()).sum::<usize>();
        }
        let mean = |sum: usize| sum as f64 / CHANGES_MEASURED as f64;
        (mean(nodes), mean(bytes))
    }

    /// A state that differs from the room's in ten entries.
    fn changed_in_ten(&mut self) -> StateRoot {
        let users: Vec<_> = (0..10).map(|_| self.next_user()).collect();
        let changes: Vec<_> = (users.iter())
            .map(|user| Change { event_type: "m.room.member", state_key: user, event: Some(1) })
            .collect();
        let applied = self.apply(self.root, &changes);
        self.store(&applied.nodes);
        applied.root
    }
}

fn costs(criterion: &mut Criterion) {
    let mut rooms: Vec<_> = SIZES.into_iter().map(Room::new).collect();
    for room in &mut rooms {
        let (nodes, bytes) = room.written();
        let keys = nodes * size_of::<NodeHash>() as f64;
        println!(
            "one change in a room of {} members writes {nodes:.1} nodes of {bytes:.0} bytes in all, under hashes of {keys:.0} bytes",
            room.members
        );
    }
    let mut group = criterion.benchmark_group("state_tree");
    for room in &mut rooms {
        let users: Vec<_> = (0..4096).map(|_| room.next_user()).collect();
        let mut users = users.iter().cycle();
        group.bench_function(BenchmarkId::new("change", room.members), |bencher| {
            bencher.iter(|| room.change(users.next().expect("it goes round")));
        });
    }
    for room in &mut rooms {
        let users: Vec<_> = (0..4096).map(|_| room.next_user()).collect();
        let mut users = users.iter().cycle();
        group.bench_function(BenchmarkId::new("lookup", room.members), |bencher| {
            bencher.iter(|| {
                let user = users.next().expect("it goes round");
                let source = room.source();
                let get = room.tree.get(&source, room.root, "m.room.member", black_box(user));
                block_on(get).expect("nodes are there")
            });
        });
    }
    for room in &mut rooms {
        let others: Vec<_> = (0..64).map(|_| room.changed_in_ten()).collect();
        let mut others = others.iter().cycle();
        group.bench_function(BenchmarkId::new("diff_of_ten", room.members), |bencher| {
            bencher.iter(|| {
                let other = others.next().expect("it goes round");
                let source = room.source();
                block_on(room.tree.diff(&source, room.root, *other)).expect("nodes are there")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
