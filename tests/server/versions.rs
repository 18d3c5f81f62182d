//! The server in a process answers the first question of every client.

use millrace_test_support::TestServer;

#[tokio::test]
async fn a_server_in_a_process_tells_its_versions() {
    let server = TestServer::start().await;
    let answer = server.client().get("/_matrix/client/versions").await.ok();
    assert!(answer["versions"].as_array().is_some_and(|versions| !versions.is_empty()));
}
