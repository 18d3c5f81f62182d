use std::sync::Mutex;

use proptest::prelude::*;
use ruma::events::StateEventType;
use serde_json::{Value, json};

use super::*;
use crate::rules::{
    auth,
    test_room::{CREATOR, TestRoom, rules},
};

/// A room whose state forks: every state that occurs is kept, and every event.
struct Forks {
    room: TestRoom,
    events: Mutex<HashMap<OwnedEventId, Arc<Pdu>>>,
}

impl Forks {
    /// A room of `version`, with its creator in it, open to all, and its first state.
    fn new(version: &str) -> (Self, StateMap) {
        let room = TestRoom::new(version);
        let events = Mutex::new(HashMap::new());
        let forks = Self { room, events };
        let create = forks.room.create.clone();
        forks.events.lock().unwrap().insert(create.event_id.clone(), create.clone());
        let place = (StateEventType::RoomCreate, String::new());
        let mut state = StateMap::from([(place, create.event_id.clone())]);
        let creator = json!({"membership": "join"});
        let id = forks.make(&state, "m.room.member", CREATOR, CREATOR, creator);
        state.insert((StateEventType::RoomMember, CREATOR.to_owned()), id);
        forks.send(&mut state, "m.room.join_rules", "", CREATOR, json!({"join_rule": "public"}));
        let users = if version == "12" { json!({}) } else { json!({CREATOR: 100}) };
        forks.send(&mut state, "m.room.power_levels", "", CREATOR, json!({"users": users}));
        (forks, state)
    }

    fn version(&self) -> &'static RoomVersionRules {
        rules(&self.room.version)
    }

    fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        self.events.lock().unwrap().get(id).cloned()
    }

    #[expect(clippy::too_many_arguments, reason = "an event's fields")]
    fn make(
        &self,
        state: &StateMap,
        kind: &str,
        key: &str,
        sender: &str,
        content: Value,
    ) -> OwnedEventId {
        let raw = serde_json::value::to_raw_value(&content).unwrap();
        let sender_id = sender.try_into().unwrap();
        let places =
            auth::auth_types_for_event(&kind.into(), sender_id, Some(key), &raw, self.version())
                .unwrap();
        let auth: Vec<Value> = places
            .iter()
            .filter_map(|place| state.get(place))
            .map(|id| match self.room.version.as_str() {
                "1" | "2" => json!([id, {"sha256": "x"}]),
                _ => json!(id),
            })
            .collect();
        let event = Arc::new(self.room.event(json!({
            "type": kind, "state_key": key, "sender": sender, "content": content,
            "auth_events": auth,
        })));
        let id = event.event_id.clone();
        self.events.lock().unwrap().insert(id.clone(), event);
        id
    }

    /// Sends a state event upon `state`; whether the auth rules let it change the state.
    #[expect(clippy::too_many_arguments, reason = "an event's fields")]
    fn send(
        &self,
        state: &mut StateMap,
        kind: &str,
        key: &str,
        sender: &str,
        content: Value,
    ) -> bool {
        let id = self.make(state, kind, key, sender, content);
        let event = self.event(&id).unwrap();
        let lookup = |kind: &StateEventType, key: &str| {
            self.event(state.get(&(kind.clone(), key.to_owned()))?)
        };
        let allowed = auth::check(&event, self.version(), lookup).is_ok();
        if allowed {
            state.insert((StateEventType::from(kind), key.to_owned()), id);
        }
        allowed
    }

    fn resolve(&self, forks: &[StateMap]) -> StateMap {
        let event = |id: &EventId| self.event(id);
        let difference = auth_difference(forks, event).unwrap();
        resolve(self.version(), forks, difference, event).unwrap()
    }

    /// The content that `state` holds at a place.
    fn content(&self, state: &StateMap, kind: &str, key: &str) -> Option<Value> {
        let id = state.get(&(StateEventType::from(kind), key.to_owned()))?;
        Some(self.event(id).unwrap().content_as().unwrap())
    }
}

const ALL: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

fn join() -> Value {
    json!({"membership": "join"})
}

#[test]
fn forks_that_agree_resolve_to_themselves() {
    for version in ALL {
        let (forks, state) = Forks::new(version);
        assert_eq!(forks.resolve(&[state.clone(), state.clone()]), state, "v{version}");
    }
}

#[test]
fn what_only_one_fork_has_done_is_kept() {
    for version in ALL {
        let (forks, mut left) = Forks::new(version);
        let mut right = left.clone();
        assert!(forks.send(&mut left, "m.room.name", "", CREATOR, json!({"name": "x"})));
        assert!(forks.send(&mut right, "m.room.member", "@a:one", "@a:one", join()));
        let both = forks.resolve(&[left, right]);
        assert_eq!(forks.content(&both, "m.room.name", "").unwrap()["name"], "x", "v{version}");
        assert!(forks.content(&both, "m.room.member", "@a:one").is_some(), "v{version}");
    }
}

#[test]
fn a_ban_beats_what_the_banned_did_meanwhile_since_version_two() {
    for version in &ALL[1..] {
        let (forks, mut base) = Forks::new(version);
        assert!(forks.send(&mut base, "m.room.member", "@a:one", "@a:one", join()));
        let mut levels = forks.content(&base, "m.room.power_levels", "").unwrap();
        levels["users"]["@a:one"] = json!(50);
        assert!(forks.send(&mut base, "m.room.power_levels", "", CREATOR, levels));
        let (mut left, mut right) = (base.clone(), base);
        let ban = json!({"membership": "ban"});
        assert!(forks.send(&mut left, "m.room.member", "@a:one", CREATOR, ban));
        assert!(forks.send(&mut right, "m.room.topic", "", "@a:one", json!({"topic": "mine"})));
        let kept = forks.resolve(&[left, right]);
        let member = forks.content(&kept, "m.room.member", "@a:one").unwrap();
        assert_eq!(member["membership"], "ban", "v{version}");
        assert_eq!(forks.content(&kept, "m.room.topic", ""), None, "v{version}");
    }
}

#[test]
fn version_one_takes_the_deepest_topic_that_is_allowed_and_then_the_least_hash() {
    let (forks, base) = Forks::new("1");
    let (mut left, mut right) = (base.clone(), base);
    assert!(forks.send(&mut left, "m.room.topic", "", CREATOR, json!({"topic": "first"})));
    // Events of the test room grow deeper as time goes on.
    assert!(forks.send(&mut right, "m.room.topic", "", CREATOR, json!({"topic": "second"})));
    for forked in [[&left, &right], [&right, &left]] {
        let kept = forks.resolve(&forked.map(Clone::clone));
        assert_eq!(forks.content(&kept, "m.room.topic", "").unwrap()["topic"], "second");
    }
}

#[test]
fn version_one_stops_at_the_first_power_levels_that_are_not_allowed() {
    let (forks, mut base) = Forks::new("1");
    for user in ["@a:one", "@b:one"] {
        assert!(forks.send(&mut base, "m.room.member", user, user, join()));
    }
    let with = |a: i32, b: i32| json!({"users": {CREATOR: 100, "@a:one": a, "@b:one": b}});
    assert!(forks.send(&mut base, "m.room.power_levels", "", CREATOR, with(100, 50)));
    let (mut left, mut right) = (base.clone(), base);
    // `@b` cannot give itself more in the light of what the creator had taken from it first.
    assert!(forks.send(&mut left, "m.room.power_levels", "", CREATOR, with(100, 0)));
    assert!(forks.send(
        &mut right,
        "m.room.power_levels",
        "",
        "@b:one",
        json!({
            "users": {CREATOR: 100, "@a:one": 100, "@b:one": 50}, "kick": 40,
        })
    ));
    let kept = forks.resolve(&[left, right]);
    let levels = forks.content(&kept, "m.room.power_levels", "").unwrap();
    assert_eq!(levels, with(100, 0));
}

#[test]
fn a_missing_event_is_an_error() {
    for version in ["1", "2", "12"] {
        let (forks, base) = Forks::new(version);
        let (mut left, mut right) = (base.clone(), base);
        assert!(forks.send(&mut left, "m.room.name", "", CREATOR, json!({"name": "l"})));
        assert!(forks.send(&mut right, "m.room.name", "", CREATOR, json!({"name": "r"})));
        let lost = left[&(StateEventType::RoomName, String::new())].clone();
        let event = |id: &EventId| forks.event(id).filter(|_| *id != *lost);
        let forked = [left, right];
        assert!(
            matches!(auth_difference(&forked, event), Err(ResolveError::Missing(id)) if id == lost)
        );
        if version == "1" {
            let resolved = resolve(rules(version), &forked, HashSet::new(), event);
            assert!(matches!(resolved, Err(ResolveError::Missing(_))));
        }
    }
}

#[test]
fn the_conflicted_subgraph_is_what_lies_on_paths_between_conflicted_events() {
    let room = TestRoom::new("10");
    let event = |auth: &[&Pdu]| {
        let auth: Vec<_> = auth.iter().map(|event| &event.event_id).collect();
        room.event(json!({"type": "x", "state_key": "", "sender": CREATOR, "auth_events": auth}))
    };
    // a <- b <- c <- d, b <- e, and f before a: conflicted are a and d.
    let f = event(&[]);
    let a = event(&[&f]);
    let b = event(&[&a]);
    let c = event(&[&b]);
    let d = event(&[&c]);
    let e = event(&[&b]);
    let ends = [a.event_id.clone(), d.event_id.clone()];
    let on_paths: HashSet<_> = [&a, &b, &c, &d].map(|event| event.event_id.clone()).into();
    let all: HashMap<_, _> = [a, b, c, d, e, f]
        .into_iter()
        .map(|event| (event.event_id.clone(), Arc::new(event)))
        .collect();
    let found = conflicted_subgraph(ends.iter(), &|id: &EventId| all.get(id).cloned());
    assert_eq!(found.iter().cloned().collect::<HashSet<_>>(), on_paths);
}

/// One attempt to change the state: who does what to whom.
fn any_step() -> impl Strategy<Value = (usize, usize, usize, usize)> {
    (0..3_usize, 0..4_usize, 0..4_usize, 0..9_usize)
}

const USERS: [&str; 4] = [CREATOR, "@a:one", "@b:one", "@c:one"];

fn take_step(forks: &Forks, state: &mut StateMap, (sender, target, what): (usize, usize, usize)) {
    let (sender, target) = (USERS[sender], USERS[target]);
    let _ = match what {
        0 | 1 => forks.send(state, "m.room.member", sender, sender, join()),
        2 => forks.send(state, "m.room.member", sender, sender, json!({"membership": "leave"})),
        3 => forks.send(state, "m.room.member", target, sender, json!({"membership": "ban"})),
        4 => forks.send(state, "m.room.member", target, sender, json!({"membership": "invite"})),
        5 => forks.send(state, "m.room.topic", "", sender, json!({"topic": sender})),
        6 => forks.send(state, "m.room.join_rules", "", sender, json!({"join_rule": "invite"})),
        _ => {
            let mut levels = forks.content(state, "m.room.power_levels", "").unwrap();
            if target == CREATOR {
                return;
            }
            levels["users"][target] = json!(if what == 7 { 50 } else { 0 });
            forks.send(state, "m.room.power_levels", "", sender, levels)
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_forks_and_what_they_share_do_not_matter(
        version in proptest::sample::select(ALL.to_vec()),
        steps in proptest::collection::vec(any_step(), 1..24),
    ) {
        let (forks, base) = Forks::new(version);
        let mut states = vec![base.clone(), base.clone(), base];
        for (fork, sender, target, what) in steps {
            take_step(&forks, &mut states[fork], (sender, target, what));
        }
        let event = |id: &EventId| forks.event(id);
        let difference = auth_difference(&states, event).unwrap();
        let whole = resolve(forks.version(), &states, difference.clone(), event).unwrap();
        states.reverse();
        let reversed = resolve(forks.version(), &states, difference.clone(), event).unwrap();
        prop_assert_eq!(&whole, &reversed);
        // Entries that all forks share and that no auth rule reads can be left away.
        let topic = (StateEventType::RoomTopic, String::new());
        let shared = states.iter().all(|state| state.get(&topic) == states[0].get(&topic));
        if shared {
            for state in &mut states {
                state.remove(&topic);
            }
            let mut without = whole.clone();
            without.remove(&topic);
            let lean = resolve(forks.version(), &states, difference, event).unwrap();
            prop_assert_eq!(lean, without);
        }
    }
}
