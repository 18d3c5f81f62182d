//! Trees against a `BTreeMap` that is told the same.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::executor::block_on;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

const SECRET: [u8; 32] = [7; 32];

/// Rows in memory, which count how often they are asked.
#[derive(Default)]
struct Rows {
    rows: Mutex<HashMap<NodeHash, Vec<u8>>>,
    trips: AtomicUsize,
}

impl NodeRows for &Rows {
    type Error = Infallible;

    async fn rows(&self, hashes: &[NodeHash]) -> Result<Vec<Option<Vec<u8>>>, Infallible> {
        self.trips.fetch_add(1, Ordering::Relaxed);
        let rows = self.rows.lock();
        Ok(hashes.iter().map(|hash| rows.get(hash).cloned()).collect())
    }
}

/// A tree, its rows, and no cache that would hide reads.
struct Bench<P> {
    tree: StateTree<P>,
    rows: Rows,
    cache: NodeCache,
}

impl Bench<KeyedPlacement> {
    fn keyed() -> Self {
        Self::placed(KeyedPlacement::new(&SECRET))
    }
}

impl<P: Placement> Bench<P> {
    fn placed(placement: P) -> Self {
        let tree = StateTree::with_placement(&SECRET, placement);
        Self { tree, rows: Rows::default(), cache: NodeCache::new(0) }
    }

    fn source(&self) -> CachedNodes<'_, &Rows, P> {
        CachedNodes { tree: &self.tree, cache: &self.cache, rows: &self.rows }
    }

    fn apply(&self, root: StateRoot, changes: &[OwnedChange]) -> StateRoot {
        let changes: Vec<_> = changes.iter().map(as_change).collect();
        let applied = block_on(self.tree.apply(&self.source(), root, &changes)).unwrap();
        let mut rows = self.rows.rows.lock();
        for node in applied.nodes {
            rows.insert(node.hash(), node.bytes().to_vec());
        }
        applied.root
    }

    fn of(&self, model: &Model) -> StateRoot {
        let changes: Vec<_> =
            model.iter().map(|(key, event)| (key.clone(), Some(*event))).collect();
        self.apply(StateRoot::EMPTY, &changes)
    }

    fn list(&self, root: StateRoot, event_type: Option<&str>) -> Model {
        let list = block_on(self.tree.list(&self.source(), root, event_type)).unwrap();
        let len = list.len();
        let model: Model = list.into_iter().collect();
        assert_eq!(model.len(), len, "no key may be listed twice");
        model
    }

    fn diff(&self, old: StateRoot, new: StateRoot) -> Vec<Difference> {
        let mut found = block_on(self.tree.diff(&self.source(), old, new)).unwrap();
        found.sort();
        found
    }
}

type Model = BTreeMap<StateKey, u64>;
type OwnedChange = (StateKey, Option<u64>);

fn as_change((key, event): &OwnedChange) -> Change<'_> {
    Change { event_type: &key.event_type, state_key: &key.state_key, event: *event }
}

fn apply_to_model(model: &mut Model, changes: &[OwnedChange]) {
    for (key, event) in changes {
        match event {
            Some(event) => model.insert(key.clone(), *event),
            None => model.remove(key),
        };
    }
}

fn model_diff(old: &Model, new: &Model) -> Vec<Difference> {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |key: &StateKey| Difference {
        key: key.clone(),
        old: old.get(key).copied(),
        new: new.get(key).copied(),
    };
    keys.into_iter().map(of).filter(|found| found.old != found.new).collect()
}

fn member(n: usize) -> StateKey {
    key("m.room.member", &format!("@user{n}:example.org"))
}

fn key(event_type: &str, state_key: &str) -> StateKey {
    StateKey { event_type: event_type.to_owned(), state_key: state_key.to_owned() }
}

fn members(count: usize) -> Model {
    (0..count).map(|n| (member(n), n as u64)).collect()
}

/// Paths of few different digits, so that keys crowd together: the digits of the type agree but
/// for the last, those of the key are all zero but for every sixth.
#[derive(Clone, Copy)]
struct Weak;

impl Placement for Weak {
    fn path(&self, event_type: &str, state_key: &str) -> Path {
        let sum = |text: &str| {
            text.bytes().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)))
        };
        let spread = (0..4).fold(0_u128, |path, at| {
            path | u128::from(sum(state_key) >> (2 * at) & 1) << (18 * at)
        });
        Path::new(sum(event_type) & 1, spread)
    }
}

/// Every key at the same place.
#[derive(Clone, Copy)]
struct Constant;

impl Placement for Constant {
    fn path(&self, _: &str, _: &str) -> Path {
        Path::new(0, 0)
    }
}

fn any_key() -> impl Strategy<Value = StateKey> {
    let types = prop::sample::select(vec!["m.room.member", "m.room.name", "m.room.topic", "x", ""]);
    let keys = prop_oneof![
        Just(String::new()),
        (0..150_u32).prop_map(|n| format!("@user{n}:example.org")),
        (0..3_usize).prop_map(|n| "ü\u{0}".repeat(150 * n)),
    ];
    (types, keys).prop_map(|(event_type, state_key)| key(event_type, &state_key))
}

fn any_changes() -> impl Strategy<Value = Vec<Vec<OwnedChange>>> {
    let event =
        prop_oneof![3 => (0..5_u64).prop_map(Some), 1 => Just(Some(u64::MAX)), 2 => Just(None)];
    let change = (any_key(), event).boxed();
    let batch = prop_oneof![
        prop::collection::vec(change.clone(), 0..4),
        prop::collection::vec(change, 0..120),
    ];
    prop::collection::vec(batch, 1..12)
}

/// All that a tree must do, on one sequence of batches.
fn agrees_with_model<P: Placement>(bench: &Bench<P>, batches: &[Vec<OwnedChange>]) {
    let mut states = vec![(StateRoot::EMPTY, Model::new())];
    for batch in batches {
        let (root, mut model) = states.last().unwrap().clone();
        apply_to_model(&mut model, batch);
        let root = bench.apply(root, batch);
        assert_eq!(bench.of(&model), root, "the root depends on the order of changes");
        states.push((root, model));
    }
    for (root, model) in &states {
        assert_eq!(&bench.list(*root, None), model);
        let count = block_on(bench.tree.count(&bench.source(), *root)).unwrap();
        assert_eq!(count, model.len() as u64);
        assert_eq!(root.is_empty(), model.is_empty());
        for event_type in ["m.room.member", "x", "absent"] {
            let mut of_type = model.clone();
            of_type.retain(|key, _| key.event_type == event_type);
            assert_eq!(bench.list(*root, Some(event_type)), of_type);
        }
        let (_, last) = states.last().unwrap();
        let keys: Vec<_> = last.keys().chain(model.keys()).collect();
        let refs: Vec<_> = keys.iter().map(|k| (&*k.event_type, &*k.state_key)).collect();
        let found = block_on(bench.tree.get_many(&bench.source(), *root, &refs)).unwrap();
        let expected: Vec<_> = keys.iter().map(|key| model.get(key).copied()).collect();
        assert_eq!(found, expected);
        for pair in refs.chunks_exact(2).take(20) {
            let each = states.iter().chain(&states[..1]).chain(states.iter().rev());
            let (roots, models): (Vec<_>, Vec<_>) =
                each.map(|(root, model)| (*root, model)).unzip();
            let source = bench.source();
            let found = bench.tree.get_in_each(&source, &roots, [pair[0], pair[1]]);
            let of = |model: &Model, (event_type, state_key)| {
                model.get(&key(event_type, state_key)).copied()
            };
            let expected: Vec<_> =
                models.into_iter().map(|model| [of(model, pair[0]), of(model, pair[1])]).collect();
            assert_eq!(block_on(found).unwrap(), expected);
        }
        for (event_type, state_key) in refs.iter().take(5) {
            let source = bench.source();
            let get = bench.tree.get(&source, *root, event_type, state_key);
            assert_eq!(block_on(get).unwrap(), model.get(&key(event_type, state_key)).copied());
        }
    }
    for (old_root, old) in &states {
        for (new_root, new) in &states {
            assert_eq!(old_root == new_root, old == new);
            assert_eq!(bench.diff(*old_root, *new_root), model_diff(old, new));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_holds_what_a_map_holds(batches in any_changes()) {
        agrees_with_model(&Bench::keyed(), &batches);
    }

    #[test]
    fn a_tree_of_crowded_paths_holds_what_a_map_holds(batches in any_changes()) {
        agrees_with_model(&Bench::placed(Weak), &batches);
    }

    #[test]
    fn a_tree_of_one_path_holds_what_a_map_holds(batches in any_changes()) {
        agrees_with_model(&Bench::placed(Constant), &batches);
    }

    #[test]
    fn the_order_of_single_changes_does_not_matter(
        entries in prop::collection::btree_map(any_key(), 0..5_u64, 0..60),
        seed in any::<u64>(),
    ) {
        let bench = Bench::keyed();
        let mut shuffled: Vec<_> = entries.iter().collect();
        shuffled.sort_by_key(|(key, _)| {
            blake3::hash(format!("{seed}{key:?}").as_bytes()).as_bytes().to_owned()
        });
        let one_by_one = shuffled.into_iter().fold(StateRoot::EMPTY, |root, (key, event)| {
            bench.apply(root, &[(key.clone(), Some(*event))])
        });
        prop_assert_eq!(one_by_one, bench.of(&entries));
    }

    #[test]
    fn bytes_that_are_no_node_are_an_error(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..3_u8,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        let hash = NodeHash::from_bytes([0; layout::HASH_LEN]);
        // It may be a node by chance; what matters is that reading it does not panic.
        if let Ok(node) = Node::decode(hash, &bytes) {
            prop_assert_eq!(node.bytes(), &bytes[..]);
        }
        prop_assert_eq!(
            Bench::keyed().tree.decode_node(hash, &bytes).unwrap_err().hash,
            hash,
            "its hash is not zero"
        );
    }
}

#[test]
fn a_change_in_a_large_room_shares_all_but_a_path() {
    let bench = Bench::keyed();
    let model = members(20_000);
    let root = bench.of(&model);
    let change = [(member(17), Some(99))];
    let changes: Vec<_> = change.iter().map(as_change).collect();
    let applied = block_on(bench.tree.apply(&bench.source(), root, &changes)).unwrap();
    let bytes: usize = applied.nodes.iter().map(|node| node.bytes().len()).sum();
    assert!(applied.nodes.len() <= 8, "{} nodes", applied.nodes.len());
    assert!(bytes <= 1200, "{bytes} bytes");
}

#[test]
fn a_change_to_what_is_there_writes_nothing() {
    let bench = Bench::keyed();
    let root = bench.of(&members(500));
    let same = [(member(3), Some(3)), (member(1000), None), (key("x", ""), None)];
    let same: Vec<_> = same.iter().map(as_change).collect();
    let applied = block_on(bench.tree.apply(&bench.source(), root, &same)).unwrap();
    assert_eq!((applied.root, applied.nodes.len()), (root, 0));
}

#[test]
fn of_several_changes_of_one_key_the_last_counts() {
    let bench = Bench::keyed();
    let twice = bench.apply(StateRoot::EMPTY, &[(member(1), Some(1)), (member(1), Some(2))]);
    assert_eq!(twice, bench.of(&[(member(1), 2)].into()));
    assert_eq!(bench.apply(twice, &[(member(1), Some(3)), (member(1), None)]), StateRoot::EMPTY);
}

#[test]
fn another_secret_makes_other_roots() {
    let one = Bench::keyed();
    let mut other = Bench::keyed();
    other.tree = StateTree::new(&[8; 32]);
    assert_ne!(one.of(&members(3)), other.of(&members(3)));
}

#[test]
fn a_listing_stops_when_it_is_told_to() {
    let bench = Bench::keyed();
    let root = bench.of(&members(20_000));
    let before = bench.rows.trips.load(Ordering::Relaxed);
    let mut seen = 0;
    let stop = |_: Entry<'_>| {
        seen += 1;
        if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let source = bench.source();
    let visit = bench.tree.visit(&source, root, Some("m.room.member"), stop);
    block_on(visit).unwrap();
    assert_eq!(seen, 10);
    assert!(bench.rows.trips.load(Ordering::Relaxed) - before < 10);
}

#[test]
fn a_level_is_one_round_trip() {
    let bench = Bench::keyed();
    let root = bench.of(&members(20_000));
    let keys: Vec<_> = (0..300).map(member).collect();
    let refs: Vec<_> = keys.iter().map(|key| (&*key.event_type, &*key.state_key)).collect();
    let before = bench.rows.trips.load(Ordering::Relaxed);
    let found = block_on(bench.tree.get_many(&bench.source(), root, &refs)).unwrap();
    assert_eq!(found, (0..300).map(Some).collect::<Vec<_>>());
    assert!(bench.rows.trips.load(Ordering::Relaxed) - before <= 8);
}

#[test]
fn a_changed_byte_of_a_node_is_noticed() {
    let bench = Bench::keyed();
    let root = bench.of(&members(300));
    let hashes: Vec<_> = bench.rows.rows.lock().keys().copied().collect();
    for hash in hashes {
        let damage = |bytes: &mut Vec<u8>| bytes[5] ^= 1;
        bench.rows.rows.lock().get_mut(&hash).map(damage);
        let error = block_on(bench.tree.list(&bench.source(), root, None)).unwrap_err();
        assert!(
            matches!(&error, TreeError::Source(NodeReadError::Corrupt(node)) if node.hash == hash),
            "{error:?}"
        );
        bench.rows.rows.lock().get_mut(&hash).map(damage);
    }
    assert_eq!(bench.list(root, None), members(300));
}

#[test]
fn a_missing_node_is_named() {
    let bench = Bench::keyed();
    let root = bench.of(&members(300));
    let hash = *bench.rows.rows.lock().keys().find(|hash| Some(**hash) != root.node()).unwrap();
    bench.rows.rows.lock().remove(&hash);
    let error = block_on(bench.tree.diff(&bench.source(), StateRoot::EMPTY, root)).unwrap_err();
    assert!(
        matches!(&error, TreeError::Source(NodeReadError::Missing(missing)) if *missing == hash)
    );
}

#[test]
fn a_node_below_the_end_of_all_paths_is_an_error() {
    // A chain of nodes each of which skips many digits; its hashes are right, its shape is not.
    let bench = Bench::keyed();
    let hasher = hash::NodeHasher::new(&SECRET);
    let total = leaf::Total { count: 2, weight: 2 * layout::LEAF_WEIGHT_MAX };
    let mut child = NodeHash::from_bytes([1; layout::HASH_LEN]);
    for _ in 0..3 {
        let skip = std::iter::repeat_n(0, layout::DIGITS / 2).collect();
        let children = [(0, child), (1, child)].into_iter().collect();
        let parts = node::InnerParts { skip, total, children };
        let node = Node::inner(&hasher, &parts);
        child = node.hash();
        bench.rows.rows.lock().insert(node.hash(), node.bytes().to_vec());
    }
    let root = StateRoot::from_bytes(child.to_bytes());
    let is_corrupt = |error| matches!(error, TreeError::Corrupt(_));
    assert!(is_corrupt(block_on(bench.tree.list(&bench.source(), root, None)).unwrap_err()));
    let source = bench.source();
    let diff = bench.tree.diff(&source, root, StateRoot::EMPTY);
    assert!(is_corrupt(block_on(diff).unwrap_err()));
    let constant = Bench { rows: bench.rows, ..Bench::placed(Constant) };
    let source = constant.source();
    let get = constant.tree.get(&source, root, "", "");
    assert!(is_corrupt(block_on(get).unwrap_err()));
    let change = Change { event_type: "", state_key: "", event: Some(1) };
    let apply = constant.tree.apply(&source, root, std::slice::from_ref(&change));
    assert!(is_corrupt(block_on(apply).unwrap_err()));
}

#[test]
fn a_cache_stays_within_its_bytes_and_keeps_what_is_used() {
    let bench = Bench::keyed();
    let cache = NodeCache::new(64 << 10);
    let root = bench.of(&members(5_000));
    let source = CachedNodes { tree: &bench.tree, cache: &cache, rows: &bench.rows };
    let top = root.node().unwrap();
    for n in 0..3_000 {
        let user = format!("@user{n}:example.org");
        let get = bench.tree.get(&source, root, "m.room.member", &user);
        assert_eq!(block_on(get).unwrap(), Some(n));
        assert!(cache.get(top).is_some(), "the root is used all the time");
        assert!(cache.bytes() <= 64 << 10);
    }
    assert!(cache.bytes() > 32 << 10, "a busy cache is not empty");
}

#[test]
fn a_cached_node_needs_no_row() {
    let bench = Bench::keyed();
    let cache = NodeCache::new(1 << 20);
    let root = bench.of(&members(1_000));
    let source = CachedNodes { tree: &bench.tree, cache: &cache, rows: &bench.rows };
    block_on(bench.tree.list(&source, root, None)).unwrap();
    let before = bench.rows.trips.load(Ordering::Relaxed);
    assert_eq!(block_on(bench.tree.list(&source, root, None)).unwrap().len(), 1_000);
    assert_eq!(bench.rows.trips.load(Ordering::Relaxed), before);
}

#[test]
fn operations_can_be_sent_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let bench = Bench::keyed();
    let source = bench.source();
    is_send(&bench.tree.apply(&source, StateRoot::EMPTY, &[]));
    is_send(&bench.tree.get(&source, StateRoot::EMPTY, "", ""));
    is_send(&bench.tree.get_many(&source, StateRoot::EMPTY, &[]));
    is_send(&bench.tree.diff(&source, StateRoot::EMPTY, StateRoot::EMPTY));
    is_send(&bench.tree.list(&source, StateRoot::EMPTY, None));
}

#[test]
fn in_many_states_only_what_changed_on_the_way_to_a_key_is_read() {
    let bench = Bench::keyed();
    let mut roots = vec![bench.of(&members(5_000))];
    for number in 0..50 {
        let at = *roots.last().unwrap();
        roots.push(bench.apply(at, &[(key("x", &number.to_string()), Some(number))]));
    }
    let one = member(1);
    let keys = [(&*one.event_type, &*one.state_key), ("absent", "")];
    let before = bench.rows.trips.load(Ordering::Relaxed);
    let found = block_on(bench.tree.get_in_each(&bench.source(), &roots, keys)).unwrap();
    assert_eq!(found, vec![[Some(1), None]; roots.len()]);
    // The root of each, and once what lies below.
    let trips = bench.rows.trips.load(Ordering::Relaxed) - before;
    assert!(trips < roots.len() + 20, "{trips} reads");
}
