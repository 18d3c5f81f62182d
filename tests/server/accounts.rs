//! Accounts as clients meet them: registration, login, tokens, devices, deactivation.

use std::time::Duration;

use millrace_test_support::{Answer, Client, TestServer};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

async fn post(client: &Client, path: &str, body: Value) -> Answer {
    client.post(&format!("{V3}/{path}"), body).await
}

async fn get(client: &Client, path: &str) -> Answer {
    client.get(&format!("{V3}/{path}")).await
}

fn password_auth(user: &str, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password })
}

/// Logs in anew, with whatever `more` adds to the request.
async fn login(server: &TestServer, user: &str, password: &str, more: Value) -> Answer {
    let mut body = password_auth(user, password);
    for (field, value) in more.as_object().expect("fields") {
        body[field] = value.clone();
    }
    post(&server.client(), "login", body).await
}

async fn session(server: &TestServer, user: &str, more: Value) -> Client {
    let answer = login(server, user, "password", more).await.ok();
    server.client().with_session(&answer)
}

#[tokio::test]
async fn registration_asks_for_a_stage_and_then_creates_the_user() {
    let server = TestServer::start().await;
    let mut body = json!({ "username": "Alice-UPPER", "password": "übers3kr1t" });
    let asked = post(&server.client(), "register", body.clone()).await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    assert_eq!(asked.body["params"], json!({}));
    body["auth"] = json!({ "type": "m.login.dummy", "session": asked.body["session"] });
    body["device_id"] = "xyzzy".into();
    let created = post(&server.client(), "register", body.clone()).await.ok();
    assert_eq!(created["user_id"], "@alice-upper:test");
    assert_eq!(created["device_id"], "xyzzy");
    let alice = server.client().with_session(&created);
    let me = get(&alice, "account/whoami").await.ok();
    assert_eq!(me, json!({ "user_id": "@alice-upper:test", "device_id": "xyzzy" }));
    post(&server.client(), "register", body).await.refused(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn names_outside_of_the_grammar_are_refused_before_anything_else() {
    let server = TestServer::start().await;
    for bad in ["user-!", "user-é", "us,er", "user-\n", "", "[", "a:b"] {
        let body = json!({ "username": bad, "password": "p" });
        post(&server.client(), "register", body).await.refused(400, "M_INVALID_USERNAME");
    }
    let path = "register/available?username=us%2Cer";
    get(&server.client(), path).await.refused(400, "M_INVALID_USERNAME");
    server.register("taken").await;
    let path = "register/available?username=taken";
    get(&server.client(), path).await.refused(400, "M_USER_IN_USE");
    let free = get(&server.client(), "register/available?username=free").await.ok();
    assert_eq!(free, json!({ "available": true }));
}

#[tokio::test]
async fn registration_without_login_gives_no_token() {
    let server = TestServer::start().await;
    let body = json!({
        "password": "p", "inhibit_login": true, "auth": { "type": "m.login.dummy" },
    });
    let created = post(&server.client(), "register", body).await.ok();
    assert!(created["user_id"].as_str().unwrap().ends_with(":test"));
    assert!(created.get("access_token").is_none() && created.get("device_id").is_none());
}

#[tokio::test]
async fn a_closed_server_registers_nobody() {
    let mut config = TestServer::config();
    config.registration.allow_registration = false;
    let server = TestServer::start_with(&config).await;
    let body = json!({ "username": "a", "password": "p", "auth": { "type": "m.login.dummy" } });
    post(&server.client(), "register", body).await.refused(403, "M_FORBIDDEN");
    post(&server.client(), "register?kind=guest", json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[tokio::test]
async fn a_token_and_terms_are_two_stages_of_one_dialogue() {
    let mut config = TestServer::config();
    config.registration.registration_token = Some("open sesame".to_owned());
    config.registration.terms = vec![millrace::config::registration::Policy {
        id: "privacy".to_owned(),
        version: "1.2".to_owned(),
        language: "en".to_owned(),
        name: "Privacy".to_owned(),
        url: "https://example.org/p".to_owned(),
    }];
    let server = TestServer::start_with(&config).await;
    let client = server.client();
    let register = |auth: Value| {
        let body = json!({ "username": "a", "password": "p", "auth": auth });
        let client = client.clone();
        async move { post(&client, "register", body).await }
    };
    let wrong = json!({ "type": "m.login.registration_token", "token": "open barley" });
    let refused = register(wrong).await;
    refused.refused(401, "M_FORBIDDEN");
    let policy = &refused.body["params"]["m.login.terms"]["policies"]["privacy"];
    let english = json!({ "name": "Privacy", "url": "https://example.org/p" });
    assert_eq!(policy, &json!({ "version": "1.2", "en": english }));

    let token = json!({
        "type": "m.login.registration_token", "token": "open sesame",
        "session": refused.body["session"],
    });
    let halfway = register(token).await;
    assert_eq!(halfway.status, 401);
    assert_eq!(halfway.body["completed"], json!(["m.login.registration_token"]));
    assert_eq!(halfway.body.get("errcode"), None);
    register(json!({ "type": "m.login.dummy", "session": halfway.body["session"] }))
        .await
        .refused(401, "M_UNRECOGNIZED");
    register(json!({ "type": "m.login.terms", "session": halfway.body["session"] })).await.ok();

    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=";
    let valid = client.get(&format!("{validity}open%20sesame")).await.ok();
    assert_eq!(valid, json!({ "valid": true }));
    assert_eq!(client.get(&format!("{validity}x")).await.ok(), json!({ "valid": false }));
}

#[tokio::test]
async fn guests_do_what_the_specification_lists_and_can_be_upgraded() {
    let mut config = TestServer::config();
    config.registration.allow_guest_registration = true;
    let server = TestServer::start_with(&config).await;
    let body = json!({ "device_id": "IGNORED", "username": "ignored" });
    let created = post(&server.client(), "register?kind=guest", body).await.ok();
    assert_ne!(created["device_id"], "IGNORED");
    let guest = server.client().with_session(&created);
    assert_eq!(get(&guest, "account/whoami").await.ok()["is_guest"], true);
    get(&guest, "capabilities").await.refused(403, "M_GUEST_ACCESS_FORBIDDEN");

    let name = guest.user().localpart().to_owned();
    let upgrade = |token: &Value, name: &str| {
        json!({
            "username": name, "password": "p", "guest_access_token": token,
            "auth": { "type": "m.login.dummy" },
        })
    };
    let other = upgrade(&created["access_token"], "someone-else");
    post(&server.client(), "register", other).await.refused(403, "M_FORBIDDEN");
    let own = upgrade(&created["access_token"], &name);
    let upgraded = post(&server.client(), "register", own).await.ok();
    assert_eq!(upgraded["user_id"], created["user_id"]);
    // The session from before goes on, with the rights of the account.
    get(&guest, "capabilities").await.ok();
    assert_eq!(get(&guest, "account/whoami").await.ok().get("is_guest"), None);
}

#[tokio::test]
async fn login_takes_a_whole_id_a_localpart_and_the_old_field_in_any_case() {
    let server = TestServer::start().await;
    server.register("alice").await;
    for name in ["alice", "@alice:test", "@ALICE:test"] {
        let answer = login(&server, name, "password", json!({})).await.ok();
        assert_eq!(answer["user_id"], "@alice:test");
    }
    let old = json!({ "type": "m.login.password", "user": "alice", "password": "password" });
    post(&server.client(), "login", old).await.ok();
    for (name, password) in
        [("alice", "wrong"), ("nobody", "password"), ("@alice:elsewhere", "password"), ("", "x")]
    {
        login(&server, name, password, json!({})).await.refused(403, "M_FORBIDDEN");
    }
    let email = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b.c" });
    let by_email = json!({ "type": "m.login.password", "identifier": email, "password": "x" });
    post(&server.client(), "login", by_email).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn login_without_a_type_or_with_an_unknown_one_is_refused() {
    let server = TestServer::start().await;
    post(&server.client(), "login", json!({})).await.refused(400, "M_BAD_JSON");
    post(&server.client(), "login", json!({ "type": "m.login.magic" }))
        .await
        .refused(400, "M_UNKNOWN");
    let flows = get(&server.client(), "login").await.ok()["flows"].clone();
    let token = json!({ "type": "m.login.token", "get_login_token": true });
    assert_eq!(flows, json!([{ "type": "m.login.password" }, token]));
}

#[tokio::test]
async fn a_known_device_logs_in_anew_keeps_its_name_and_loses_its_old_token() {
    let server = TestServer::start().await;
    server.register("alice").await;
    let named = json!({ "device_id": "PHONE", "initial_device_display_name": "my phone" });
    let first = session(&server, "alice", named).await;
    let renamed = json!({ "device_id": "PHONE", "initial_device_display_name": "other" });
    let second = session(&server, "alice", renamed).await;
    get(&first, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let device = get(&second, "devices/PHONE").await.ok();
    assert_eq!(device["display_name"], "my phone");
    assert!(device["last_seen_ts"].is_number() && device["last_seen_ip"].is_string());
    assert_eq!(get(&second, "devices").await.ok()["devices"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn missing_and_unknown_tokens_are_told_apart() {
    let server = TestServer::start().await;
    get(&server.client(), "account/whoami").await.refused(401, "M_MISSING_TOKEN");
    let unknown = get(&server.client(), "account/whoami?access_token=nonsense").await;
    unknown.refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(unknown.body["soft_logout"], true);
    let alice = server.register("alice").await;
    let token = login(&server, "alice", "password", json!({})).await.ok()["access_token"].clone();
    let path = format!("account/whoami?access_token={}", token.as_str().unwrap());
    assert_eq!(get(&server.client(), &path).await.ok()["user_id"], alice.user().as_str());
}

#[tokio::test]
async fn an_expired_token_is_a_soft_logout_and_refreshing_goes_on() {
    let server = TestServer::start().await;
    server.register("alice").await;
    let first = login(&server, "alice", "password", json!({ "refresh_token": true })).await.ok();
    assert_eq!(first["expires_in_ms"], 300_000);
    let old = server.client().with_session(&first);
    server.clock.advance(Duration::from_secs(301));
    let expired = get(&old, "account/whoami").await;
    expired.refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired.body["soft_logout"], true);

    let refresh = |token: &Value| {
        let body = json!({ "refresh_token": token });
        let client = server.client();
        async move { post(&client, "refresh", body).await }
    };
    // An answer that is lost can be had again: the old refresh token is still good.
    let lost = refresh(&first["refresh_token"]).await.ok();
    let second = refresh(&first["refresh_token"]).await.ok();
    refresh(&lost["refresh_token"]).await.refused(401, "M_UNKNOWN_TOKEN");

    let token = second["access_token"].as_str().unwrap();
    let who = format!("account/whoami?access_token={token}");
    let me = get(&server.client(), &who).await.ok();
    assert_eq!(me["device_id"], first["device_id"]);
    // Its use showed that the new tokens arrived.
    refresh(&first["refresh_token"]).await.refused(401, "M_UNKNOWN_TOKEN");
    let third = refresh(&second["refresh_token"]).await.ok();
    assert_ne!(third["refresh_token"], second["refresh_token"]);
}

#[tokio::test]
async fn a_login_token_logs_in_once_and_not_for_long() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let path = "/_matrix/client/v1/login/get_token";
    assert_eq!(alice.post(path, json!({})).await.body["flows"][0]["stages"][0], "m.login.password");
    let body = json!({ "auth": password_auth("alice", "password") });
    let issued = alice.post(path, body.clone()).await.ok();
    assert_eq!(issued["expires_in_ms"], 120_000);
    let use_it = |token: &Value| {
        let body = json!({ "type": "m.login.token", "token": token });
        let client = server.client();
        async move { post(&client, "login", body).await }
    };
    let answer = use_it(&issued["login_token"]).await.ok();
    assert_eq!(answer["user_id"], "@alice:test");
    use_it(&issued["login_token"]).await.refused(403, "M_FORBIDDEN");
    let issued = alice.post(path, body).await.ok();
    server.clock.advance(Duration::from_secs(121));
    use_it(&issued["login_token"]).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn logging_out_ends_this_session_or_all() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let other = session(&server, "alice", json!({})).await;
    // As nheko does, which has nothing to say.
    post(&other, "logout", json!(null)).await.ok();
    get(&other, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let devices = get(&alice, "devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    let another = session(&server, "alice", json!({})).await;
    post(&alice, "logout/all", json!({})).await.ok();
    for client in [&alice, &another] {
        get(client, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    }
    let guess = server.client().post(&format!("{V3}/logout"), json!({})).await;
    guess.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn changing_the_password_ends_other_sessions_unless_told_not_to() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let other = session(&server, "alice", json!({})).await;
    let mut body = json!({ "new_password": "second" });
    let asked = post(&alice, "account/password", body.clone()).await;
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.password"] }]));
    body["auth"] = password_auth("alice", "wrong");
    post(&alice, "account/password", body.clone()).await.refused(401, "M_FORBIDDEN");
    body["auth"] = password_auth("alice", "password");
    post(&alice, "account/password", body).await.ok();
    get(&alice, "account/whoami").await.ok();
    get(&other, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    login(&server, "alice", "password", json!({})).await.refused(403, "M_FORBIDDEN");

    let answer = login(&server, "alice", "second", json!({})).await.ok();
    let kept = server.client().with_session(&answer);
    let auth = password_auth("@alice:test", "second");
    let body = json!({ "new_password": "third", "logout_devices": false, "auth": auth });
    post(&alice, "account/password", body).await.ok();
    get(&kept, "account/whoami").await.ok();
}

#[tokio::test]
async fn a_deactivated_account_is_gone_and_its_name_stays_taken() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let auth = password_auth("alice", "wrong");
    let wrong = post(&alice, "account/deactivate", json!({ "auth": auth })).await;
    wrong.refused(401, "M_FORBIDDEN");
    let auth = password_auth("alice", "password");
    let answer = post(&alice, "account/deactivate", json!({ "auth": auth })).await.ok();
    assert_eq!(answer, json!({ "id_server_unbind_result": "success" }));
    get(&alice, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    login(&server, "alice", "password", json!({})).await.refused(403, "M_USER_DEACTIVATED");
    let body = json!({ "username": "alice", "password": "p" });
    post(&server.client(), "register", body).await.refused(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn a_device_is_renamed_and_deleted_only_by_its_owner_s_password() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    server.register("bob").await;
    let phone = session(&server, "alice", json!({ "device_id": "PHONE" })).await;
    let path = format!("{V3}/devices/PHONE");
    alice.put(&path, json!({ "display_name": "mine" })).await.ok();
    assert_eq!(alice.get(&path).await.ok()["display_name"], "mine");
    let nowhere = format!("{V3}/devices/NOWHERE");
    alice.put(&nowhere, json!({ "display_name": "x" })).await.refused(404, "M_NOT_FOUND");

    assert_eq!(alice.delete(&path, json!({})).await.status, 401);
    let wrong = json!({ "auth": password_auth("alice", "wrong") });
    alice.delete(&path, wrong).await.refused(401, "M_FORBIDDEN");
    let bob = json!({ "auth": password_auth("@bob:test", "password") });
    alice.delete(&path, bob).await.refused(403, "M_FORBIDDEN");
    alice.get(&path).await.ok();
    let right = json!({ "auth": password_auth("alice", "password") });
    alice.delete(&path, right).await.ok();
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    get(&phone, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");

    let tablet = session(&server, "alice", json!({ "device_id": "TABLET" })).await;
    let auth = password_auth("alice", "password");
    let many = json!({ "devices": ["TABLET", "NOWHERE"], "auth": auth });
    post(&alice, "delete_devices", many).await.ok();
    get(&tablet, "account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_dialogue_is_good_for_one_operation_only() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    session(&server, "alice", json!({ "device_id": "PHONE" })).await;
    let asked = alice.delete(&format!("{V3}/devices/PHONE"), json!({})).await;
    // The same session, for something else, without having met any stage.
    let auth = json!({ "session": asked.body["session"] });
    let other = post(&alice, "account/deactivate", json!({ "auth": auth })).await;
    assert_eq!(other.status, 401);
    assert_ne!(other.body["session"], asked.body["session"]);
}

#[tokio::test]
async fn limits_are_told_by_status_and_header() {
    let mut config = TestServer::config();
    config.rate_limits.enabled = true;
    config.rate_limits.login.burst = 2;
    let server = TestServer::start_with(&config).await;
    server.register("alice").await;
    for _ in 0..2 {
        login(&server, "alice", "wrong", json!({})).await.refused(403, "M_FORBIDDEN");
    }
    let refused = login(&server, "alice", "password", json!({})).await;
    refused.refused(429, "M_LIMIT_EXCEEDED");
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn capabilities_name_the_room_versions_and_are_not_public() {
    let server = TestServer::start().await;
    get(&server.client(), "capabilities").await.refused(401, "M_MISSING_TOKEN");
    let alice = server.register("alice").await;
    let answer = get(&alice, "capabilities").await.ok()["capabilities"].clone();
    assert_eq!(answer["m.change_password"]["enabled"], true);
    assert_eq!(answer["m.room_versions"]["default"], "12");
    let available = answer["m.room_versions"]["available"].as_object().unwrap();
    assert_eq!(available.values().filter(|stability| *stability == "stable").count(), 12);
    assert_eq!(available["org.matrix.msc3757.10"], "unstable");
}

mod shared_secret {
    //! Registration as Synapse's tools do it.

    use hmac::{Hmac, KeyInit, Mac};
    use sha1::Sha1;

    use super::*;

    const PATH: &str = "/_synapse/admin/v1/register";

    fn proof(secret: &str, fields: &[&str]) -> String {
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any key");
        mac.update(fields.join("\0").as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn nonce(server: &TestServer) -> String {
        let answer = server.client().get(PATH).await.ok();
        answer["nonce"].as_str().expect("a nonce").to_owned()
    }

    #[tokio::test]
    async fn whoever_knows_the_secret_registers_once_for_each_nonce() {
        let mut config = TestServer::config();
        config.registration.allow_registration = false;
        let server = TestServer::start_with(&config).await;
        let nonce = nonce(&server).await;
        let mac = proof("shared secret", &[&nonce, "Admin-User", "p", "admin"]);
        let body = json!({
            "nonce": nonce, "username": "Admin-User", "password": "p", "admin": true, "mac": mac,
        });
        let answer = server.client().post(PATH, body.clone()).await.ok();
        assert_eq!(answer["user_id"], "@admin-user:test");
        let admin = server.client().with_session(&answer);
        get(&admin, "account/whoami").await.ok();
        server.client().post(PATH, body).await.refused(400, "M_UNKNOWN");
    }

    #[tokio::test]
    async fn the_proof_covers_every_field_and_the_nonce_its_minute() {
        let server = TestServer::start().await;
        let first = nonce(&server).await;
        let mac = proof("shared secret", &[&first, "a", "p", "notadmin"]);
        let body = json!({
            "nonce": first, "username": "a", "password": "p", "admin": true, "mac": mac,
        });
        server.client().post(PATH, body).await.refused(403, "M_UNKNOWN");
        let second = nonce(&server).await;
        server.clock.advance(Duration::from_secs(61));
        let mac = proof("shared secret", &[&second, "a", "p", "notadmin"]);
        let body = json!({ "nonce": second, "username": "a", "password": "p", "mac": mac });
        server.client().post(PATH, body).await.refused(400, "M_UNKNOWN");
        let third = nonce(&server).await;
        let mac = proof("shared secret", &[&third, "us,er", "p", "notadmin"]);
        let body = json!({ "nonce": third, "username": "us,er", "password": "p", "mac": mac });
        server.client().post(PATH, body).await.refused(400, "M_INVALID_USERNAME");
    }
}
