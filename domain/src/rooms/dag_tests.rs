//! Rooms of many servers: random graphs of events, fed to a server in random orders, and judged by
//! an oracle that works on whole states with nothing but the rules.

use std::{collections::HashSet, sync::Arc};

use millrace_store::{Read, tables::THREADS};
use ruma::{EventId, OwnedEventId, RoomVersionId, UserId, events::TimelineEventType};
use serde_json::json;

use super::{
    Draft, Received, gap,
    outliers::store_outliers,
    receive::{receive, receive_after_gap, unknown, without_state},
    test_graph::{Graph, World, bob, carol, dave, say, state, unjudged},
    test_room::{object, user},
};

/// Small numbers that look random.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn of<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len())]
    }
}

fn random_draft(dice: &mut Dice, alice: &UserId) -> Draft {
    let others = [bob(), carol(), dave()];
    let (sender, target) = (*dice.of(&others), *dice.of(&others));
    match dice.roll(9) {
        0 => state(sender, "m.room.topic", "", json!({"topic": dice.roll(1000)})),
        1 => {
            let users = json!({(bob().as_str()): 50 + dice.roll(20), (carol().as_str()): dice.roll(60), (dave().as_str()): dice.roll(50)});
            let mut users = users;
            if dice.roll(2) == 0 {
                users[alice.as_str()] = 100.into();
            }
            state(sender, "m.room.power_levels", "", json!({"users": users}))
        }
        2 => state(sender, "m.room.member", target.as_str(), json!({"membership": "ban"})),
        3 => state(sender, "m.room.member", target.as_str(), json!({"membership": "leave"})),
        4 => state(sender, "m.room.member", target.as_str(), json!({"membership": "invite"})),
        5 | 6 => state(sender, "m.room.member", sender.as_str(), json!({"membership": "join"})),
        7 => state(
            sender,
            "m.room.join_rules",
            "",
            json!({"join_rule": *dice.of(&["public", "invite"])}),
        ),
        _ => say(sender, "hello"),
    }
}

/// Grows the graph by `count` random events.
pub(crate) fn grow(graph: &mut Graph, dice: &mut Dice, count: usize) {
    let alice = user("alice");
    let first = graph.order.len() - 1;
    for _ in 0..count {
        let draft = random_draft(dice, &alice);
        let recent = graph.order.len().saturating_sub(6).max(first);
        let mut prev: Vec<OwnedEventId> = Vec::new();
        for _ in 0..=dice.roll(3) {
            let id = dice.of(&graph.order[recent..]).clone();
            if !prev.contains(&id) {
                prev.push(id);
            }
        }
        graph.make(&draft, &prev);
    }
}

/// The events from `first` on, in a random order in which each comes after what it follows and what
/// authorises it.
pub(crate) fn shuffled(graph: &Graph, dice: &mut Dice, first: usize) -> Vec<OwnedEventId> {
    let mut left: Vec<_> = graph.order[first..].to_vec();
    let mut fed: HashSet<_> = graph.order[..first].iter().cloned().collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let event = |id: &OwnedEventId| &graph.events[id];
        let is_ready = |id: &OwnedEventId| {
            event(id).prev_events.iter().chain(&event(id).auth_events).all(|id| fed.contains(id))
        };
        let ready: Vec<usize> = (0..left.len()).filter(|at| is_ready(&left[*at])).collect();
        let id = left.remove(*dice.of(&ready));
        fed.insert(id.clone());
        order.push(id);
    }
    order
}

#[tokio::test]
async fn random_graphs_in_random_orders_come_out_as_the_rules_alone_say() {
    let versions = ["12", "11", "6", "2", "1"];
    let mut soft_failed = 0;
    for seed in 0..15 {
        let mut dice = Dice(seed * 7919 + 1);
        let version: RoomVersionId = versions[seed as usize % versions.len()].try_into().unwrap();
        let mut first = World::new(version.clone()).await;
        let begun = first.graph.order.len();
        grow(&mut first.graph, &mut dice, 30);
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            let mut world = first.another(version.clone()).await;
            std::mem::swap(&mut world.graph, &mut first.graph);
            let mut failed = HashSet::new();
            for id in shuffled(&world.graph, &mut dice, begun) {
                let pdu = Arc::clone(&world.graph.events[&id]);
                let received = world.receive(&pdu).await;
                assert_eq!(received == Received::Rejected, pdu.rejected, "seed {seed}: {id}");
                if received == Received::SoftFailed {
                    failed.insert(id.clone());
                }
                assert_eq!(world.receive(&pdu).await, Received::Known);
            }
            world.check().await;
            soft_failed += failed.len();
            outcomes.push((failed, world.current().await));
            std::mem::swap(&mut world.graph, &mut first.graph);
        }
        if outcomes.iter().all(|(failed, _)| failed.is_empty()) {
            assert_eq!(outcomes[0].1, outcomes[1].1, "seed {seed}");
        }
    }
    assert!(soft_failed > 0, "some events were to fail softly");
}

#[tokio::test]
async fn a_local_event_follows_all_ends_and_joins_them() {
    let mut world = World::new(RoomVersionId::V12).await;
    let root = world.newest();
    for text in ["one", "two", "three"] {
        let pdu = world.graph.make(&say(bob(), text), std::slice::from_ref(&root));
        assert_eq!(world.receive(&pdu).await, Received::Accepted);
    }
    assert_eq!(world.head().await.extremities.len(), 3);
    let sent =
        super::send::send(&world.rooms, &world.graph.room, &say(&user("alice"), "x"), None).await;
    let head = world.head().await;
    assert_eq!(head.extremities.len(), 1);
    assert_eq!(head.extremities[0].event.event_id, sent.unwrap());
}

#[tokio::test]
async fn an_event_after_unknown_ones_waits_and_changes_nothing() {
    let mut world = World::new(RoomVersionId::V11).await;
    let before = world.head().await;
    let missing = world.graph.make(&say(bob(), "lost"), &[world.newest()]);
    let pdu = world.graph.make(&say(bob(), "after it"), std::slice::from_ref(&missing.event_id));
    let received = receive(&world.rooms, &world.graph.room, unjudged(&pdu)).await;
    match received {
        Err(super::ReceiveError::MissingPrevEvents(ids)) => {
            assert_eq!(ids, std::slice::from_ref(&missing.event_id));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.head().await, before);
}

#[tokio::test]
async fn who_is_banned_meanwhile_fails_softly_and_is_not_shown() {
    let mut world = World::new(RoomVersionId::V11).await;
    let before = world.newest();
    let ban = state(&user("alice"), "m.room.member", dave().as_str(), json!({"membership": "ban"}));
    super::send::send(&world.rooms, &world.graph.room, &ban, None).await.unwrap();
    let head = world.head().await;
    let late = world.graph.make(&say(dave(), "I was here"), &[before]);
    assert_eq!(world.receive(&late).await, Received::SoftFailed);
    let header = world.header(&late.event_id).await;
    assert!(header.place.is_none() && header.before.is_some() && !header.rejected);
    assert_eq!(world.head().await.extremities, head.extremities);
    assert_eq!(world.head().await.last, head.last);
}

#[tokio::test]
async fn a_redaction_that_comes_before_its_target_is_applied_when_that_comes() {
    let mut world = World::new(RoomVersionId::V11).await;
    let root = world.newest();
    let target = world.graph.make(&say(dave(), "oops"), std::slice::from_ref(&root));
    let redaction = |sender: &UserId| {
        let content = object(json!({"redacts": target.event_id}));
        let mut draft = Draft::message(sender, TimelineEventType::RoomRedaction, content);
        draft.redacts = Some(target.event_id.clone());
        draft
    };
    let by_bob = world.graph.make(&redaction(bob()), &[root]);
    assert_eq!(world.receive(&by_bob).await, Received::Accepted);
    assert_eq!(world.receive(&target).await, Received::Accepted);
    let redacted_by = world.header(&target.event_id).await.redacted_by;
    assert!(redacted_by.is_some());
}

#[tokio::test]
async fn a_second_create_event_is_rejected() {
    let mut world = World::new(RoomVersionId::V11).await;
    let alice = user("alice");
    let content = json!({"room_version": "11", "again": true});
    let pdu = world.graph.make(&state(&alice, "m.room.create", "", content), &[]);
    assert_eq!(world.receive(&pdu).await, Received::Rejected);
}

#[tokio::test]
async fn an_event_that_comes_after_those_that_relate_to_it_finds_them() {
    let mut world = World::new(RoomVersionId::V11).await;
    let fork = [world.newest()];
    let root = world.graph.make(&say(bob(), "a thread?"), &fork);
    let relates_to = json!({"rel_type": "m.thread", "event_id": root.event_id});
    let content = object(json!({"msgtype": "m.text", "body": "yes", "m.relates_to": relates_to}));
    let reply = Draft::message(carol(), TimelineEventType::RoomMessage, content);
    let reply = world.graph.make(&reply, &fork);
    assert_eq!(world.receive(&reply).await, Received::Accepted);
    assert_eq!(world.receive(&root).await, Received::Accepted);
    let header = world.header(&root.event_id).await;
    assert!(header.related && header.aggregated);
    let snapshot = world.rooms.env.store.snapshot();
    let thread = snapshot.get(&THREADS, &world.graph.room, &root.event_id).await.unwrap();
    assert_eq!(thread.unwrap().count, 1);
}

#[tokio::test]
async fn whoever_follows_a_soft_failed_event_takes_the_place_of_what_that_followed() {
    let mut world = World::new(RoomVersionId::V11).await;
    let alice = user("alice");
    let fork = world.newest();
    let kept = world.graph.make(&say(bob(), "an end"), std::slice::from_ref(&fork));
    assert_eq!(world.receive(&kept).await, Received::Accepted);
    let ban = state(&alice, "m.room.member", dave().as_str(), json!({"membership": "ban"}));
    let ban = world.graph.make(&ban, std::slice::from_ref(&fork));
    assert_eq!(world.receive(&ban).await, Received::Accepted);
    let failed = world.graph.make(&say(dave(), "too late"), std::slice::from_ref(&kept.event_id));
    assert_eq!(world.receive(&failed).await, Received::SoftFailed);
    assert_eq!(world.head().await.extremities.len(), 2);
    let later = world.graph.make(&say(carol(), "hm"), std::slice::from_ref(&failed.event_id));
    assert_eq!(world.receive(&later).await, Received::Accepted);
    let ends = world.head().await.extremities;
    let ends: Vec<_> = ends.into_iter().map(|end| end.event.event_id).collect();
    assert_eq!(ends, [ban.event_id.clone(), later.event_id.clone()]);
    world.check().await;
}

#[tokio::test]
async fn an_event_whose_predecessors_cannot_be_had_is_put_after_a_gap_and_they_are_no_ends_later() {
    let mut world = World::new(RoomVersionId::V11).await;
    let lost = world.graph.make(&say(bob(), "lost"), &[world.newest()]);
    let found = world.graph.make(&say(bob(), "found"), std::slice::from_ref(&lost.event_id));
    let ids: Vec<_> = world.graph.before[&found.event_id].values().cloned().collect();
    let room = world.graph.room.clone();
    let received = receive_after_gap(&world.rooms, &room, unjudged(&found), &ids).await;
    assert_eq!(received.unwrap(), Received::Accepted);
    let head = world.head().await;
    let snapshot = world.rooms.env.store.snapshot();
    let gap = gap::before(&snapshot, &room, (head.last, 0)).await.unwrap().unwrap();
    assert_eq!((gap.n, &gap.missing[..]), (head.last, std::slice::from_ref(&lost.event_id)));
    assert_eq!(head.extremities.len(), 2, "that it follows the other end is not known");
    assert_eq!(world.receive(&lost).await, Received::Accepted);
    let head = world.head().await;
    let ends: Vec<_> = head.extremities.iter().map(|end| &end.event.event_id).collect();
    assert_eq!(ends, [&found.event_id], "and now it is");
    let snapshot = world.rooms.env.store.snapshot();
    assert_eq!(gap::before(&snapshot, &room, (head.last, 0)).await.unwrap(), None);
    world.check().await;
}

#[tokio::test]
async fn an_outlier_that_comes_as_a_live_event_keeps_its_number() {
    let mut world = World::new(RoomVersionId::V11).await;
    let (room, version) = (world.graph.room.clone(), RoomVersionId::V11);
    let content = json!({"topic": "from afar"});
    let topic = world.graph.make(&state(bob(), "m.room.topic", "", content), &[world.newest()]);
    let refused = state(dave(), "m.room.topic", "", json!({"topic": "not mine to set"}));
    let refused = world.graph.make(&refused, &[world.newest()]);
    let pdus = vec![unjudged(&refused), unjudged(&topic)];
    store_outliers(&world.rooms, &room, &version, pdus).await.unwrap();
    let number = async |id: &EventId| {
        let snapshot = world.rooms.env.store.snapshot();
        crate::rooms::events::find(&snapshot, &room, id).await.unwrap().unwrap()
    };
    let (first, header) = number(&topic.event_id).await;
    assert!(header.outlier && !header.rejected && header.before.is_none());
    assert!(number(&refused.event_id).await.1.rejected);
    let snapshot = world.rooms.env.store.snapshot();
    let both = [topic.event_id.clone(), refused.event_id.clone()];
    assert!(unknown(&snapshot, &room, &both).await.unwrap().is_empty());
    assert_eq!(without_state(&snapshot, &room, &both).await.unwrap(), both);
    assert_eq!(world.receive(&topic).await, Received::Accepted);
    let (then, header) = number(&topic.event_id).await;
    assert_eq!(then, first);
    assert!(!header.outlier && header.place.is_some());
    assert_eq!(world.receive(&refused).await, Received::Rejected);
    world.check().await;
}
