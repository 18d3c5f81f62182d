use std::time::Duration;

use ruma::{
    api::federation::{
        discovery::get_server_version::v1 as get_version, event::get_event::v1 as get_event,
        query::get_profile_information::v1 as get_profile,
    },
    owned_event_id, owned_user_id, server_name,
};
use serde_json::{Value, json};

use super::*;
use crate::{Settings, testing::World};

async fn profile(peers: &Peers) -> Result<get_profile::Response, PeerError> {
    let request = get_profile::Request::new(owned_user_id!("@a:one"));
    peers.ask(server_name!("one"), request).await
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_and_its_server_is_up() {
    let world = World::new(Settings::default()).await;
    let peers = &world.federation.peers;
    for garbage in [json!([1, 2]), json!("text"), json!(null)] {
        world.peers.answer("one", move |_| garbage.clone());
        assert!(matches!(profile(peers).await, Err(PeerError::Unreadable { .. })));
        assert!(world.federation.destinations.is_due(server_name!("one")));
    }
    world.peers.answer("one", |_| json!({ "origin": "one", "pdus": "none" }));
    let request = get_event::Request::new(owned_event_id!("$e"));
    let answer = peers.ask(server_name!("one"), request).await;
    assert!(matches!(answer, Err(PeerError::Unreadable { .. })));
}

#[tokio::test]
async fn a_server_that_is_down_is_not_asked_unless_somebody_insists() {
    let world = World::new(Settings::default()).await;
    let peers = &world.federation.peers;
    assert!(matches!(profile(peers).await, Err(PeerError::Transport { .. })));
    assert!(matches!(profile(peers).await, Err(PeerError::Down { .. })));
    assert_eq!(world.peers.asked("one"), 1);
    world.peers.answer("one", |_| json!({ "displayname": "A" }));
    profile(&peers.insisting()).await.unwrap();
    profile(peers).await.unwrap();
    assert_eq!(world.peers.asked("one"), 3);
}

#[tokio::test]
async fn a_proxy_without_a_server_behind_it_is_a_server_that_is_down() {
    let world = World::new(Settings::default()).await;
    let peers = &world.federation.peers;
    world.peers.answer_with("one", |_| {
        let mut answer = http::Response::new(Bytes::from_static(b"<html>Bad gateway</html>"));
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    });
    assert!(matches!(profile(peers).await, Err(PeerError::Refused { .. })));
    assert!(matches!(profile(peers).await, Err(PeerError::Down { .. })));
    world.clock.advance(Duration::from_secs(6));
    world.peers.answer_with("one", |_| {
        let error: Value = json!({ "errcode": "M_NOT_FOUND", "error": "No such user" });
        let mut answer = http::Response::new(error.to_string().into());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer
    });
    for _ in 0..2 {
        let refused = profile(peers).await;
        assert!(matches!(refused, Err(PeerError::Refused { status, .. }) if status == 404));
    }
}

#[tokio::test]
async fn nobody_asks_itself_and_a_closed_server_asks_nobody() {
    let world = World::new(Settings::default()).await;
    let version = get_version::Request::new;
    let limits = ExchangeLimits::default();
    let peers = &world.federation.peers;
    let answer = peers.ask_unsigned(server_name!("us"), version(), limits).await;
    assert!(matches!(answer, Err(PeerError::Ourselves)));
    let closed = World::new(Settings { closed: true, ..Settings::default() }).await;
    closed.peers.answer("one", |_| json!({}));
    let answer = closed.federation.peers.ask_unsigned(server_name!("one"), version(), limits).await;
    assert!(matches!(answer, Err(PeerError::Closed)));
    assert_eq!(closed.peers.asked("one"), 0);
}
