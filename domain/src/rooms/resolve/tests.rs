mod random;
mod world;

use serde_json::json;

use self::world::{CREATOR, Fork, World, act};
use super::*;

const V2_AND_LATER: [&str; 4] = ["2", "6", "10", "12"];

/// Levels that give one user a power.
fn levels(world: &World, fork: &Fork, user: &str, power: i64) -> serde_json::Value {
    // A resolution may leave a room without any.
    let none = || json!({"users": {}});
    let mut levels = world.content(fork, "m.room.power_levels", "").unwrap_or_else(none);
    levels["users"][user] = json!(power);
    levels
}

async fn grant(world: &mut World, fork: &mut Fork, user: &str, power: i64) {
    let content = levels(world, fork, user, power);
    assert!(world.send(fork, act("m.room.power_levels", "", CREATOR, content)).await);
}

async fn difference_of(world: &World, forks: &[Fork]) -> Vec<OwnedEventId> {
    let snapshot = &world.rooms.env.store.snapshot();
    let source = Source { rooms: &world.rooms, read: snapshot, room: &world.room };
    let roots: Vec<StateRoot> = forks.iter().map(|fork| fork.root).collect();
    let conflict = Conflict::of(&source, &roots).await.unwrap();
    let found = difference::auth_difference(&source, &conflict, &[], SEARCH_ROWS).await.unwrap();
    let id = |number: u64| world.numbers.iter().find(|(_, n)| **n == number).unwrap().0.clone();
    found.into_iter().map(id).collect()
}

#[tokio::test]
async fn an_old_power_event_that_a_shared_member_event_names_is_in_no_difference() {
    for version in V2_AND_LATER {
        for is_named in [false, true] {
            let (mut world, mut base) = World::new(version).await;
            grant(&mut world, &mut base, "@a:one", 50).await;
            let old = base.id("m.room.power_levels", "").unwrap().clone();
            if is_named {
                // The join names the levels; the profile change, which is what is held, the join.
                assert!(world.member(&mut base, "@b:one", "@b:one", "join").await);
            }
            let (mut left, right) = (base.clone(), base);
            grant(&mut world, &mut left, "@a:one", 60).await;
            let forks = [left, right];
            let found = difference_of(&world, &forks).await;
            assert_eq!(found.contains(&old), !is_named, "v{version}");
            world.merge(&forks).await;
        }
    }
}

#[tokio::test]
async fn a_power_event_that_shared_events_name_through_others_is_in_no_difference() {
    for version in V2_AND_LATER {
        let (mut world, mut base) = World::new(version).await;
        grant(&mut world, &mut base, "@a:one", 50).await;
        let old = base.id("m.room.power_levels", "").unwrap().clone();
        assert!(world.member(&mut base, "@b:one", "@b:one", "join").await);
        // A fork changes the levels; in the other, and before, somebody else joins, then changes
        // their profile under the old levels: the join is held no more.
        for name in ["one", "two"] {
            let content = json!({"membership": "join", "displayname": name});
            assert!(world.send(&mut base, act("m.room.member", "@b:one", "@b:one", content)).await);
        }
        let (mut left, mut right) = (base.clone(), base);
        grant(&mut world, &mut left, "@c:one", 1).await;
        assert!(world.member(&mut right, "@c:one", "@c:one", "join").await);
        let forks = [left, right];
        assert!(!difference_of(&world, &forks).await.contains(&old), "v{version}");
        world.merge(&forks).await;
    }
}

#[tokio::test]
async fn a_war_over_power_levels_ends_as_on_whole_states() {
    for version in ["1", "2", "6", "11", "12"] {
        let (mut world, mut base) = World::new(version).await;
        for user in ["@a:one", "@b:one", "@c:one"] {
            assert!(world.member(&mut base, user, user, "join").await);
            grant(&mut world, &mut base, user, 100).await;
        }
        let mut forks = vec![base.clone(), base.clone(), base];
        let sides = [("@a:one", "@b:one"), ("@b:one", "@c:one"), ("@c:one", "@a:one")];
        for round in 0..4 {
            for (fork, (sender, target)) in forks.iter_mut().zip(sides) {
                let mut content = levels(&world, fork, "@d:one", round);
                content["ban"] = json!(50 + round);
                let war = act("m.room.power_levels", "", sender, content);
                assert!(world.send(fork, war).await);
                world
                    .member(fork, sender, target, if round % 2 == 0 { "ban" } else { "leave" })
                    .await;
            }
        }
        let merged = world.merge(&forks).await;
        // Forks within forks: what was merged goes on beside one that was not.
        let mut again = merged.clone();
        grant(&mut world, &mut again, "@e:one", 5).await;
        forks.push(again);
        forks.push(merged);
        world.merge(&forks).await;
    }
}

#[tokio::test]
async fn bans_that_cross_end_as_on_whole_states() {
    for version in ["1", "2", "7", "10", "12"] {
        let (mut world, mut base) = World::new(version).await;
        for user in ["@a:one", "@b:one"] {
            assert!(world.member(&mut base, user, user, "join").await);
            // Equals cannot ban each other, but whoever is above can whom it has just put below.
            grant(&mut world, &mut base, user, 50).await;
        }
        let (mut left, mut right) = (base.clone(), base);
        grant(&mut world, &mut left, "@a:one", 60).await;
        grant(&mut world, &mut right, "@b:one", 60).await;
        assert!(world.member(&mut left, "@a:one", "@b:one", "ban").await);
        assert!(world.member(&mut right, "@b:one", "@a:one", "ban").await);
        let topic = json!({"topic": "mine"});
        assert!(world.send(&mut left, act("m.room.topic", "", "@a:one", topic.clone())).await);
        assert!(world.send(&mut right, act("m.room.topic", "", "@b:one", topic)).await);
        world.merge(&[left.clone(), right.clone()]).await;
        assert!(world.member(&mut left, CREATOR, "@b:one", "leave").await);
        assert!(world.member(&mut left, "@b:one", "@b:one", "join").await);
        world.merge(&[left, right]).await;
    }
}

#[tokio::test]
async fn forks_that_are_one_state_need_nothing_read_and_nothing_changed() {
    let (mut world, base) = World::new("10").await;
    let mut other = base.clone();
    assert!(world.member(&mut other, "@a:one", "@a:one", "join").await);
    let snapshot = world.rooms.env.store.snapshot();
    let resolve = |roots: Vec<StateRoot>| {
        let (world, snapshot) = (&world, &snapshot);
        async move {
            let found = resolve(&world.rooms, snapshot, &world.room, &world.version, &roots).await;
            Resolved::clone(&*found.unwrap())
        }
    };
    let unchanged = |base| Resolved { base, changes: Vec::new() };
    assert_eq!(resolve(vec![]).await, unchanged(StateRoot::EMPTY));
    assert_eq!(resolve(vec![base.root, base.root]).await, unchanged(base.root));
    assert_eq!(resolve(vec![base.root, other.root]).await, unchanged(other.root));
    assert_eq!(resolve(vec![other.root, base.root]).await, unchanged(other.root));
}

#[tokio::test]
async fn the_mainline_is_read_no_further_than_to_where_all_meet() {
    let (mut world, mut base) = World::new("10").await;
    for power in 0..50 {
        grant(&mut world, &mut base, "@a:one", power).await;
    }
    assert!(world.member(&mut base, "@a:one", "@a:one", "join").await);
    let (mut left, mut right) = (base.clone(), base);
    for (fork, topic) in [(&mut left, "left"), (&mut right, "right")] {
        assert!(world.send(fork, act("m.room.topic", "", CREATOR, json!({"topic": topic}))).await);
    }
    let forks = [left, right];
    world.merge(&forks).await;
    let snapshot = &world.rooms.env.store.snapshot();
    let source = Source { rooms: &world.rooms, read: snapshot, room: &world.room };
    let topics = forks.map(|fork| world.numbers[fork.id("m.room.topic", "").unwrap()]);
    let steps = mainlines(&source, &topics, &FxHashSet::default()).await.unwrap();
    assert_eq!(steps.len(), 1);
}
