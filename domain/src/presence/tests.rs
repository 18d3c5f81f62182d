use std::collections::HashSet;

use millrace_store::engine::MemoryEngine;
use ruma::user_id;

use super::*;
use crate::testing;

async fn world() -> (Arc<Presence>, Arc<EphemeralClock>, Arc<testing::TestClock>) {
    let (env, time) = testing::env_on(MemoryEngine::new()).await;
    let clock = Arc::new(EphemeralClock::new(&env));
    let presence = Presence::new(env, clock.clone(), PresenceSettings::default());
    (Arc::new(presence), clock, time)
}

fn state_of(presence: &Presence, user: &UserId) -> PresenceState {
    presence.of([user])[0].presence.clone()
}

#[tokio::test]
async fn a_user_who_polls_becomes_idle_but_not_offline() {
    let (presence, _, time) = world().await;
    let alice = user_id!("@alice:test.example");
    let syncing = presence.syncing(alice, PresenceState::Online).await.unwrap();
    assert_eq!(state_of(&presence, alice), PresenceState::Online);
    time.advance(300_000);
    assert_eq!(presence.step().await.unwrap(), None, "an idle user costs nothing");
    assert_eq!(state_of(&presence, alice), PresenceState::Unavailable);
    presence.active(alice).await.unwrap();
    assert_eq!(state_of(&presence, alice), PresenceState::Online);
    drop(syncing);
    assert_eq!(presence.step().await.unwrap(), Some(Duration::from_secs(30)));
    time.advance(30_000);
    presence.step().await.unwrap();
    assert_eq!(state_of(&presence, alice), PresenceState::Offline);
}

#[tokio::test]
async fn a_sync_that_says_offline_changes_nothing() {
    let (presence, clock, _) = world().await;
    let before = clock.token();
    let alice = user_id!("@alice:test.example");
    assert!(presence.syncing(alice, PresenceState::Offline).await.unwrap().is_none());
    assert_eq!(clock.token(), before);
}

#[tokio::test]
async fn what_somebody_said_is_not_changed_by_syncing() {
    let (presence, _, _) = world().await;
    let alice = user_id!("@alice:test.example");
    let status = Some("at lunch".to_owned());
    presence.set(alice, PresenceState::Unavailable, status.clone()).await.unwrap();
    let _syncing = presence.syncing(alice, PresenceState::Online).await.unwrap();
    assert_eq!(state_of(&presence, alice), PresenceState::Unavailable);
    assert_eq!(presence.of([alice])[0].status_msg, status);
}

#[tokio::test]
async fn a_sync_that_says_unavailable_is_heeded_and_one_that_says_nothing_ends_it() {
    let (presence, _, _) = world().await;
    let alice = user_id!("@alice:test.example");
    presence.set(alice, PresenceState::Online, None).await.unwrap();
    for state in [PresenceState::Unavailable, PresenceState::Online] {
        presence.syncing(alice, state.clone()).await.unwrap();
        assert_eq!(state_of(&presence, alice), state);
    }
}

#[tokio::test]
async fn only_who_shares_a_room_hears_of_a_change() {
    let (presence, clock, _) = world().await;
    let (alice, bob) = (user_id!("@alice:test.example"), user_id!("@bob:test.example"));
    let room = PartitionId(7);
    presence.set(alice, PresenceState::Online, None).await.unwrap();
    presence.state.lock().users.get_mut(alice).unwrap().rooms = Arc::new([room]);
    let all = clock.range(None, clock.token());
    assert!(presence.since(all, bob, &HashSet::from([PartitionId(8)])).is_empty());
    assert_eq!(presence.since(all, bob, &HashSet::from([room])).len(), 1);
    assert_eq!(presence.since(all, alice, &HashSet::new()).len(), 1, "oneself");
    let seen = clock.range(Some(clock.token()), clock.token());
    assert!(presence.since(seen, bob, &HashSet::from([room])).is_empty());
}

#[tokio::test]
async fn a_change_wakes_its_user() {
    let (presence, _, _) = world().await;
    let alice = user_id!("@alice:test.example");
    let watch = presence.env.store.watch(vec![PartitionId::of::<OwnedUserId>(&alice)]);
    presence.set(alice, PresenceState::Online, None).await.unwrap();
    watch.changed().await;
}
