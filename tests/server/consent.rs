//! Agreeing to the documents of the server: who has not does nothing that others see.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::sync::Arc;

use millrace::config::{Config, registration::Policy};
use millrace_store::engine::MemoryEngine;
use millrace_test_support::{Answer, Client, TestClock, TestServer};
use serde_json::json;

const V3: &str = "/_matrix/client/v3";

fn config(version: &str) -> Config {
    let mut config = TestServer::config();
    config.well_known.client = Some("https://client.test".to_owned());
    config.registration.require_consent = true;
    config.registration.terms = vec![Policy {
        id: "privacy".to_owned(),
        version: version.to_owned(),
        language: "en".to_owned(),
        name: "Privacy <policy>".to_owned(),
        url: "https://example.org/p".to_owned(),
    }];
    config
}

async fn create_room(client: &Client) -> Answer {
    client.post(&format!("{V3}/createRoom"), json!({ "preset": "public_chat" })).await
}

async fn say(client: &Client, room: &str, id: &str) -> Answer {
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{id}");
    client.put(&path, json!({ "msgtype": "m.text", "body": "x" })).await
}

/// The path of the page that a refusal leads to.
fn page(refusal: &Answer) -> String {
    refusal.refused(403, "M_CONSENT_NOT_GIVEN");
    let uri = refusal.body["consent_uri"].as_str().unwrap();
    assert!(refusal.body["error"].as_str().unwrap().contains(uri), "old clients show that");
    uri.strip_prefix("https://client.test").unwrap().to_owned()
}

async fn agree(client: &Client, page: &str) -> Answer {
    let (path, form) = page.split_once('?').unwrap();
    client.send(http::Method::POST, path, form.to_owned().into()).await
}

#[tokio::test]
async fn who_agreed_at_registration_is_asked_again_when_a_document_changes() {
    let (engine, clock) = (Arc::new(MemoryEngine::new()), TestClock::default());
    let server = TestServer::start_on(engine.clone(), &config("1"), clock.clone()).await;
    let register = json!({
        "username": "alice", "password": "password", "auth": { "type": "m.login.terms" },
    });
    let session = server.client().post(&format!("{V3}/register"), register).await.ok();
    let alice = server.client().with_session(&session);
    let room = create_room(&alice).await.ok()["room_id"].as_str().unwrap().to_owned();
    say(&alice, &room, "1").await.ok();
    server.stop().await;

    let server = TestServer::start_on(engine, &config("2"), clock).await;
    let alice = alice.on(&server);
    let link = page(&say(&alice, &room, "2").await);
    page(&create_room(&alice).await);
    // Reading and leaving is open.
    alice.get(&format!("{V3}/sync")).await.ok();
    alice.get(&format!("{V3}/rooms/{room}/messages?dir=b")).await.ok();

    let browser = server.client();
    let shown = browser.get(&link).await;
    assert_eq!(shown.status, 200);
    assert!(shown.text.contains("Privacy &lt;policy&gt;"), "{}", shown.text);
    assert!(shown.text.contains("version 2") && shown.text.contains("@alice:test"));
    page(&say(&alice, &room, "3").await);
    assert_eq!(agree(&browser, &link).await.status, 200);
    say(&alice, &room, "4").await.ok();
    assert!(browser.get(&link).await.text.contains("You have agreed"));
    alice.post(&format!("{V3}/rooms/{room}/leave"), json!({})).await.ok();
}

#[tokio::test]
async fn nobody_agrees_for_another() {
    let server = TestServer::start_with(&config("1")).await;
    // Tools register without stages.
    let mut users = Vec::new();
    for name in ["alice", "bob"] {
        let nonce = server.client().get("/_synapse/admin/v1/register").await.ok()["nonce"].clone();
        let nonce = nonce.as_str().unwrap();
        let mac = mac(&format!("{nonce}\0{name}\0password\0notadmin"));
        let body = json!({ "nonce": nonce, "username": name, "password": "password", "mac": mac });
        let session = server.client().post("/_synapse/admin/v1/register", body).await.ok();
        users.push(server.client().with_session(&session));
    }
    let links = [page(&create_room(&users[0]).await), page(&create_room(&users[1]).await)];
    let (_, word) = links[0].split_once("h=").unwrap();
    let forged = format!("/_matrix/consent?u=bob&h={word}");
    let wrong = "This is not the link that your client shows you";
    server.client().get(&forged).await.says(403, wrong);
    agree(&server.client(), &forged).await.says(403, wrong);
    agree(&server.client(), "/_matrix/consent?u=bob").await.says(403, wrong);
    page(&create_room(&users[1]).await);
    agree(&server.client(), &links[0]).await;
    create_room(&users[0]).await.ok();
    page(&create_room(&users[1]).await);
    agree(&server.client(), &links[1]).await;
    create_room(&users[1]).await.ok();
}

/// As Synapse's tools make it.
fn mac(text: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"shared secret");
    let tag = ring::hmac::sign(&key, text.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
