use futures::FutureExt;
use millrace_model::{TimelineIndex, filter::EventFilter};
use millrace_store::{
    engine::MemoryEngine,
    rows::room::UserRoom,
    tables::{CURRENT_STATE, USER_ROOMS},
};
use ruma::{api::Direction, owned_server_name};
use serde_json::json;

use super::*;
use crate::{
    rooms::{
        CacheSizes, Viewer, gap,
        history::{self, Gaps, PageRequest},
        retention::{self, RetentionSettings},
        test_graph::{World, bob, carol, dave, say, state, unjudged},
        test_room::user,
    },
    testing,
};

/// The server `two.example`, of bob and dave, and the graph of a room of another server, which it
/// does not know yet. Bob's join is the fifth event.
async fn outside(version: RoomVersionId) -> World {
    let far = World::new(version).await;
    let (env, _) = testing::env_of(owned_server_name!("two.example"), MemoryEngine::new()).await;
    let rooms = Rooms::open(env, CacheSizes::default()).await.unwrap();
    World { rooms, graph: far.graph }
}

fn join_of(world: &World, at: usize) -> Admission {
    let id = &world.graph.order[at];
    let event = |id: &OwnedEventId| unjudged(&world.graph.events[id]);
    let state: Vec<Pdu> = world.graph.before[id].values().map(event).collect();
    let mut auth_chain: HashMap<OwnedEventId, Pdu> = HashMap::new();
    let mut open: Vec<Pdu> = state.iter().chain([&event(id)]).cloned().collect();
    while let Some(pdu) = open.pop() {
        open.extend(pdu.auth_events.iter().map(event));
        auth_chain.extend(pdu.auth_events.iter().map(|id| (id.clone(), event(id))));
    }
    Admission {
        room: world.graph.room.clone(),
        version: world.graph.version(),
        join: event(id),
        auth_chain: auth_chain.into_values().collect(),
        state,
        omitted: None,
    }
}

async fn user_room(world: &World, user: &UserId) -> Option<UserRoom> {
    let snapshot = world.rooms.env.store.snapshot();
    snapshot.get(&USER_ROOMS, user, &world.graph.room).await.unwrap()
}

/// What bob reads back from the end of the room.
async fn read_back(world: &World, gaps: Gaps) -> history::Page {
    let snapshot = world.rooms.env.store.snapshot();
    let viewer = Viewer { user: bob().to_owned(), device: None, ignored: Default::default() };
    let view = history::open(&world.rooms, &snapshot, &world.graph.room, &viewer).await.unwrap();
    let (direction, filter) = (Direction::Backward, &EventFilter::default());
    let request = PageRequest { from: None, to: None, direction, limit: 50, filter, gaps };
    history::page(&view, &request).await.unwrap()
}

#[tokio::test]
async fn a_room_is_taken_over_whole_and_goes_on() {
    for version in [RoomVersionId::V12, RoomVersionId::V10, RoomVersionId::V1] {
        let mut world = outside(version).await;
        import(&world.rooms, join_of(&world, 4)).await.unwrap();
        let head = world.head().await;
        assert_eq!((head.joined, head.joined_here, head.remote_servers), (2, 1, 1));
        assert_eq!(world.current().await, world.graph.after(&world.graph.order[4]));
        let row = user_room(&world, bob()).await.unwrap();
        assert_eq!((row.membership, row.n), (MembershipState::Join, 1));
        for at in 5..world.graph.order.len() {
            let pdu = Arc::clone(&world.graph.events[&world.graph.order[at]]);
            assert_eq!(world.receive(&pdu).await, Received::Accepted);
        }
        let said = world.graph.make(&say(carol(), "welcome"), &[world.newest()]);
        assert_eq!(world.receive(&said).await, Received::Accepted);
        assert_eq!(world.head().await.joined, 4);
        let page = read_back(&world, Gaps::StopAt).await;
        assert_eq!(page.events.len(), 4, "the join, two more joins and a message");
        assert_eq!(page.gap.unwrap().missing, [world.graph.order[3].clone()]);
    }
}

#[tokio::test]
async fn a_gap_is_filled_with_what_other_servers_have_and_closes() {
    let world = outside(RoomVersionId::V11).await;
    import(&world.rooms, join_of(&world, 4)).await.unwrap();
    let head = world.head().await;
    let room = &world.graph.room;
    let event = |at: usize| unjudged(&world.graph.events[&world.graph.order[at]]);
    let state: Vec<_> = world.graph.before[&world.graph.order[2]].values().cloned().collect();
    let states = HashMap::from([(world.graph.order[2].clone(), state)]);
    let filled = gap::fill(&world.rooms, room, 1, vec![event(2), event(3)], &states).await;
    assert_eq!(filled.unwrap(), 2);
    let page = read_back(&world, Gaps::StopAt).await;
    let ids: Vec<_> = page.events.iter().map(|seen| seen.event.pdu.event_id.clone()).collect();
    let expected: Vec<_> = world.graph.order[2..5].iter().rev().cloned().collect();
    assert_eq!(ids, expected);
    assert_eq!(page.events[2].index(), TimelineIndex { n: 1, k: -2 });
    assert_eq!(page.gap.as_ref().unwrap().missing, [world.graph.order[1].clone()]);
    let filled = gap::fill(&world.rooms, room, 1, vec![event(1), event(0)], &HashMap::new()).await;
    assert_eq!(filled.unwrap(), 2, "the first event has an empty state before it");
    let page = read_back(&world, Gaps::StopAt).await;
    assert_eq!(page.events.len(), 5);
    assert!(page.gap.is_none() && page.end.is_none(), "nothing is missing any more");
    let after = world.head().await;
    assert_eq!(after.extremities, head.extremities, "the past changes nothing of now");
    assert_eq!((after.root, after.last), (head.root, head.last));
    for id in &world.graph.order[..5] {
        let header = world.header(id).await;
        assert!(!header.outlier && header.place.is_some());
    }
}

#[tokio::test]
async fn expired_messages_that_come_into_a_gap_are_purged_as_well() {
    let mut world = outside(RoomVersionId::V11).await;
    let day = Some(std::time::Duration::from_hours(24));
    let settings = RetentionSettings { enabled: true, default_lifetime: day, ..Default::default() };
    world.rooms = world.rooms.keeping(settings);
    let mut add = |draft| world.graph.make(&draft, &[world.graph.order.last().unwrap().clone()]);
    let (first, second) = (add(say(carol(), "first")), add(say(carol(), "second")));
    let renamed = json!({"membership": "join", "displayname": "Bob"});
    add(state(bob(), "m.room.member", bob().as_str(), renamed));
    let (third, newest) = (add(say(carol(), "third")), add(say(carol(), "newest")));
    let join = world.graph.order.len() - 3;
    import(&world.rooms, join_of(&world, join)).await.unwrap();
    for pdu in [&third, &newest] {
        assert_eq!(world.receive(pdu).await, Received::Accepted);
    }
    let room = &world.graph.room;
    assert_eq!(retention::purge(&world.rooms, room).await.unwrap(), 1, "the third");
    for older in [second, first] {
        let state = world.graph.before[&older.event_id].values().cloned().collect();
        let states = HashMap::from([(older.event_id.clone(), state)]);
        let filled = gap::fill(&world.rooms, room, 1, vec![unjudged(&older)], &states).await;
        assert_eq!(filled.unwrap(), 1);
        assert_eq!(retention::purge(&world.rooms, room).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_does_not_come_before_a_gap_does_not_fill_it() {
    let mut world = outside(RoomVersionId::V11).await;
    import(&world.rooms, join_of(&world, 4)).await.unwrap();
    let stray = world.graph.make(&say(carol(), "elsewhere"), &[world.newest()]);
    let (room, none) = (&world.graph.room, &HashMap::new());
    let filled = gap::fill(&world.rooms, room, 1, vec![unjudged(&stray)], none);
    assert_eq!(filled.await.unwrap(), 0);
    assert_eq!(read_back(&world, Gaps::StopAt).await.gap.unwrap().missing.len(), 1);
}

#[tokio::test]
async fn who_left_and_joins_again_finds_the_room_as_it_has_become() {
    let mut world = outside(RoomVersionId::V11).await;
    import(&world.rooms, join_of(&world, 4)).await.unwrap();
    let leave = state(bob(), "m.room.member", bob().as_str(), json!({"membership": "leave"}));
    let leave = world.graph.make(&leave, &[world.graph.order[4].clone()]);
    assert_eq!(world.receive(&leave).await, Received::Accepted);
    assert_eq!(world.head().await.joined_here, 0);
    let late = world.graph.make(&say(carol(), "unheard"), &[world.newest()]);
    let received = receive(&world.rooms, &world.graph.room, unjudged(&late)).await;
    assert!(matches!(received, Err(ReceiveError::NotInRoom(_))), "{received:?}");
    let alice = user("alice");
    let topic = state(&alice, "m.room.topic", "", json!({"topic": "meanwhile"}));
    world.graph.make(&topic, &[leave.event_id.clone(), world.graph.order[6].clone()]);
    let ban = state(&alice, "m.room.member", dave().as_str(), json!({"membership": "ban"}));
    world.graph.make(&ban, &[world.newest()]);
    let again = state(bob(), "m.room.member", bob().as_str(), json!({"membership": "join"}));
    world.graph.make(&again, &[world.newest()]);
    let at = world.graph.order.len() - 1;
    import(&world.rooms, join_of(&world, at)).await.unwrap();
    assert_eq!(world.current().await, world.graph.after(&world.newest()));
    let head = world.head().await;
    assert_eq!((head.joined, head.joined_here, head.last), (3, 1, 3));
    assert_eq!(head.remote_servers, 2);
    let row = user_room(&world, bob()).await.unwrap();
    assert_eq!((row.membership, row.n, row.was_joined), (MembershipState::Join, 3, true));
    assert_eq!(user_room(&world, dave()).await.unwrap().membership, MembershipState::Ban);
    let page = read_back(&world, Gaps::Pass).await;
    assert_eq!(page.events.len(), 3, "both joins and the leave: history from before is kept");
    assert_eq!(read_back(&world, Gaps::StopAt).await.events.len(), 1);
}

#[tokio::test]
async fn an_attempt_that_did_not_finish_is_seen_by_nobody_and_gone_on_from() {
    let world = outside(RoomVersionId::V11).await;
    let Admission { room, version, state, auth_chain, .. } = join_of(&world, 4);
    let entries = stage::entries(&state);
    store_outliers(&world.rooms, &room, &version, [auth_chain, state].concat()).await.unwrap();
    let target = Target::load(&world.rooms, (&room, &version), (&entries, None)).await.unwrap();
    stage::stage(&world.rooms, &target, None).await.unwrap();
    let snapshot = world.rooms.env.store.snapshot();
    assert!(snapshot.get(&ROOM_HEAD, &room, ()).await.unwrap().is_none());
    assert!(user_room(&world, bob()).await.is_none());
    // The next attempt is told of another state: what the first one wrote beyond it goes.
    let body = |tx: Tx| {
        let room = room.clone();
        async move {
            tx.put(&CURRENT_STATE, &room, ("m.room.name", ""), &1);
            Ok::<_, millrace_store::Error>(())
        }
        .boxed()
    };
    world.rooms.env.store.transact(body).await.unwrap();
    import(&world.rooms, join_of(&world, 4)).await.unwrap();
    assert_eq!(world.current().await, world.graph.after(&world.graph.order[4]));
    let head = world.head().await;
    assert_eq!((head.joined, head.joined_here, head.remote_servers), (2, 1, 1));
}

#[tokio::test]
async fn the_second_of_ours_who_joins_by_another_server_joins_the_room_that_is_here() {
    let world = outside(RoomVersionId::V11).await;
    import(&world.rooms, join_of(&world, 4)).await.unwrap();
    import(&world.rooms, join_of(&world, 6)).await.unwrap();
    let head = world.head().await;
    assert_eq!((head.joined_here, head.last), (2, 2));
    import(&world.rooms, join_of(&world, 6)).await.unwrap();
    assert_eq!(world.head().await, head, "once more changes nothing");
}

#[tokio::test]
async fn a_state_that_does_not_allow_the_join_is_refused() {
    let mut world = outside(RoomVersionId::V11).await;
    let alice = user("alice");
    let before = vec![world.graph.order[3].clone()];
    let ban = state(&alice, "m.room.member", bob().as_str(), json!({"membership": "ban"}));
    world.graph.make(&ban, &before);
    let join = state(bob(), "m.room.member", bob().as_str(), json!({"membership": "join"}));
    world.graph.make(&join, &[world.newest()]);
    let at = world.graph.order.len() - 1;
    let refused = import(&world.rooms, join_of(&world, at)).await;
    assert!(matches!(refused, Err(ImportError::Refused(_))), "{refused:?}");
    let snapshot = world.rooms.env.store.snapshot();
    assert!(snapshot.get(&ROOM_HEAD, &world.graph.room, ()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_room_larger_than_one_commit_is_taken_over() {
    let mut world = outside(RoomVersionId::V11).await;
    let members = 600;
    let before = [world.graph.order[3].clone()];
    let mut admission = join_of(&world, 4);
    for at in 0..members {
        let user = UserId::parse(format!("@user{at}:server{}.example", at % 50)).unwrap();
        let join = state(&user, "m.room.member", user.as_str(), json!({"membership": "join"}));
        admission.state.push(unjudged(&world.graph.make(&join, &before)));
    }
    import(&world.rooms, admission).await.unwrap();
    let head = world.head().await;
    assert_eq!((head.joined, head.joined_here, head.remote_servers), (members + 2, 1, 51));
    assert_eq!(world.current().await.len() as u64, members + 5);
}
