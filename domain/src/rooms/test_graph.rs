//! A room of many servers for tests: its graph of events with what the rules alone make of it, on
//! whole states, and a server that receives them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use futures::FutureExt;
use millrace_model::{
    Pdu,
    rules::{
        auth,
        build::{self, NewEvent},
        room_version,
        signing_key::ServerSigningKey,
        state_res::{self, StateMap},
    },
};
use millrace_store::{
    Read, Scan,
    rows::room::{EventHeader, RoomHead},
    tables::{CURRENT_STATE, EVENT_HEADERS, MEMBERS, ROOM_HEAD, TIMELINE},
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    server_name, user_id,
};
use serde_json::{Value, json};

use super::{
    AppendError, Draft, Numbers, Received, RoomTx, Rooms,
    receive::receive,
    test_room::{object, user},
};
use crate::testing;

/// A graph of events, with the state before each as the rules alone make it.
pub(crate) struct Graph {
    pub rules: &'static RoomVersionRules,
    pub room: OwnedRoomId,
    pub events: HashMap<OwnedEventId, Arc<Pdu>>,
    pub before: HashMap<OwnedEventId, StateMap>,
    pub rejected: HashSet<OwnedEventId>,
    /// In the order of making, which is a topological one.
    pub order: Vec<OwnedEventId>,
    key: ServerSigningKey,
}

impl Graph {
    fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        self.events.get(id).cloned()
    }

    pub fn version(&self) -> RoomVersionId {
        let create: Value = self.events[&self.order[0]].content_as().unwrap();
        create["room_version"].as_str().unwrap().try_into().unwrap()
    }

    pub fn after(&self, id: &EventId) -> StateMap {
        let mut state = self.before[id].clone();
        let event = &self.events[id];
        if let Some((kind, key)) = event.state_place()
            && !self.rejected.contains(id)
        {
            state.insert((kind, key.to_owned()), id.to_owned());
        }
        state
    }

    pub fn resolve<'a>(&self, ends: impl IntoIterator<Item = &'a OwnedEventId>) -> StateMap {
        let mut maps: Vec<StateMap> = ends.into_iter().map(|id| self.after(id)).collect();
        maps.dedup();
        if maps.len() < 2 {
            return maps.pop().unwrap_or_default();
        }
        let difference = state_res::auth_difference(&maps, |id| self.event(id)).unwrap();
        state_res::resolve(self.rules, &maps, difference, |id| self.event(id)).unwrap()
    }

    fn allowed(&self, pdu: &Pdu, state: &StateMap) -> bool {
        let look_up = |kind: &StateEventType, key: &str| {
            self.event(state.get(&(kind.clone(), key.to_owned()))?)
        };
        auth::check(pdu, self.rules, look_up).is_ok()
    }

    /// Makes an event after `prev`, whether the rules allow it or not.
    pub fn make(&mut self, draft: &Draft, prev: &[OwnedEventId]) -> Arc<Pdu> {
        self.make_naming(draft, prev, &[])
    }

    /// As [`Graph::make`], where the event names `named` among its auth events in the place of those
    /// of the state before it.
    pub fn make_naming(
        &mut self,
        draft: &Draft,
        prev: &[OwnedEventId],
        named: &[OwnedEventId],
    ) -> Arc<Pdu> {
        let before = self.resolve(prev);
        let content = serde_json::value::to_raw_value(&draft.content).unwrap();
        let state_key = draft.state_key.as_deref();
        let places =
            auth::auth_types_for_event(&draft.kind, &draft.sender, state_key, &content, self.rules);
        let places = places.unwrap();
        let mut claimed = before.clone();
        for id in named {
            let (kind, key) = self.events[id].state_place().unwrap();
            claimed.insert((kind, key.to_owned()), id.clone());
        }
        let auth: Vec<_> = places.iter().filter_map(|place| claimed.get(place)).collect();
        let reference = |id: &OwnedEventId| self.events[id].reference(self.rules).unwrap();
        let auth: Vec<_> = auth.into_iter().map(reference).collect();
        let prev: Vec<_> = prev.iter().map(reference).collect();
        let new = NewEvent {
            room_id: Some(&self.room),
            sender: &draft.sender,
            kind: &draft.kind,
            state_key,
            content: draft.content.clone(),
            redacts: draft.redacts.as_deref(),
            origin_server_ts: ruma::MilliSecondsSinceUnixEpoch(
                (1_600_000_000_000 + self.order.len() as u64).try_into().unwrap(),
            ),
            prev_events: &prev,
            auth_events: &auth,
            local_id: &format!("e{}", self.order.len()),
        };
        let server = draft.sender.server_name();
        let pdu = build::build(new, self.rules, server, &self.key).unwrap();
        self.put(pdu, before)
    }

    fn put(&mut self, mut pdu: Pdu, before: StateMap) -> Arc<Pdu> {
        let id = pdu.event_id.clone();
        let mut by_auth: StateMap = StateMap::new();
        for auth in &pdu.auth_events {
            let (kind, key) = self.events[auth].state_place().unwrap();
            by_auth.insert((kind, key.to_owned()), auth.clone());
        }
        let create = (StateEventType::RoomCreate, String::new());
        if let Some(id) = before.get(&create) {
            by_auth.insert(create, id.clone());
        }
        let is_first = pdu.prev_events.is_empty();
        pdu.rejected = !is_first
            && (pdu.auth_events.iter().any(|id| self.rejected.contains(id))
                || !self.allowed(&pdu, &by_auth)
                || !self.allowed(&pdu, &before));
        if pdu.rejected {
            self.rejected.insert(id.clone());
        }
        let pdu = Arc::new(pdu);
        self.events.insert(id.clone(), Arc::clone(&pdu));
        self.before.insert(id.clone(), before);
        self.order.push(id);
        pdu
    }
}

/// A server with a room of its own alice, in which bob, carol and dave of other servers are, and the
/// graph of that room.
pub(crate) struct World {
    pub rooms: Rooms,
    pub graph: Graph,
}

pub(crate) fn bob() -> &'static UserId {
    user_id!("@bob:two.example")
}

pub(crate) fn carol() -> &'static UserId {
    user_id!("@carol:three.example")
}

pub(crate) fn dave() -> &'static UserId {
    user_id!("@dave:two.example")
}

pub(crate) fn state(sender: &UserId, kind: &str, key: &str, content: Value) -> Draft {
    Draft::state(sender, kind, key, object(content))
}

pub(crate) fn say(sender: &UserId, text: &str) -> Draft {
    let content = object(json!({"msgtype": "m.text", "body": text}));
    Draft::message(sender, TimelineEventType::RoomMessage, content)
}

fn first_drafts(version: &RoomVersionId) -> Vec<Draft> {
    let alice = &*user("alice");
    let mut drafts = vec![
        state(alice, "m.room.create", "", json!({"room_version": version, "creator": alice})),
        state(alice, "m.room.member", alice.as_str(), json!({"membership": "join"})),
        state(alice, "m.room.join_rules", "", json!({"join_rule": "public"})),
    ];
    let mut users = json!({(bob().as_str()): 60, (carol().as_str()): 50});
    if !room_version::rules(version).unwrap().authorization.explicitly_privilege_room_creators {
        users[alice.as_str()] = 100.into();
    }
    drafts.push(state(alice, "m.room.power_levels", "", json!({"users": users})));
    for user in [bob(), carol(), dave()] {
        drafts.push(state(user, "m.room.member", user.as_str(), json!({"membership": "join"})));
    }
    drafts
}

impl World {
    pub async fn new(version: RoomVersionId) -> Self {
        let rooms = testing::rooms().await;
        let drafts = &first_drafts(&version);
        let numbers = &Numbers::draw(&rooms, drafts.len()).await.unwrap();
        let (world, version) = (&rooms, &version);
        let made = rooms.env.store.transact(|tx| {
            async move {
                let placeholder = ruma::owned_room_id!("!new:test.example");
                let mut room = RoomTx::create(&tx, world, placeholder, version.clone(), numbers)?;
                let mut made = Vec::new();
                for draft in drafts {
                    made.push(room.append(draft.clone()).await?);
                }
                let room_id = room.room_id.clone();
                room.finish();
                Ok::<_, AppendError>((room_id, made))
            }
            .boxed()
        });
        let (room, made) = made.await.unwrap();
        let mut graph = Graph {
            rules: room_version::rules(version).unwrap(),
            room,
            events: HashMap::new(),
            before: HashMap::new(),
            rejected: HashSet::new(),
            order: Vec::new(),
            key: ServerSigningKey::new("far", &[9; 32]).unwrap(),
        };
        for event in made {
            let before = graph.resolve(&event.pdu.prev_events);
            let pdu = graph.put(event.pdu.clone(), before);
            assert!(!pdu.rejected, "{} was made by the server itself", pdu.kind);
        }
        Self { rooms, graph }
    }

    /// Another server with the same room, as it was at first.
    pub async fn another(&self, version: RoomVersionId) -> Self {
        // The test world draws the same numbers and tells the same time, so it is the same room.
        let other = Self::new(version).await;
        assert_eq!(other.graph.room, self.graph.room);
        other
    }

    pub fn newest(&self) -> OwnedEventId {
        self.graph.order.last().unwrap().clone()
    }

    pub async fn receive(&self, pdu: &Pdu) -> Received {
        receive(&self.rooms, &self.graph.room, unjudged(pdu)).await.unwrap()
    }

    pub async fn head(&self) -> RoomHead {
        let snapshot = self.rooms.env.store.snapshot();
        snapshot.get(&ROOM_HEAD, &self.graph.room, ()).await.unwrap().unwrap()
    }

    pub async fn header(&self, id: &EventId) -> EventHeader {
        let snapshot = self.rooms.env.store.snapshot();
        super::events::find(&snapshot, &self.graph.room, id).await.unwrap().unwrap().1
    }

    /// The flat current state, by event IDs.
    pub async fn current(&self) -> StateMap {
        let (snapshot, room) = (self.rooms.env.store.snapshot(), &self.graph.room);
        let mut state = StateMap::new();
        for ((kind, key), number) in snapshot.scan(&CURRENT_STATE, room, Scan::all()).await.unwrap()
        {
            let header = snapshot.get(&EVENT_HEADERS, room, number).await.unwrap().unwrap();
            state.insert((kind.as_str().into(), key), header.event_id);
        }
        state
    }

    async fn state_at(&self, root: millrace_store::state_tree::StateRoot) -> StateMap {
        let (snapshot, room) = (self.rooms.env.store.snapshot(), &self.graph.room);
        let mut state = StateMap::new();
        for (key, number) in self.rooms.states.list(&snapshot, room, root, None).await.unwrap() {
            let header = snapshot.get(&EVENT_HEADERS, room, number).await.unwrap().unwrap();
            state.insert((key.event_type.as_str().into(), key.state_key), header.event_id);
        }
        state
    }

    /// Compares all that the server has made of the graph with what the graph says.
    pub async fn check(&self) {
        let head = self.head().await;
        for id in &self.graph.order {
            let header = self.header(id).await;
            assert_eq!(header.rejected, self.graph.rejected.contains(id), "{id}");
            let before = self.state_at(header.before.unwrap()).await;
            assert_eq!(before, self.graph.before[id], "the state before {id}");
            assert_eq!(header.place.is_some(), !header.rejected && !header.soft_failed);
        }
        let ends: Vec<_> = head.extremities.iter().map(|end| end.event.event_id.clone()).collect();
        let expected = self.graph.resolve(&ends);
        assert_eq!(self.current().await, expected, "the flat current state");
        assert_eq!(self.state_at(head.root).await, expected, "the current state");
        self.check_members(&head, &expected).await;
        let snapshot = self.rooms.env.store.snapshot();
        let newest = snapshot.get(&TIMELINE, &self.graph.room, (head.last, 0)).await.unwrap();
        assert_eq!(newest.unwrap().after, head.root);
    }

    async fn check_members(&self, head: &RoomHead, state: &StateMap) {
        let snapshot = self.rooms.env.store.snapshot();
        let rows = snapshot.scan(&MEMBERS, &self.graph.room, Scan::all()).await.unwrap();
        let rows: BTreeMap<OwnedUserId, String> =
            rows.into_iter().map(|(user, row)| (user, row.membership.to_string())).collect();
        let mut expected = BTreeMap::new();
        for ((kind, key), id) in state {
            if *kind == StateEventType::RoomMember {
                let content: Value = self.graph.events[id].content_as().unwrap();
                let membership = content["membership"].as_str().unwrap().to_owned();
                expected.insert(OwnedUserId::try_from(key.as_str()).unwrap(), membership);
            }
        }
        assert_eq!(rows, expected);
        let count = |membership: &str| rows.values().filter(|m| *m == membership).count() as u64;
        assert_eq!((head.joined, head.invited), (count("join"), count("invite")));
        let here = server_name!("test.example");
        let ours = rows.iter().filter(|(user, m)| user.server_name() == here && *m == "join");
        assert_eq!(head.joined_here, ours.count() as u64);
    }
}

/// The event as it comes over the wire.
pub(crate) fn unjudged(pdu: &Pdu) -> Pdu {
    let mut pdu = pdu.clone();
    pdu.rejected = false;
    pdu
}
