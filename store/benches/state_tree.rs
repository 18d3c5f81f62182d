//! Cost follows change: one change, one lookup and the diff of two states that differ in ten
//! entries, in rooms of 1,000, 10,000 and 100,000 members. Prints what one change writes, too.
#![expect(clippy::print_stdout, reason = "a benchmark reports")]

use std::{
    collections::HashMap,
    convert::Infallible,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use millrace_store::state_tree::{
    Applied, CachedNodes, Change, Node, NodeCache, NodeHash, NodeRows, StateRoot, StateTree,
};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
const CHANGES_MEASURED: u64 = 1_000;
/// Members that are active: few of a large room's, and what they need stays in the processor's
/// caches. For all others [`Operation::ColdLookup`] shows what memory costs.
const ACTIVE: usize = 512;
const MANY: usize = 1 << 14;
/// Calls that are timed together, short enough to fall between two interruptions.
const BATCH: usize = 128;
const BATCHES: usize = 40;
const ROUNDS: usize = 12;

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

/// One operation, done on a member or a state that differs each time.
#[derive(Clone, Copy)]
enum Operation {
    Change,
    Lookup,
    ColdLookup,
    DiffOfTen,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Change, Self::Lookup, Self::ColdLookup, Self::DiffOfTen];

    const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Lookup => "lookup",
            Self::ColdLookup => "cold_lookup",
            Self::DiffOfTen => "diff_of_ten",
        }
    }

    /// The operation on one room, to be called again and again.
    fn on(self, room: &mut Room) -> impl FnMut() {
        let users = if matches!(self, Self::ColdLookup) { MANY } else { ACTIVE };
        let users: Vec<_> = (0..users).map(|_| room.next_user()).collect();
        let others: Vec<_> = match self {
            Self::DiffOfTen => (0..64).map(|_| room.changed_in_ten()).collect(),
            Self::Change | Self::Lookup | Self::ColdLookup => Vec::new(),
        };
        let room = &*room;
        let mut at = 0;
        move || {
            at += 1;
            let user = users[at % users.len()].as_str();
            let source = room.source();
            match self {
                Self::Change => drop(black_box(room.change(user))),
                Self::Lookup | Self::ColdLookup => {
                    let get = room.tree.get(&source, room.root, "m.room.member", black_box(user));
                    black_box(block_on(get).expect("nodes are there"));
                }
                Self::DiffOfTen => {
                    let other = others[at % others.len()];
                    let diff = room.tree.diff(&source, room.root, other);
                    drop(black_box(block_on(diff).expect("nodes are there")));
                }
            }
        }
    }
}

/// Prints what an operation costs where nothing else disturbs it: the least of many short batches.
fn print_ratios(rooms: &mut [Room]) {
    for operation in Operation::ALL {
        let mut least = vec![Duration::MAX; rooms.len()];
        for _ in 0..ROUNDS {
            for (least, room) in least.iter_mut().zip(&mut *rooms) {
                let mut call = operation.on(room);
                for _ in 0..BATCHES {
                    let begun = Instant::now();
                    (0..BATCH).for_each(|_| call());
                    *least = begun.elapsed().min(*least);
                }
            }
        }
        let nanoseconds: Vec<_> =
            least.iter().map(|least| least.as_nanos() / BATCH as u128).collect();
        let ratio = least[least.len() - 1].as_secs_f64() / least[0].as_secs_f64();
        println!(
            "{}: {nanoseconds:?} ns in rooms of {SIZES:?}: the largest costs {ratio:.2} times the \
             smallest",
            operation.name()
        );
    }
}

fn costs(criterion: &mut Criterion) {
    let mut rooms: Vec<_> = SIZES.into_iter().map(Room::new).collect();
    for room in &mut rooms {
        let (nodes, bytes) = room.written();
        let keys = nodes * size_of::<NodeHash>() as f64;
        println!(
            "one change in a room of {} members writes {nodes:.1} nodes of {bytes:.0} bytes in \
             all, under hashes of {keys:.0} bytes",
            room.members
        );
    }
    print_ratios(&mut rooms);
    let mut group = criterion.benchmark_group("state_tree");
    for operation in Operation::ALL {
        for room in &mut rooms {
            let id = BenchmarkId::new(operation.name(), room.members);
            let mut call = operation.on(room);
            group.bench_function(id, |bencher| bencher.iter(&mut call));
        }
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
