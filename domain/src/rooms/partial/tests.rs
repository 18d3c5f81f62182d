use std::collections::{HashMap, HashSet};

use futures::FutureExt;
use millrace_model::Pdu;
use millrace_store::{
    Node, Read, Scan, Tx,
    engine::MemoryEngine,
    rows::room::RoomHead,
    state_tree::StateRoot,
    tables::{
        CURRENT_STATE, DEVICE_LIST, DEVICE_LISTS, EVENT_HEADERS, MEMBERS, PARTIAL_DEVICES,
        PARTIAL_EVENTS, PARTIAL_SERVERS, ROOM_HEAD, ROOM_SERVERS, TIMELINE,
    },
};
use ruma::{
    EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomVersionId, device_id,
    owned_server_name, server_name, user_id,
};
use serde_json::json;

use super::{
    complete::{self, Pace, Progress},
    rooms as partial_rooms,
    settle::{self, ToldState},
};
use crate::{
    accounts::{DeviceFate, devices_changed},
    outbox::{self, News},
    remote_devices,
    rooms::{
        CacheSizes, ReceiveError, Received, Rooms,
        dag_tests::{Dice, grow, shuffled},
        events,
        import::{Admission, Omitted, import},
        outliers::store_outliers,
        receive::receive,
        send,
        test_graph::{Graph, World, bob, carol, dave, say, state, unjudged},
        test_room::user,
    },
    testing,
};

/// Where carol's join is in the graph: alice and bob are members before her.
const JOIN: usize = 5;
const SMALL: Pace = Pace { events: 3, entries: 1 };

/// The server of carol, which does not know the room yet.
async fn outside() -> Rooms {
    let (env, _) = testing::env_of(owned_server_name!("three.example"), MemoryEngine::new()).await;
    Rooms::open(env, CacheSizes::default()).await.unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Whole,
    WithoutMembers,
}

fn admission(graph: &Graph, at: usize, told: Told) -> Admission {
    let id = &graph.order[at];
    let event = |id: &OwnedEventId| unjudged(&graph.events[id]);
    let mut state: Vec<Pdu> = graph.before[id].values().map(event).collect();
    if told == Told::WithoutMembers {
        state.retain(|pdu| pdu.kind.to_string() != "m.room.member");
    }
    let mut auth_chain: HashMap<OwnedEventId, Pdu> = HashMap::new();
    let mut open: Vec<Pdu> = state.iter().chain([&event(id)]).cloned().collect();
    while let Some(pdu) = open.pop() {
        open.extend(pdu.auth_events.iter().map(event));
        auth_chain.extend(pdu.auth_events.iter().map(|id| (id.clone(), event(id))));
    }
    let servers = vec![owned_server_name!("test.example"), owned_server_name!("two.example")];
    let omitted = Omitted { told_by: owned_server_name!("test.example"), servers };
    Admission {
        room: graph.room.clone(),
        version: graph.version(),
        join: event(id),
        auth_chain: auth_chain.into_values().collect(),
        state,
        omitted: (told == Told::WithoutMembers).then_some(omitted),
    }
}

/// Receives an event; what authorises it is fetched where it is missing.
async fn feed(rooms: &Rooms, graph: &Graph, id: &EventId) -> Received {
    let pdu = unjudged(&graph.events[id]);
    match receive(rooms, &graph.room, pdu.clone()).await {
        Err(ReceiveError::MissingAuthEvents(mut open)) => {
            let mut chain: HashMap<OwnedEventId, Pdu> = HashMap::new();
            while let Some(id) = open.pop() {
                let pdu = unjudged(&graph.events[&id]);
                open.extend(pdu.auth_events.iter().cloned());
                chain.insert(id, pdu);
            }
            let chain = chain.into_values().collect();
            store_outliers(rooms, &graph.room, &graph.version(), chain).await.unwrap();
            receive(rooms, &graph.room, pdu).await.unwrap()
        }
        received => received.unwrap(),
    }
}

/// The state before carol's join comes from another server.
async fn settle_join(rooms: &Rooms, graph: &Graph) {
    let want = settle::wanted(rooms, &graph.room).await.unwrap().unwrap();
    for event in want.events {
        let before: Vec<OwnedEventId> = graph.before[&event.event_id].values().cloned().collect();
        let pdus = before.iter().map(|id| unjudged(&graph.events[id])).collect();
        store_outliers(rooms, &graph.room, &graph.version(), pdus).await.unwrap();
        let told = ToldState { state: before, then: None };
        settle::settle(rooms, &graph.room, event.number, &told).await.unwrap();
    }
}

async fn complete(rooms: &Rooms, graph: &Graph) {
    while complete::step(rooms, &graph.room, SMALL).await.unwrap() != Progress::Complete {}
}

async fn head(rooms: &Rooms, graph: &Graph) -> RoomHead {
    rooms.env.store.snapshot().get(&ROOM_HEAD, &graph.room, ()).await.unwrap().unwrap()
}

/// What a room is, in terms that two servers share.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    current: Vec<String>,
    flat: Vec<String>,
    members: Vec<String>,
    ends: HashSet<OwnedEventId>,
    counts: (u64, u64, u64, u64),
    servers: Vec<(String, u64)>,
    /// Of each event: how it was judged, and the state before it.
    events: Vec<(OwnedEventId, bool, bool, bool, Vec<String>)>,
}

async fn ids(rooms: &Rooms, graph: &Graph, numbers: Vec<u64>) -> Vec<String> {
    let snapshot = rooms.env.store.snapshot();
    let headers = snapshot.get_many(&EVENT_HEADERS, &graph.room, numbers).await.unwrap();
    let mut ids: Vec<String> =
        headers.into_iter().map(|header| header.unwrap().event_id.to_string()).collect();
    ids.sort();
    ids
}

async fn state_ids(rooms: &Rooms, graph: &Graph, root: StateRoot) -> Vec<String> {
    let snapshot = rooms.env.store.snapshot();
    let numbers = rooms.states.numbers(&snapshot, &graph.room, root, None).await.unwrap();
    ids(rooms, graph, numbers).await
}

async fn picture(rooms: &Rooms, graph: &Graph) -> Picture {
    let (snapshot, room) = (rooms.env.store.snapshot(), &graph.room);
    let head = head(rooms, graph).await;
    let flat = snapshot.scan(&CURRENT_STATE, room, Scan::all()).await.unwrap();
    let members = snapshot.scan(&MEMBERS, room, Scan::all()).await.unwrap();
    let servers = snapshot.scan(&ROOM_SERVERS, room, Scan::all()).await.unwrap();
    let newest = snapshot.get(&TIMELINE, room, (head.last, 0)).await.unwrap().unwrap();
    assert_eq!(newest.after, head.root, "the newest row tells the current state");
    let mut events = Vec::new();
    for id in &graph.order[JOIN..] {
        let Some((_, header)) = events::find(&snapshot, room, id).await.unwrap() else { continue };
        let Some(before) = header.before else { continue };
        let before = state_ids(rooms, graph, before).await;
        let shown = header.place.is_some();
        events.push((id.clone(), shown, header.rejected, header.soft_failed, before));
    }
    Picture {
        current: state_ids(rooms, graph, head.root).await,
        flat: ids(rooms, graph, flat.into_iter().map(|(_, number)| number).collect()).await,
        members: members.iter().map(|(user, row)| format!("{user} {}", row.membership)).collect(),
        ends: head.extremities.iter().map(|end| end.event.event_id.clone()).collect(),
        counts: (head.joined, head.joined_here, head.invited, head.remote_servers),
        servers: servers
            .into_iter()
            .map(|(server, row)| (server.to_string(), row.joined))
            .filter(|(_, joined)| *joined > 0)
            .collect(),
        events,
    }
}

/// A room that carol has joined at two servers of hers, whole at one and partial at the other.
async fn joined_twice(version: RoomVersionId) -> (Rooms, Rooms, Graph) {
    let graph = World::new(version).await.graph;
    let (whole, partial) = (outside().await, outside().await);
    import(&whole, admission(&graph, JOIN, Told::Whole)).await.unwrap();
    import(&partial, admission(&graph, JOIN, Told::WithoutMembers)).await.unwrap();
    (whole, partial, graph)
}

#[tokio::test]
async fn a_completed_room_is_what_it_would_be_had_it_been_joined_whole() {
    let versions = ["12", "11", "10", "6", "2", "1"];
    let (mut turned, mut refused) = (0, 0);
    for seed in 0..24 {
        let mut dice = Dice(seed * 7919 + 3);
        let version = versions[seed as usize % versions.len()].try_into().unwrap();
        let (whole, partial, mut graph) = joined_twice(version).await;
        // Whom nobody throws out: the server stays in the room.
        let erin = user_id!("@erin:three.example");
        let join = state(erin, "m.room.member", erin.as_str(), json!({"membership": "join"}));
        let newest = graph.order.last().unwrap().clone();
        graph.make(&join, &[newest]);
        let begun = graph.order.len();
        grow(&mut graph, &mut dice, 24);
        // Dave and erin joined after carol.
        let order = [&graph.order[JOIN + 1..begun], &shuffled(&graph, &mut dice, begun)].concat();
        let settled_after = dice.roll(order.len());
        let mut differed = HashSet::new();
        for (at, id) in order.iter().enumerate() {
            let one = feed(&whole, &graph, id).await;
            let other = feed(&partial, &graph, id).await;
            if one != other {
                differed.insert(id.clone());
            }
            refused += usize::from(one != Received::Accepted);
            if at == settled_after {
                settle_join(&partial, &graph).await;
            }
            if at >= settled_after && dice.roll(3) == 0 {
                complete::step(&partial, &graph.room, SMALL).await.unwrap();
            }
        }
        complete(&partial, &graph).await;
        turned += differed.len();
        assert_eq!(picture(&partial, &graph).await, picture(&whole, &graph).await, "seed {seed}");
        let snapshot = partial.env.store.snapshot();
        assert!(partial_rooms(&snapshot).await.unwrap().is_empty());
        let room = &graph.room;
        assert!(snapshot.scan(&PARTIAL_EVENTS, room, Scan::all()).await.unwrap().is_empty());
        assert!(snapshot.scan(&PARTIAL_SERVERS, room, Scan::all()).await.unwrap().is_empty());
        assert_eq!(head(&partial, &graph).await.partial, None);
    }
    assert!(
        refused > 0 && turned > 0,
        "{refused} were refused, {turned} judged otherwise at first"
    );
}

#[tokio::test]
async fn a_partial_room_is_used_at_once_and_its_servers_are_known() {
    let (_, rooms, graph) = joined_twice(RoomVersionId::V11).await;
    let head_then = head(&rooms, &graph).await;
    assert!(head_then.partial.is_some());
    assert_eq!((head_then.joined, head_then.joined_here, head_then.remote_servers), (1, 1, 2));
    let message = say(carol(), "hello");
    let sent = send::send(&rooms, &graph.room, &message, None).await.unwrap();
    let head = head(&rooms, &graph).await;
    assert_eq!(head.extremities[0].event.event_id, sent);
    assert!(head.outbox > 0, "other servers are told");
    let snapshot = rooms.env.store.snapshot();
    assert!(super::may_be_member(&snapshot, &graph.room, bob()).await.unwrap());
    let stranger = user_id!("@x:elsewhere.example");
    assert!(!super::may_be_member(&snapshot, &graph.room, stranger).await.unwrap());
    assert_eq!(partial_rooms(&snapshot).await.unwrap(), std::slice::from_ref(&graph.room));
}

#[tokio::test]
async fn what_a_member_who_is_not_known_says_is_believed_until_it_is_known_better() {
    let (_, rooms, mut graph) = joined_twice(RoomVersionId::V11).await;
    let alice = user("alice");
    let join = graph.order[JOIN].clone();
    let said = graph.make(&say(bob(), "hello"), std::slice::from_ref(&join));
    assert_eq!(feed(&rooms, &graph, &said.event_id).await, Received::Accepted);
    let kick = state(&alice, "m.room.member", bob().as_str(), json!({"membership": "ban"}));
    let kick = graph.make(&kick, std::slice::from_ref(&said.event_id));
    assert_eq!(feed(&rooms, &graph, &kick.event_id).await, Received::Accepted);
    let late = graph.make(&say(bob(), "I was here"), std::slice::from_ref(&said.event_id));
    assert_eq!(feed(&rooms, &graph, &late.event_id).await, Received::SoftFailed);
}

#[tokio::test]
async fn an_event_is_taken_back_that_the_complete_state_does_not_allow_and_one_is_shown_late() {
    let mut graph = World::new(RoomVersionId::V11).await.graph;
    // Bob, who may kick, is banned before carol joins again.
    let alice = user("alice");
    let ban = state(&alice, "m.room.member", bob().as_str(), json!({"membership": "ban"}));
    let newest = graph.order.last().unwrap().clone();
    let ban = graph.make(&ban, &[newest]);
    let join = state(carol(), "m.room.member", carol().as_str(), json!({"membership": "join"}));
    let join = graph.make(&join, std::slice::from_ref(&ban.event_id));
    let at = graph.order.len() - 1;
    let rooms = outside().await;
    import(&rooms, admission(&graph, at, Told::WithoutMembers)).await.unwrap();
    let bobs_join = graph.order[4].clone();
    let daves_join = graph.order[6].clone();
    let kick = state(bob(), "m.room.member", dave().as_str(), json!({"membership": "leave"}));
    let prev = std::slice::from_ref(&join.event_id);
    let kick = graph.make_naming(&kick, prev, &[bobs_join, daves_join]);
    assert_eq!(
        feed(&rooms, &graph, &kick.event_id).await,
        Received::Accepted,
        "nobody knows that bob is banned"
    );
    let said = graph.make(&say(dave(), "still here"), std::slice::from_ref(&kick.event_id));
    assert_eq!(feed(&rooms, &graph, &said.event_id).await, Received::Rejected);
    settle_join(&rooms, &graph).await;
    complete(&rooms, &graph).await;
    let snapshot = rooms.env.store.snapshot();
    let header =
        async |id: &EventId| events::find(&snapshot, &graph.room, id).await.unwrap().unwrap().1;
    let kick = header(&kick.event_id).await;
    assert!(kick.rejected && kick.place.is_none());
    let said = header(&said.event_id).await;
    let head = head(&rooms, &graph).await;
    assert!(!said.rejected);
    assert_eq!(said.place, Some((head.last, 0)), "it is news");
}

#[tokio::test]
async fn a_member_whom_a_partial_state_has_wrong_is_resolved_with_what_an_event_names() {
    let mut graph = World::new(RoomVersionId::V11).await.graph;
    // Dave takes a name, and bob, who may kick, is banned, before carol joins again.
    let named = json!({"membership": "join", "displayname": "Dave"});
    let named = state(dave(), "m.room.member", dave().as_str(), named);
    let newest = graph.order.last().unwrap().clone();
    let named = graph.make(&named, &[newest]);
    let ban = state(&user("alice"), "m.room.member", bob().as_str(), json!({"membership": "ban"}));
    let ban = graph.make(&ban, std::slice::from_ref(&named.event_id));
    let join = state(carol(), "m.room.member", carol().as_str(), json!({"membership": "join"}));
    let join = graph.make(&join, std::slice::from_ref(&ban.event_id));
    let at = graph.order.len() - 1;
    let rooms = outside().await;
    import(&rooms, admission(&graph, at, Told::WithoutMembers)).await.unwrap();
    let (bobs_join, daves_join) = (graph.order[4].clone(), graph.order[6].clone());
    let kick = state(bob(), "m.room.member", dave().as_str(), json!({"membership": "leave"}));
    let before = std::slice::from_ref(&join.event_id);
    let kick = graph.make_naming(&kick, before, &[bobs_join, daves_join.clone()]);
    assert_eq!(feed(&rooms, &graph, &kick.event_id).await, Received::Accepted);
    // By the state alone, which has the kick, dave is out. But that does not follow his new name.
    let before = std::slice::from_ref(&kick.event_id);
    let said = graph.make(&say(dave(), "still here"), before);
    assert_eq!(feed(&rooms, &graph, &said.event_id).await, Received::Accepted);
    // What is named is not simply believed: the kick ended dave's first membership.
    let again = graph.make_naming(&say(dave(), "again"), before, &[daves_join]);
    assert_eq!(feed(&rooms, &graph, &again.event_id).await, Received::Rejected);
}

#[tokio::test]
async fn a_room_that_is_left_and_joined_again_while_partial_is_completed_in_both_stays() {
    let (whole, rooms, mut graph) = joined_twice(RoomVersionId::V11).await;
    let leave = state(carol(), "m.room.member", carol().as_str(), json!({"membership": "leave"}));
    let newest = graph.order.last().unwrap().clone();
    for rooms in [&whole, &rooms] {
        feed(rooms, &graph, &newest).await;
    }
    let leave = graph.make(&leave, &[newest]);
    for rooms in [&whole, &rooms] {
        assert_eq!(feed(rooms, &graph, &leave.event_id).await, Received::Accepted);
    }
    let topic = state(&user("alice"), "m.room.topic", "", json!({"topic": "while carol was out"}));
    let topic = graph.make(&topic, std::slice::from_ref(&leave.event_id));
    let join = state(carol(), "m.room.member", carol().as_str(), json!({"membership": "join"}));
    graph.make(&join, std::slice::from_ref(&topic.event_id));
    let at = graph.order.len() - 1;
    import(&whole, admission(&graph, at, Told::Whole)).await.unwrap();
    import(&rooms, admission(&graph, at, Told::WithoutMembers)).await.unwrap();
    let want = settle::wanted(&rooms, &graph.room).await.unwrap().unwrap();
    let superseded: Vec<bool> = want.events.iter().map(|event| event.superseded).collect();
    assert_eq!(superseded, [true, false]);
    settle::give_up(&rooms, &graph.room, want.events[0].number).await.unwrap();
    settle_join(&rooms, &graph).await;
    complete(&rooms, &graph).await;
    let (one, other) = (picture(&rooms, &graph).await, picture(&whole, &graph).await);
    assert_eq!((one.current, one.members), (other.current, other.members));
    assert_eq!((one.ends, one.counts), (other.ends, other.counts));
    assert!(head(&rooms, &graph).await.partial.is_none());
}

#[tokio::test]
async fn a_room_that_is_joined_whole_counts_no_server_that_was_only_told_of() {
    let (_, rooms, graph) = joined_twice(RoomVersionId::V11).await;
    let snapshot = rooms.env.store.snapshot();
    let count = async |server| {
        let row = snapshot.get(&ROOM_SERVERS, &graph.room, server).await.unwrap();
        row.map_or(0, |row| row.joined)
    };
    assert_eq!(count(server_name!("two.example")).await, 1);
    settle_join(&rooms, &graph).await;
    complete(&rooms, &graph).await;
    let snapshot = rooms.env.store.snapshot();
    let row = snapshot.get(&ROOM_SERVERS, &graph.room, server_name!("two.example")).await.unwrap();
    assert_eq!(row.unwrap().joined, 1, "bob");
    let rows = snapshot.scan(&millrace_store::tables::PARTIAL_ROOMS, Node, Scan::all()).await;
    assert!(rows.unwrap().is_empty());
}

#[tokio::test]
async fn the_servers_of_a_room_are_told_of_all_that_is_said_while_it_is_completed() {
    let (_, rooms, graph) = joined_twice(RoomVersionId::V11).await;
    settle_join(&rooms, &graph).await;
    let mut said = 0;
    loop {
        let progress = complete::step(&rooms, &graph.room, Pace::default()).await.unwrap();
        assert_eq!(head(&rooms, &graph).await.remote_servers, 2, "none is missing between steps");
        send::send(&rooms, &graph.room, &say(carol(), "hello"), None).await.unwrap();
        said += 1;
        if progress == Progress::Complete {
            break;
        }
    }
    let head = head(&rooms, &graph).await;
    assert_eq!(head.outbox, said);
    let snapshot = rooms.env.store.snapshot();
    for server in [server_name!("test.example"), server_name!("two.example")] {
        let row = snapshot.get(&ROOM_SERVERS, &graph.room, server).await.unwrap().unwrap();
        assert_eq!(row.stays.len(), 1, "{server} never left");
        assert!(row.sees(head.last));
    }
}

#[tokio::test]
async fn a_state_of_another_room_is_refused() {
    let (_, rooms, graph) = joined_twice(RoomVersionId::V11).await;
    let want = settle::wanted(&rooms, &graph.room).await.unwrap().unwrap();
    let told = ToldState { state: vec![graph.order[2].clone()], then: None };
    let settled = settle::settle(&rooms, &graph.room, want.events[0].number, &told).await;
    assert!(matches!(settled, Err(super::CompleteError::OtherState(_))), "{settled:?}");
}

#[tokio::test]
async fn a_server_that_was_not_known_to_be_there_is_told_of_devices_that_changed_meanwhile() {
    let (alices, bobs) = (server_name!("test.example"), server_name!("two.example"));
    for told in [vec![alices.to_owned()], vec![alices.to_owned(), bobs.to_owned()]] {
        let graph = World::new(RoomVersionId::V11).await.graph;
        let rooms = outside().await;
        let mut admission = admission(&graph, JOIN, Told::WithoutMembers);
        admission.omitted.as_mut().unwrap().servers = told.clone();
        import(&rooms, admission).await.unwrap();
        let since = rooms.env.store.snapshot().view().clone();
        let change = |tx: Tx| {
            async move {
                devices_changed(&tx, carol(), [device_id!("PHONE")], DeviceFate::Changed).await
            }
            .boxed()
        };
        rooms.env.store.transact(change).await.unwrap();
        settle_join(&rooms, &graph).await;
        complete(&rooms, &graph).await;
        let news = outbox::news(&rooms.env.store.snapshot(), &since).await.unwrap();
        let missed: Vec<&OwnedServerName> = news
            .iter()
            .filter_map(|news| match news {
                News::Missed { server, user } if user == carol() => Some(server),
                _ => None,
            })
            .collect();
        if told.len() == 1 {
            assert_eq!(missed, [bobs]);
        } else {
            assert!(missed.is_empty(), "{missed:?} were told at once");
        }
    }
}

#[tokio::test]
async fn changes_of_devices_of_members_who_are_not_known_yet_are_told_when_they_are() {
    let (_, rooms, graph) = joined_twice(RoomVersionId::V11).await;
    let stranger = user_id!("@stranger:two.example");
    for user in [bob(), stranger] {
        remote_devices::keep(&rooms.env, user).await.unwrap();
    }
    let since = rooms.env.store.snapshot().view().clone();
    settle_join(&rooms, &graph).await;
    complete(&rooms, &graph).await;
    let snapshot = rooms.env.store.snapshot();
    let changes = snapshot.changes::<String>(DEVICE_LISTS, &since, 9).await.unwrap();
    let users = changes.iter().map(|change| DEVICE_LIST.decode_key(&change.key).unwrap());
    assert_eq!(users.collect::<Vec<OwnedUserId>>(), [bob()], "who turned out to be a member");
    let kept = snapshot.scan(&PARTIAL_DEVICES, &graph.room, Scan::all()).await.unwrap();
    assert!(kept.is_empty());
}
