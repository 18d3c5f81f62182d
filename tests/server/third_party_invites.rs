//! Invitations of whoever has an e-mail address, with an identity server of the test's own.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use millrace_model::rules::signing_key::ServerSigningKey;
use millrace_test_support::{Answer, Asked, Client, FakeAnswer, FakeServer, Network, TestServer};
use ruma::{CanonicalJsonObject, server_name};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

struct World {
    one: TestServer,
    two: TestServer,
    identity: FakeServer,
    alice: Client,
    bob: Client,
    key: ServerSigningKey,
}

/// Two servers with a user each, that trust one identity server.
async fn world() -> World {
    let network = Network::default();
    let identity = FakeServer::start(&network, "id.example");
    let mut config = TestServer::config();
    config.threepids.trusted_third_party_id_servers = vec!["id.example".try_into().unwrap()];
    let one = TestServer::start_in_with(&network, "one", config.clone()).await;
    let two = TestServer::start_in_with(&network, "two", config).await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let key = ServerSigningKey::new("ephemeral", &[7; 32]).unwrap();
    let public = key.public_base64();
    identity.answers(
        "/v2/hash_details",
        FakeAnswer::Json(json!({ "lookup_pepper": "matrixrocks", "algorithms": ["sha256"] })),
    );
    identity.answers("/v2/lookup", FakeAnswer::Json(json!({ "mappings": {} })));
    identity.on("/v2/store-invite", move |_: &Asked| {
        let url = "https://id.example/_matrix/identity/v2/pubkey/ephemeral/isvalid";
        let keys = json!([{ "public_key": public, "key_validity_url": url }]);
        let body = json!({ "token": "t0ken", "public_keys": keys, "display_name": "b...@e..." });
        Some(FakeAnswer::Json(body))
    });
    identity.answers("/pubkey/ephemeral/isvalid", FakeAnswer::Json(json!({ "valid": true })));
    World { one, two, identity, alice, bob, key }
}

impl World {
    /// What the identity server says when the address is somebody's.
    fn signed(&self, user: &str) -> Value {
        let statement = json!({ "mxid": user, "sender": "@alice:one", "token": "t0ken" });
        let mut object: CanonicalJsonObject = serde_json::from_value(statement).unwrap();
        self.key.sign_json(server_name!("id.example"), &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    async fn bound(&self, server: &TestServer, room: &str, signed: Value) -> Answer {
        let mxid = signed["mxid"].clone();
        let invite = json!({
            "medium": "email", "address": "bob@example.org", "mxid": mxid, "room_id": room,
            "sender": "@alice:one", "signed": signed,
        });
        let body = json!({
            "medium": "email", "address": "bob@example.org", "mxid": mxid, "invites": [invite],
        });
        server.client().put("/_matrix/federation/v1/3pid/onbind", body).await
    }
}

fn address() -> Value {
    json!({
        "medium": "email", "address": "Bob@example.org", "id_server": "id.example",
        "id_access_token": "alice's token",
    })
}

async fn room(client: &Client, more: Value) -> String {
    let mut body = json!({ "preset": "private_chat", "name": "The room" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let room = client.post(&format!("{V3}/createRoom"), body).await.ok();
    room["room_id"].as_str().unwrap().to_owned()
}

async fn invite(client: &Client, room: &str, body: Value) -> Answer {
    client.post(&format!("{V3}/rooms/{room}/invite"), body).await
}

async fn membership(client: &Client, room: &str, user: &str) -> String {
    let path = format!("{V3}/rooms/{room}/state/m.room.member/{user}");
    client.get(&path).await.body["membership"].as_str().unwrap_or_default().to_owned()
}

async fn invited(client: &Client, room: &str) -> bool {
    let synced = client.get(&format!("{V3}/sync")).await.ok();
    synced["rooms"]["invite"][room].is_object()
}

#[tokio::test]
async fn an_address_that_is_somebodys_is_a_user_that_is_invited() {
    let w = world().await;
    w.identity.on("/v2/lookup", |asked: &Asked| {
        let hash = asked.body["addresses"][0].as_str()?.to_owned();
        // The example of the Identity Service API, "Hashing".
        assert_eq!(hash, "4kenr7N9drpCJ4AfalmlGQVsOn3o2RHjkADUpXJWZUc");
        Some(FakeAnswer::Json(json!({ "mappings": { hash: "@bob:two" } })))
    });
    let room = room(&w.alice, json!({})).await;
    let mut other = address();
    other["address"] = "alice@example.com".into();
    invite(&w.alice, &room, other).await.ok();
    assert_eq!(membership(&w.alice, &room, "@bob:two").await, "invite");
    assert!(invited(&w.bob, &room).await);
    assert!(w.identity.asked("/v2/store-invite").is_empty());
}

#[tokio::test]
async fn an_address_of_nobody_is_invited_once_it_is_somebodys() {
    for version in ["1", "5", "12"] {
        let w = world().await;
        let room = room(&w.alice, json!({ "room_version": version })).await;
        invite(&w.alice, &room, address()).await.ok();
        let stored = &w.identity.asked("/v2/store-invite")[0].body;
        assert_eq!(
            (&stored["address"], &stored["room_name"]),
            (&json!("bob@example.org"), &json!("The room"),)
        );
        let path = format!("{V3}/rooms/{room}/state/m.room.third_party_invite/t0ken");
        assert_eq!(w.alice.get(&path).await.ok()["display_name"], "b...@e...");

        w.bound(&w.two, &room, w.signed("@bob:two")).await.ok();
        assert_eq!(membership(&w.alice, &room, "@bob:two").await, "invite", "version {version}");
        assert!(invited(&w.bob, &room).await, "version {version}");
        let join = format!("{V3}/join/{room}?via=one");
        w.bob.post(&join, json!({})).await.ok();
        assert_eq!(membership(&w.alice, &room, "@bob:two").await, "join", "version {version}");
    }
}

#[tokio::test]
async fn a_user_of_the_same_server_is_invited_too_and_by_what_they_bring_themselves() {
    let w = world().await;
    let carol = w.one.register("carol").await;
    let room = room(&w.alice, json!({ "invite_3pid": [address()] })).await;
    w.bound(&w.one, &room, w.signed("@carol:one")).await.ok();
    assert_eq!(membership(&w.alice, &room, "@carol:one").await, "invite");

    let dave = w.one.register("dave").await;
    let join = format!("{V3}/rooms/{room}/join");
    dave.post(&join, json!({})).await.refused(403, "M_FORBIDDEN");
    let stolen = json!({ "third_party_signed": w.signed("@carol:one") });
    dave.post(&join, stolen).await.refused(403, "M_FORBIDDEN");
    dave.post(&join, json!({ "third_party_signed": w.signed("@dave:one") })).await.ok();
    assert_eq!(membership(&w.alice, &room, "@dave:one").await, "join");
    drop(carol);
}

#[tokio::test]
async fn statements_that_are_not_signed_by_a_good_key_of_the_room_invite_nobody() {
    let w = world().await;
    let room = room(&w.alice, json!({})).await;
    let exchange = async |signed: Value| {
        let content = json!({
            "membership": "invite",
            "third_party_invite": { "display_name": "b", "signed": signed },
        });
        let body = json!({
            "type": "m.room.member", "room_id": room, "sender": "@alice:one",
            "state_key": signed["mxid"], "content": content,
        });
        let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{room}");
        w.identity.ask(&w.one, http::Method::PUT, &path, body).await
    };
    exchange(w.signed("@bob:two")).await.refused(403, "M_FORBIDDEN"); // Nothing waits.
    invite(&w.alice, &room, address()).await.ok();

    let mut forged = w.signed("@bob:two");
    forged["mxid"] = "@eve:two".into();
    exchange(forged).await.refused(403, "M_FORBIDDEN");
    let mut unsigned = w.signed("@bob:two");
    unsigned["signatures"] = json!({});
    exchange(unsigned).await.refused(403, "M_FORBIDDEN");
    let other =
        World { key: ServerSigningKey::new("ephemeral", &[8; 32]).unwrap(), ..world().await };
    exchange(other.signed("@bob:two")).await.refused(403, "M_FORBIDDEN");
    w.identity.answers("/pubkey/ephemeral/isvalid", FakeAnswer::Json(json!({ "valid": false })));
    exchange(w.signed("@bob:two")).await.refused(403, "M_FORBIDDEN");
    w.identity.answers("/pubkey/ephemeral/isvalid", FakeAnswer::Json(json!({ "valid": true })));
    assert_eq!(membership(&w.alice, &room, "@bob:two").await, "");
    exchange(w.signed("@bob:two")).await.ok();
    assert_eq!(membership(&w.alice, &room, "@bob:two").await, "invite");
}

#[tokio::test]
async fn who_may_not_invite_has_no_mail_sent() {
    let w = world().await;
    let room = room(&w.alice, json!({})).await;
    invite(&w.bob, &room, address()).await.refused(404, "M_NOT_FOUND");
    let carol = w.one.register("carol").await;
    invite(&carol, &room, address()).await.refused(403, "M_FORBIDDEN");
    let mut elsewhere = address();
    elsewhere["id_server"] = "evil.example".into();
    invite(&w.alice, &room, elsewhere.clone()).await.refused(400, "M_SERVER_NOT_TRUSTED");
    let body = json!({ "invite_3pid": [elsewhere] });
    let refused = w.alice.post(&format!("{V3}/createRoom"), body).await;
    refused.refused(400, "M_SERVER_NOT_TRUSTED");
    assert!(w.identity.asked("/_matrix/identity").is_empty());
}
