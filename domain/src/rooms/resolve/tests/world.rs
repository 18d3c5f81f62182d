//! A room with forks, kept twice: as whole states, and in a store as trees.

use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use millrace_model::rules::room_version;
use millrace_store::{
    rows::room::EventHeader,
    state_tree::Change,
    tables::{EVENT_HEADERS, EVENT_NUMBERS, EVENTS},
};
use ruma::{EventId, UserId};
use serde_json::{Value, json};

use super::*;
use crate::testing;

pub const CREATOR: &str = "@creator:one";

/// One of the states that a room has at once.
#[derive(Clone)]
pub struct Fork {
    pub state: StateMap,
    pub root: StateRoot,
    pub depth: u64,
}

impl Fork {
    pub fn id(&self, kind: &str, key: &str) -> Option<&OwnedEventId> {
        self.state.get(&(kind.into(), key.to_owned()))
    }
}

/// Who sets what to what.
#[derive(Clone)]
pub struct Act<'a> {
    pub kind: &'a str,
    pub key: &'a str,
    pub sender: &'a str,
    pub content: Value,
    pub ts: u64,
}

pub struct World {
    pub rooms: Rooms,
    pub version: RoomVersionId,
    pub rules: &'static RoomVersionRules,
    pub room: OwnedRoomId,
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub numbers: HashMap<OwnedEventId, u64>,
    made: u64,
}

impl World {
    /// A room of `version` with its creator in it, open to all, and its first state.
    pub async fn new(version: &str) -> (Self, Fork) {
        let version = RoomVersionId::try_from(version).unwrap();
        let rules = room_version::rules(&version).unwrap();
        let mut world = Self {
            rooms: testing::rooms().await,
            rules,
            room: ruma::owned_room_id!("!r:one"),
            events: HashMap::new(),
            numbers: HashMap::new(),
            made: 0,
            version,
        };
        let mut fork = Fork { state: StateMap::new(), root: StateRoot::EMPTY, depth: 0 };
        let content = json!({"room_version": world.version, "creator": CREATOR});
        let create = world.make(&fork, &act("m.room.create", "", CREATOR, content));
        world.room.clone_from(&create.room_id);
        world.keep(&mut fork, create).await;
        // The rule for this one asks for its prev_events, which nothing else here does.
        let joined = act("m.room.member", CREATOR, CREATOR, json!({"membership": "join"}));
        let joined = world.make(&fork, &joined);
        world.keep(&mut fork, joined).await;
        let users = if rules.authorization.explicitly_privilege_room_creators {
            json!({})
        } else {
            json!({CREATOR: 100})
        };
        let levels = json!({"users": users, "invite": 0});
        assert!(world.send(&mut fork, act("m.room.power_levels", "", CREATOR, levels)).await);
        let open = json!({"join_rule": "public"});
        assert!(world.send(&mut fork, act("m.room.join_rules", "", CREATOR, open)).await);
        (world, fork)
    }

    pub fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        self.events.get(id).cloned()
    }

    pub fn content(&self, fork: &Fork, kind: &str, key: &str) -> Option<Value> {
        Some(self.event(fork.id(kind, key)?).unwrap().content_as().unwrap())
    }

    fn make(&mut self, fork: &Fork, act: &Act<'_>) -> Arc<Pdu> {
        self.made += 1;
        let raw = serde_json::value::to_raw_value(&act.content).unwrap();
        let sender: &UserId = act.sender.try_into().unwrap();
        let kind = act.kind.into();
        let places =
            auth::auth_types_for_event(&kind, sender, Some(act.key), &raw, self.rules).unwrap();
        let auth = places.iter().filter_map(|place| fork.state.get(place));
        let hashed = matches!(self.version.as_str(), "1" | "2");
        let auth: Vec<Value> =
            auth.map(|id| if hashed { json!([id, {"sha256": "x"}]) } else { json!(id) }).collect();
        let mut event = json!({
            "type": act.kind, "state_key": act.key, "sender": act.sender, "content": act.content,
            "auth_events": auth, "prev_events": [], "depth": fork.depth + 1,
            "origin_server_ts": act.ts, "room_id": self.room,
            "event_id": format!("${}:one", self.made), "nonce": self.made,
        });
        if act.kind == "m.room.create" && self.rules.authorization.room_create_event_id_as_room_id {
            event.as_object_mut().unwrap().remove("room_id");
        }
        Arc::new(Pdu::parse(&event.to_string(), self.rules).unwrap())
    }

    /// Stores an event and puts it into a fork's state.
    async fn keep(&mut self, fork: &mut Fork, pdu: Arc<Pdu>) {
        let number = self.rooms.env.store.next_event_number().await.unwrap();
        let event = &Event::new(number, Pdu::clone(&pdu), self.rules);
        let (rooms, room, before) = (&self.rooms, &self.room, fork.root);
        let written = rooms.env.store.transact(|tx| {
            async move {
                tx.put(&EVENTS, room, number, &event.pdu.json().to_string());
                tx.put(&EVENT_HEADERS, room, number, &header(&event.pdu));
                tx.put(&EVENT_NUMBERS, room, &event.pdu.event_id, &number);
                rooms.links.write(&tx, room, event).await?;
                let kind = event.pdu.kind.to_string();
                let state_key = event.pdu.state_key.as_deref().unwrap();
                let change = Change { event_type: &kind, state_key, event: Some(number) };
                Ok::<_, ResolveStateError>(rooms.states.change(&tx, room, before, &[change]).await?)
            }
            .boxed()
        });
        fork.root = written.await.unwrap();
        fork.depth += 1;
        let (kind, key) = pdu.state_place().unwrap();
        fork.state.insert((kind, key.to_owned()), pdu.event_id.clone());
        self.numbers.insert(pdu.event_id.clone(), number);
        self.events.insert(pdu.event_id.clone(), pdu);
    }

    /// Does something in a fork, if the auth rules let it; whether they did.
    pub async fn send(&mut self, fork: &mut Fork, act: Act<'_>) -> bool {
        let pdu = self.make(fork, &act);
        let lookup = |kind: &StateEventType, key: &str| {
            self.event(fork.state.get(&(kind.clone(), key.to_owned()))?)
        };
        let allowed = auth::check(&pdu, self.rules, lookup).is_ok();
        if allowed {
            self.keep(fork, pdu).await;
        }
        allowed
    }

    pub async fn member(&mut self, fork: &mut Fork, sender: &str, user: &str, to: &str) -> bool {
        self.send(fork, act("m.room.member", user, sender, json!({"membership": to}))).await
    }

    /// Resolves forks in both ways and compares; what they have become.
    pub async fn merge(&self, forks: &[Fork]) -> Fork {
        let states: Vec<StateMap> = forks.iter().map(|fork| fork.state.clone()).collect();
        let event = |id: &EventId| self.event(id);
        let difference = state_res::auth_difference(&states, event).unwrap();
        self.compare_differences(forks, &difference).await;
        let state = state_res::resolve(self.rules, &states, difference, event).unwrap();
        let roots: Vec<StateRoot> = forks.iter().map(|fork| fork.root).collect();
        let in_transaction = self.resolve_in_transaction(&roots).await;
        let snapshot = self.rooms.env.store.snapshot();
        let resolved = resolve(&self.rooms, &snapshot, &self.room, &self.version, &roots);
        let resolved = resolved.await.unwrap();
        assert_eq!(in_transaction, resolved, "a transaction resolves as a snapshot does");
        let root = self.write(&resolved).await;
        let depth = forks.iter().map(|fork| fork.depth).max().unwrap();
        let snapshot = self.rooms.env.store.snapshot();
        let listed = self.rooms.states.list(&snapshot, &self.room, root, None);
        let ids: HashMap<u64, &OwnedEventId> =
            self.numbers.iter().map(|(id, number)| (*number, id)).collect();
        let entry = |(key, number): (StateKey, u64)| {
            ((key.event_type.into(), key.state_key), ids[&number].clone())
        };
        let found: StateMap = listed.await.unwrap().into_iter().map(entry).collect();
        assert_eq!(
            found, state,
            "v{}: the resolution is not that of the whole states",
            self.version
        );
        Fork { state, root, depth }
    }

    async fn resolve_in_transaction(&self, roots: &[StateRoot]) -> Arc<Resolved> {
        let (rooms, room, version) = (&self.rooms, &self.room, &self.version);
        let resolved = rooms
            .env
            .store
            .transact(|tx| async move { resolve(rooms, &tx, room, version, roots).await }.boxed());
        resolved.await.unwrap()
    }

    /// Makes the changes of a resolution.
    async fn write(&self, resolved: &Resolved) -> StateRoot {
        let (rooms, room) = (&self.rooms, &self.room);
        let written = rooms.env.store.transact(|tx| {
            async move {
                let mut root = resolved.base;
                for Difference { key, old, new } in &resolved.changes {
                    let (event_type, state_key) = as_key(key);
                    let held = rooms.states.get(&tx, room, root, as_key(key)).await?;
                    assert_eq!(held, *old, "what the base holds");
                    let change = Change { event_type, state_key, event: *new };
                    root = rooms.states.change(&tx, room, root, &[change]).await?;
                }
                Ok::<_, ResolveStateError>(root)
            }
            .boxed()
        });
        written.await.unwrap()
    }

    /// Whether the walk over differences finds the auth difference of the whole states, however
    /// much of what is shared it is told of, and however soon its searches are given up.
    async fn compare_differences(&self, forks: &[Fork], whole: &HashSet<OwnedEventId>) {
        let mut roots: Vec<StateRoot> = forks.iter().map(|fork| fork.root).collect();
        roots.sort_unstable();
        roots.dedup();
        let snapshot = &self.rooms.env.store.snapshot();
        let source = Source { rooms: &self.rooms, read: snapshot, room: &self.room };
        let conflict = Conflict::of(&source, &roots).await.unwrap();
        let whole: HashSet<u64> = whole.iter().map(|id| self.numbers[id]).collect();
        let levels = ["m.room.power_levels", "m.room.join_rules"]
            .map(|kind| StateKey { event_type: kind.to_owned(), state_key: String::new() });
        let core = conflict.shared(&source, levels).await.unwrap();
        let core: Vec<u64> = core.into_iter().map(|(_, event)| event).collect();
        for (core, rows) in [(&[][..], 0), (&[], 3), (&[], usize::MAX), (&core, usize::MAX)] {
            let found = difference::auth_difference(&source, &conflict, core, SearchRows(rows));
            let found = found.await.unwrap();
            assert_eq!(found.len(), found.iter().collect::<HashSet<_>>().len());
            let found: HashSet<u64> = found.into_iter().collect();
            assert_eq!(found, whole, "v{}: the auth difference", self.version);
        }
    }
}

fn header(pdu: &Pdu) -> EventHeader {
    EventHeader {
        event_id: pdu.event_id.clone(),
        place: None,
        before: None,
        outlier: true,
        rejected: false,
        soft_failed: false,
        redacted_by: None,
        related: false,
        aggregated: false,
        replaces: None,
    }
}

pub fn act<'a>(kind: &'a str, key: &'a str, sender: &'a str, content: Value) -> Act<'a> {
    Act { kind, key, sender, content, ts: 1 }
}
