//! Servers that talk to each other, in one process.

use millrace_federation::{PeerError, signing};
use millrace_test_support::{Network, TestServer};
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
    let version =
        two.federation.peers.ask_unsigned(server_name!("one"), get_server_version::Request::new());
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
        one.federation.peers.ask_unsigned(server_name!("two"), request).await
    };
    network.cut("one", "two");
    assert!(matches!(ask().await, Err(PeerError::Transport { .. })));
    network.mend("one", "two");
    assert!(ask().await.is_ok());
}
