//! Syncs of rooms with forks and gaps.

use std::{collections::HashMap, sync::Arc, time::Duration};

use millrace_model::SyncToken;
use ruma::{
    OwnedEventId, RoomVersionId, UserId, api::client::filter::FilterDefinition, owned_server_name,
};
use serde_json::{Value, json};

use super::{SyncFilter, SyncParts, SyncRequest, Syncs, sync};
use crate::{
    deliveries::{Deliveries, DeliverySettings},
    ephemeral::EphemeralClock,
    presence::{Presence, PresenceSettings},
    rooms::{
        CacheSizes, Received, Rooms, gap,
        import::{Admission, import},
        test_graph::{World, bob, carol, say, state, unjudged},
        test_room::user,
    },
    testing,
    typing::Typing,
};

fn syncs(rooms: &Rooms) -> Syncs {
    let moments = Arc::new(EphemeralClock::new(&rooms.env));
    let presence = PresenceSettings::default();
    Syncs::new(SyncParts {
        typing: Arc::new(Typing::new(rooms.env.clone(), Arc::clone(&moments), Duration::MAX)),
        presence: Arc::new(Presence::new(rooms.env.clone(), Arc::clone(&moments), presence)),
        ephemeral: moments,
        unreads: Arc::default(),
        deliveries: Deliveries::new(rooms.clone(), DeliverySettings::default()),
        rooms: rooms.clone(),
    })
}

async fn read(syncs: &Syncs, user: &UserId, since: Option<&Value>) -> Value {
    let since = since.map(|last| last["next_batch"].as_str().unwrap().parse().unwrap());
    let since: Option<SyncToken> = since;
    let request = SyncRequest {
        user: user.to_owned(),
        device: Some("DEVICE".into()),
        since,
        filter: SyncFilter::new(&FilterDefinition::default()),
        full_state: false,
        state_after: false,
        timeout: Duration::ZERO,
    };
    let response = sync(syncs, &request, std::future::pending()).await.unwrap();
    serde_json::from_str(&response.json).unwrap()
}

fn ids(events: &Value) -> Vec<&str> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn state_that_a_fork_turns_over_is_told_though_no_event_of_the_timeline_sets_it() {
    let mut world = World::new(RoomVersionId::V11).await;
    let (alice, syncs) = (user("alice"), syncs(&world.rooms));
    let topic =
        |sender: &UserId, topic: &str| state(sender, "m.room.topic", "", json!({"topic": topic}));
    let first = world.graph.make(&topic(&alice, "alice's"), &[world.newest()]);
    assert_eq!(world.receive(&first).await, Received::Accepted);
    let fork = [first.event_id.clone()];
    let second = world.graph.make(&topic(carol(), "carol's"), &fork);
    assert_eq!(world.receive(&second).await, Received::Accepted);
    let last = read(&syncs, &alice, None).await;
    let users = json!({alice.as_str(): 100, (bob().as_str()): 60});
    let levels = state(bob(), "m.room.power_levels", "", json!({"users": users}));
    let levels = world.graph.make(&levels, &fork);
    assert_eq!(world.receive(&levels).await, Received::Accepted);
    world.check().await;
    let news = read(&syncs, &alice, Some(&last)).await;
    let room = &news["rooms"]["join"][world.graph.room.as_str()];
    assert_eq!(ids(&room["timeline"]["events"]), [levels.event_id.as_str()]);
    assert_eq!(ids(&room["state"]["events"]), [first.event_id.as_str()], "{news}");
    let said = world
        .graph
        .make(&say(&alice, "both ends"), &[second.event_id.clone(), levels.event_id.clone()]);
    assert_eq!(world.receive(&said).await, Received::Accepted);
    let then = read(&syncs, &alice, Some(&news)).await;
    let room = &then["rooms"]["join"][world.graph.room.as_str()];
    assert_eq!(ids(&room["timeline"]["events"]), [said.event_id.as_str()]);
    assert!(room.get("state").is_none(), "nothing is told twice: {then}");
}

#[tokio::test]
async fn a_sync_stops_at_a_gap_and_what_fills_it_is_no_news() {
    let far = World::new(RoomVersionId::V11).await;
    let engine = millrace_store::engine::MemoryEngine::new();
    let (env, _) = testing::env_of(owned_server_name!("two.example"), engine).await;
    let rooms = Rooms::open(env, CacheSizes::default()).await.unwrap();
    let world = World { rooms, graph: far.graph };
    let event = |id: &OwnedEventId| unjudged(&world.graph.events[id]);
    let order = &world.graph.order;
    let admission = Admission {
        omitted: None,
        room: world.graph.room.clone(),
        version: RoomVersionId::V11,
        join: event(&order[4]),
        state: order[..4].iter().map(event).collect(),
        auth_chain: Vec::new(),
    };
    import(&world.rooms, admission).await.unwrap();
    let syncs = syncs(&world.rooms);
    let first = read(&syncs, bob(), None).await;
    let room = &first["rooms"]["join"][world.graph.room.as_str()];
    assert_eq!(ids(&room["timeline"]["events"]), [order[4].as_str()]);
    assert_eq!(room["timeline"]["limited"], true);
    let mut told = ids(&room["state"]["events"]);
    let mut expected: Vec<&str> = order[..4].iter().map(|id| id.as_str()).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    let older: Vec<_> = order[..4].iter().map(event).collect();
    let filled = gap::fill(&world.rooms, &world.graph.room, 1, older, &HashMap::new()).await;
    assert_eq!(filled.unwrap(), 4);
    let then = read(&syncs, bob(), Some(&first)).await;
    let room = &then["rooms"]["join"][world.graph.room.as_str()];
    assert!(ids(&room["timeline"]["events"]).is_empty(), "{then}");
    let again = read(&syncs, bob(), None).await;
    let room = &again["rooms"]["join"][world.graph.room.as_str()];
    assert_eq!(ids(&room["timeline"]["events"]), [order[4].as_str()]);
    assert_eq!(room["timeline"]["limited"], true);
}
