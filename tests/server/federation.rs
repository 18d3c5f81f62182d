//! Servers that talk to each other, in one process.

mod hostile;
mod inbound;
mod membership;
mod outbound;
mod partial;
mod policy;

use std::time::Duration;

use millrace_federation::{PeerError, signing, transport::ExchangeLimits};
use millrace_test_support::{Client, Network, TestServer};
use ruma::{
    ServerName, UserId,
    api::federation::{
        discovery::get_server_version::v1 as get_server_version,
        query::get_profile_information::v1 as get_profile,
    },
    owned_user_id, server_name,
};
use serde_json::json;

fn profile_of(user: &UserId) -> get_profile::Request {
    get_profile::Request::new(user.to_owned())
}

#[tokio::test]
async fn a_signed_question_is_answered() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let alice = one.register("alice").await;
    let path = "/_matrix/client/v3/profile/@alice:one/displayname";
    alice.put(path, json!({ "displayname": "Alice" })).await.ok();
    let asked =
        two.federation.peers.ask(server_name!("one"), profile_of(&owned_user_id!("@alice:one")));
    assert_eq!(asked.await.unwrap().get("displayname"), Some(&json!("Alice")));
    let request = get_server_version::Request::new();
    let version =
        two.federation.peers.ask_unsigned(server_name!("one"), request, ExchangeLimits::default());
    assert_eq!(version.await.unwrap().server.unwrap().name.as_deref(), Some("Millrace"));
}

#[tokio::test]
async fn what_is_not_signed_for_us_by_its_origin_is_refused() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let ask = async |sign: &dyn Fn(&mut http::Request<Vec<u8>>)| {
        let mut request = http::Request::new(Vec::new());
        *request.uri_mut() =
            "/_matrix/federation/v1/query/profile?user_id=%40alice%3Aone".parse().unwrap();
        sign(&mut request);
        one.client().request(request.map(Into::into)).await
    };
    let sign_for = |destination: &'static ServerName| {
        let identity = two.env.identity.clone();
        move |request: &mut http::Request<Vec<u8>>| {
            signing::sign(request, &identity, destination).unwrap();
        }
    };
    ask(&|_| ()).await.refused(401, "M_UNAUTHORIZED");
    ask(&sign_for(server_name!("three"))).await.refused(401, "M_UNAUTHORIZED");
    let signed = sign_for(server_name!("one"));
    let another_path = |request: &mut http::Request<Vec<u8>>| {
        signed(request);
        let uri = "/_matrix/federation/v1/query/profile?user_id=%40bob%3Aone";
        *request.uri_mut() = uri.parse().unwrap();
    };
    ask(&another_path).await.refused(401, "M_UNAUTHORIZED");
    // Properly signed, and so answered: there is no such user.
    ask(&signed).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_link_that_is_cut_is_an_error_until_it_is_mended() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let _two = TestServer::start_in(&network, "two").await;
    let ask = async || {
        let request = get_server_version::Request::new();
        one.federation
            .peers
            .ask_unsigned(server_name!("two"), request, ExchangeLimits::default())
            .await
    };
    network.cut("one", "two");
    assert!(matches!(ask().await, Err(PeerError::Transport { .. })));
    network.mend("one", "two");
    assert!(matches!(ask().await, Err(PeerError::Down { .. })), "not tried again at once");
    network.clock.advance(Duration::from_secs(6));
    assert!(ask().await.is_ok());
}

/// Two servers of one network; the first shows its directory to others.
async fn pair() -> (Network, TestServer, TestServer) {
    let network = Network::default();
    let mut config = TestServer::config();
    config.rooms.allow_public_rooms_over_federation = true;
    let one = TestServer::start_in_with(&network, "one", config).await;
    let two = TestServer::start_in(&network, "two").await;
    (network, one, two)
}

#[tokio::test]
async fn names_of_rooms_and_users_are_found_across_servers() {
    let (network, one, two) = pair().await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let new = json!({ "room_alias_name": "lobby", "visibility": "public", "name": "The lobby" });
    let room = alice.post("/_matrix/client/v3/createRoom", new).await.ok()["room_id"].clone();

    let alias = "/_matrix/client/v3/directory/room/%23lobby:one";
    assert_eq!(bob.get(alias).await.ok(), json!({ "room_id": room, "servers": ["one"] }));
    let none = "/_matrix/client/v3/directory/room/%23none:one";
    bob.get(none).await.refused(404, "M_NOT_FOUND");

    let listed = bob.get("/_matrix/client/v3/publicRooms?server=one").await.ok();
    assert_eq!(listed["chunk"][0]["name"], "The lobby");
    assert_eq!(listed["chunk"][0]["join_rule"], "public");
    let term = json!({ "filter": { "generic_search_term": "nothing" } });
    let found = bob.post("/_matrix/client/v3/publicRooms?server=one", term).await.ok();
    assert_eq!((&found["chunk"], &found["total_room_count_estimate"]), (&json!([]), &json!(0)));
    // Rooms of bridges are among all rooms, if there are any, and there are none.
    let networks = [
        ("{}", 1),
        (r#"{"include_all_networks": true}"#, 1),
        (r#"{"third_party_instance_id": "irc"}"#, 0),
    ];
    for (wanted, count) in networks {
        let wanted: serde_json::Value = serde_json::from_str(wanted).unwrap();
        for (client, path) in [(&bob, "?server=one"), (&alice, "")] {
            let path = format!("/_matrix/client/v3/publicRooms{path}");
            let found = client.post(&path, wanted.clone()).await.ok();
            assert_eq!(found["chunk"].as_array().unwrap().len(), count, "{wanted} {path}");
        }
    }
    let both = json!({ "include_all_networks": true, "third_party_instance_id": "irc" });
    let refused = bob.post("/_matrix/client/v3/publicRooms", both).await;
    refused.refused(400, "M_BAD_JSON");
    // The other server shows its directory to nobody.
    let refused = alice.get("/_matrix/client/v3/publicRooms?server=two").await;
    refused.refused(403, "M_FORBIDDEN");

    let field = "/_matrix/client/v3/profile/@alice:one/displayname";
    alice.put(field, json!({ "displayname": "Alice" })).await.ok();
    assert_eq!(bob.get(field).await.ok(), json!({ "displayname": "Alice" }));
    let whole = bob.get("/_matrix/client/v3/profile/@alice:one").await.ok();
    assert_eq!(whole["displayname"], "Alice");
    let unknown = bob.get("/_matrix/client/v3/profile/@nobody:one").await;
    unknown.refused(404, "M_NOT_FOUND");

    network.leave("one");
    bob.get(alias).await.refused(502, "M_UNKNOWN");
}

#[tokio::test]
async fn an_openid_token_tells_third_parties_who_a_user_is() {
    let (_, one, two) = pair().await;
    let alice = one.register("alice").await;
    let path = "/_matrix/client/v3/user/@alice:one/openid/request_token";
    let token = alice.post(path, json!({})).await.ok();
    assert_eq!(
        (&token["matrix_server_name"], &token["token_type"]),
        (&json!("one"), &json!("Bearer"))
    );
    let userinfo = async |server: &TestServer, token: &str| {
        let path = format!("/_matrix/federation/v1/openid/userinfo?access_token={token}");
        server.client().get(&path).await
    };
    let token = token["access_token"].as_str().unwrap();
    assert_eq!(userinfo(&one, token).await.ok(), json!({ "sub": "@alice:one" }));
    userinfo(&two, token).await.refused(401, "M_UNKNOWN_TOKEN");
    userinfo(&one, "made_up").await.refused(401, "M_UNKNOWN_TOKEN");
    one.clock.advance(Duration::from_secs(3601));
    userinfo(&one, token).await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_space_goes_on_at_another_server() {
    let (network, one, two) = pair().await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let create = async |client: &Client, body| {
        let room = client.post("/_matrix/client/v3/createRoom", body).await.ok()["room_id"].clone();
        room.as_str().unwrap().to_owned()
    };
    let link = async |client: &Client, space: &str, child: &str, via: &str| {
        let path = format!("/_matrix/client/v3/rooms/{space}/state/m.space.child/{child}");
        client.put(&path, json!({ "via": [via] })).await.ok();
    };
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let (far_space, near_space) = (create(&alice, space.clone()).await, create(&bob, space).await);
    let far_room = create(&alice, json!({ "preset": "public_chat", "name": "Far" })).await;
    let secret = create(&alice, json!({ "preset": "private_chat" })).await;
    link(&alice, &far_space, &far_room, "one").await;
    link(&alice, &far_space, &secret, "one").await;
    link(&bob, &near_space, &far_space, "one").await;

    let walk = async || {
        let path = format!("/_matrix/client/v1/rooms/{near_space}/hierarchy");
        let rooms = bob.get(&path).await.ok()["rooms"].as_array().unwrap().clone();
        rooms.iter().map(|room| room["room_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(walk().await, [near_space.clone(), far_space.clone(), far_room.clone()]);
    let summary = format!("/_matrix/client/v1/room_summary/{far_room}?via=one");
    assert_eq!(bob.get(&summary).await.ok()["name"], "Far");
    let summary = format!("/_matrix/client/v1/room_summary/{secret}?via=one");
    bob.get(&summary).await.refused(404, "M_NOT_FOUND");
    // What was told is remembered for a while.
    network.leave("one");
    assert_eq!(walk().await.len(), 3);
    network.clock.advance(Duration::from_secs(301));
    assert_eq!(walk().await, [near_space]);
}

#[tokio::test]
async fn a_server_without_federation_neither_answers_nor_asks() {
    let network = Network::default();
    let mut config = TestServer::config();
    config.federation.allow_federation = false;
    let one = TestServer::start_in_with(&network, "one", config).await;
    let two = TestServer::start_in(&network, "two").await;
    let question = || profile_of(&owned_user_id!("@alice:one"));
    let asked = two.federation.peers.ask(server_name!("one"), question()).await;
    assert!(matches!(asked, Err(PeerError::Refused { status, .. }) if status == 403));
    let asks = one.federation.peers.ask(server_name!("two"), question()).await;
    assert!(matches!(asks, Err(PeerError::Closed)));
}

#[tokio::test]
async fn a_server_that_asks_too_often_is_told_to_wait() {
    let network = Network::default();
    let mut config = TestServer::config();
    config.rate_limits.enabled = true;
    config.rate_limits.federation.burst = 3;
    let _one = TestServer::start_in_with(&network, "one", config).await;
    let two = TestServer::start_in(&network, "two").await;
    let three = TestServer::start_in(&network, "three").await;
    let ask = async |server: &TestServer| {
        let question = profile_of(&owned_user_id!("@nobody:one"));
        match server.federation.peers.ask(server_name!("one"), question).await {
            Err(PeerError::Refused { status, .. }) => status.as_u16(),
            other => panic!("{other:?}"),
        }
    };
    for status in [404, 404, 404, 429] {
        assert_eq!(ask(&two).await, status);
    }
    assert_eq!(ask(&three).await, 404, "another server is not its debtor");
    network.clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&two).await, 404);
}
