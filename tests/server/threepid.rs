//! E-mail addresses and phone numbers of users, from the first mail to the last: over HTTP, with a
//! real mail server and an identity server of the test's own.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use millrace::config::{
    Config,
    email::Security,
    threepids::{AllowedThreepid, Medium},
};
use millrace_test_support::{
    Answer, Asked, Client, FakeAnswer, FakeServer, MailSink, Network, TestServer,
};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const SUBMIT: &str = "/_matrix/millrace/email/submit_token";

async fn post(client: &Client, path: &str, body: Value) -> Answer {
    client.post(&format!("{V3}/{path}"), body).await
}

fn config(sink: &MailSink) -> Config {
    let mut config = TestServer::config();
    config.email.smtp_host = Some("127.0.0.1".to_owned());
    config.email.smtp_port = Some(sink.port());
    config.email.smtp_security = Security::None;
    config.email.from = Some("Test <no-reply@test>".to_owned());
    config.well_known.client = Some("https://client.test".to_owned());
    config
}

/// A server that sends mail, and the mail server.
async fn world() -> (TestServer, MailSink) {
    let sink = MailSink::start().await;
    (TestServer::start_with(&config(&sink)).await, sink)
}

async fn ask(server: &TestServer, what: &str, email: &str, attempt: u32) -> Answer {
    let body = json!({ "client_secret": "s3cret", "email": email, "send_attempt": attempt });
    post(&server.client(), &format!("{what}/email/requestToken"), body).await
}

fn proof(sid: &Value) -> Value {
    json!({ "sid": sid, "client_secret": "s3cret" })
}

fn password_auth(user: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user });
    json!({ "type": "m.login.password", "identifier": identifier, "password": "password" })
}

async fn log_in(server: &TestServer, identifier: Value, password: &str) -> Answer {
    let body = json!({
        "type": "m.login.password", "identifier": identifier, "password": password,
    });
    post(&server.client(), "login", body).await
}

fn by_email(address: &str) -> Value {
    json!({ "type": "m.id.thirdparty", "medium": "email", "address": address })
}

/// Adds an address to an account, by following the link in the mail.
async fn add(server: &TestServer, sink: &MailSink, user: &Client, email: &str) -> Answer {
    let sid = ask(server, "account/3pid", email, 1).await.ok()["sid"].clone();
    assert_eq!(server.client().get(&sink.newest().link()).await.status, 200);
    let mut body = proof(&sid);
    body["auth"] = password_auth(user.user().as_str());
    post(user, "account/3pid/add", body).await
}

async fn addresses(user: &Client) -> Vec<String> {
    let listed = user.get(&format!("{V3}/account/3pid")).await.ok();
    let listed = listed["threepids"].as_array().unwrap();
    listed.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_account_is_registered_by_following_the_link_in_a_mail() {
    let sink = MailSink::start().await;
    let mut config = config(&sink);
    config.threepids.registrations_require_3pid = vec![Medium::Email];
    let server = TestServer::start_with(&config).await;
    let client = server.client();
    let mut body = json!({ "username": "alice", "password": "password" });
    let asked = post(&client, "register", body.clone()).await;
    assert_eq!(asked.body["flows"], json!([{ "stages": ["m.login.email.identity"] }]));

    let sid = ask(&server, "register", "Alice@Example.org", 1).await.ok()["sid"].clone();
    let mail = sink.newest();
    assert_eq!((&*mail.to, &*mail.from), ("alice@example.org", "no-reply@test"));
    body["auth"] = json!({
        "type": "m.login.email.identity", "threepid_creds": proof(&sid),
        "session": asked.body["session"],
    });
    post(&client, "register", body.clone()).await.refused(401, "M_UNAUTHORIZED");

    let page = client.get(&mail.link()).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("is confirmed"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("'none'"));
    let created = post(&client, "register", body).await.ok();
    let alice = client.clone().with_session(&created);
    assert_eq!(addresses(&alice).await, ["alice@example.org"]);

    log_in(&server, by_email("ALICE@example.org"), "password").await.ok();
    log_in(&server, by_email("alice@example.org"), "wrong").await.refused(403, "M_FORBIDDEN");
    let old = json!({
        "type": "m.login.password", "medium": "email", "address": "alice@example.org",
        "password": "password",
    });
    assert_eq!(post(&client, "login", old).await.ok()["user_id"], "@alice:test");
    ask(&server, "register", "alice@example.org", 1).await.refused(400, "M_THREEPID_IN_USE");
    // The proof is used up, and the link with it.
    assert_eq!(client.get(&mail.link()).await.status, 400);
}

#[tokio::test]
async fn where_addresses_are_not_required_they_are_offered() {
    let (server, _sink) = world().await;
    let asked = post(&server.client(), "register", json!({ "username": "a" })).await;
    let flows = json!([{ "stages": ["m.login.dummy"] }, { "stages": ["m.login.email.identity"] }]);
    assert_eq!(asked.body["flows"], flows);
    server.register("bob").await;
}

#[tokio::test]
async fn a_forgotten_password_is_replaced_by_a_link_and_a_button() {
    let (server, sink) = world().await;
    let alice = server.register("alice").await;
    add(&server, &sink, &alice, "alice@example.org").await.ok();
    ask(&server, "account/password", "bob@example.org", 1)
        .await
        .refused(400, "M_THREEPID_NOT_FOUND");
    let asked = ask(&server, "account/password", "alice@example.org", 1).await.ok();
    let link = sink.newest().link();
    let stage = json!({ "type": "m.login.email.identity", "threepid_creds": proof(&asked["sid"]) });
    let body = json!({ "new_password": "new password", "auth": stage });
    let reset = async || post(&server.client(), "account/password", body.clone()).await;
    reset().await.refused(401, "M_UNAUTHORIZED");

    // Whoever only follows the link, as programmes that look through mails do, confirms nothing.
    let page = server.client().get(&link).await;
    assert!(page.text.contains("<form method=\"post\""), "{}", page.text);
    reset().await.refused(401, "M_UNAUTHORIZED");
    let form = link.split_once('?').unwrap().1.to_owned();
    let confirmed = server.client().send(http::Method::POST, SUBMIT, form.into()).await;
    confirmed.says(200, "it can go on with the new password");
    reset().await.ok();

    let user = json!({ "type": "m.id.user", "user": "alice" });
    log_in(&server, user.clone(), "password").await.refused(403, "M_FORBIDDEN");
    log_in(&server, user, "new password").await.ok();
    let me = alice.get(&format!("{V3}/account/whoami")).await;
    me.refused(401, "M_UNKNOWN_TOKEN");
    // A proof is good for one new password.
    reset().await.refused(401, "M_UNAUTHORIZED");
}

#[tokio::test]
async fn a_proof_for_one_purpose_is_none_for_another() {
    let (server, sink) = world().await;
    let alice = server.register("alice").await;
    add(&server, &sink, &alice, "alice@example.org").await.ok();
    let bob = server.register("bob").await;
    let sid = ask(&server, "register", "bob@example.org", 1).await.ok()["sid"].clone();
    server.client().get(&sink.newest().link()).await;
    let mut body = proof(&sid);
    body["auth"] = password_auth("bob");
    post(&bob, "account/3pid/add", body).await.refused(400, "M_THREEPID_AUTH_FAILED");
}

#[tokio::test]
async fn an_address_is_added_once_and_removed_for_good() {
    let (server, sink) = world().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let capabilities = alice.get(&format!("{V3}/capabilities")).await.ok();
    assert_eq!(capabilities["capabilities"]["m.3pid_changes"]["enabled"], true);
    assert_eq!(addresses(&alice).await, Vec::<String>::new());

    // Both prove the address before either has it.
    let mut sids = Vec::new();
    for secret in ["one", "two"] {
        let body = json!({ "client_secret": secret, "email": "a@example.org", "send_attempt": 1 });
        let path = "account/3pid/email/requestToken";
        let asked = post(&server.client(), path, body).await.ok();
        server.client().get(&sink.newest().link()).await;
        sids.push(asked["sid"].clone());
    }
    let mut first = json!({ "sid": sids[0], "client_secret": "one" });
    post(&alice, "account/3pid/add", first.clone()).await;
    first["auth"] = password_auth("alice");
    post(&alice, "account/3pid/add", first).await.ok();
    let second = json!({ "sid": sids[1], "client_secret": "two", "auth": password_auth("bob") });
    post(&bob, "account/3pid/add", second).await.refused(400, "M_THREEPID_IN_USE");
    assert_eq!(addresses(&bob).await, Vec::<String>::new());

    let gone = json!({ "medium": "email", "address": "A@example.org" });
    let deleted = post(&alice, "account/3pid/delete", gone).await.ok();
    assert_eq!(deleted["id_server_unbind_result"], "no-support");
    assert_eq!(addresses(&alice).await, Vec::<String>::new());
    log_in(&server, by_email("a@example.org"), "password").await.refused(403, "M_FORBIDDEN");
    add(&server, &sink, &bob, "a@example.org").await.ok();
}

#[tokio::test]
async fn a_mail_is_sent_again_only_for_a_higher_attempt() {
    let (server, sink) = world().await;
    let first = ask(&server, "register", "a@example.org", 1).await.ok();
    let again = ask(&server, "register", "a@example.org", 1).await.ok();
    assert_eq!((first["sid"] == again["sid"], sink.count()), (true, 1));
    let earlier = sink.newest().link();
    ask(&server, "register", "a@example.org", 2).await.ok();
    assert_eq!(sink.count(), 2);
    assert_ne!(sink.newest().link(), earlier);
    // Mails overtake each other; either link is good.
    assert_eq!(server.client().get(&earlier).await.status, 200);
}

#[tokio::test]
async fn a_mail_that_the_mail_server_refused_is_sent_when_it_is_asked_for_again() {
    let (server, sink) = world().await;
    sink.refuse(true);
    ask(&server, "register", "a@example.org", 1).await.refused(500, "M_UNKNOWN");
    sink.refuse(false);
    ask(&server, "register", "a@example.org", 1).await.ok();
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn a_link_ends_with_its_time() {
    let (server, sink) = world().await;
    ask(&server, "register", "a@example.org", 1).await.ok();
    server.clock.advance(std::time::Duration::from_secs(25 * 3600));
    let page = server.client().get(&sink.newest().link()).await;
    assert_eq!(page.status, 400);
    assert!(page.text.contains("not valid"), "{}", page.text);
    // A new one is sent, although the number is not higher.
    ask(&server, "register", "a@example.org", 1).await.ok();
    assert_eq!(server.client().get(&sink.newest().link()).await.status, 200);
}

#[tokio::test]
async fn people_are_sent_on_to_known_hosts_only_and_shown_where_others_lead() {
    let sink = MailSink::start().await;
    let mut config = config(&sink);
    config.email.next_link_hosts = vec!["app.example.org".to_owned()];
    let server = TestServer::start_with(&config).await;
    let follow = async |secret: &str, next: &str| {
        let body = json!({
            "client_secret": secret, "email": "a@example.org", "send_attempt": 1,
            "next_link": next,
        });
        let path = "register/email/requestToken";
        let asked = post(&server.client(), path, body).await;
        if !asked.status.is_success() {
            return asked;
        }
        server.client().get(&sink.newest().link()).await
    };
    let friend = follow("one", "https://app.example.org/#/register").await;
    assert_eq!(friend.status, 303);
    assert_eq!(friend.headers["location"], "https://app.example.org/#/register");
    for (secret, other) in [
        ("two", "https://app.example.org.evil.org/\"><script>"),
        ("three", "https://app.example.org@evil.org/"),
        ("four", "https://evil.org/?app.example.org"),
    ] {
        let page = follow(secret, other).await;
        assert_eq!(page.status, 200, "{other}");
        assert!(page.text.contains("evil.org") && !page.text.contains("<script"), "{}", page.text);
    }
    for (secret, bad) in
        [("five", "javascript:alert(1)"), ("six", "/path"), ("seven", "https://a b")]
    {
        follow(secret, bad).await.refused(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_with_the_reason() {
    let server = TestServer::start().await;
    let refused = ask(&server, "register", "a@example.org", 1).await;
    refused.refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    let body = json!({
        "client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1,
    });
    post(&server.client(), "register/msisdn/requestToken", body)
        .await
        .refused(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    let path = "account/password";
    post(&server.client(), path, json!({ "new_password": "x" }))
        .await
        .refused(401, "M_MISSING_TOKEN");

    let sink = MailSink::start().await;
    let mut config = config(&sink);
    let (medium, pattern) = (Medium::Email, "*@example.org".to_owned());
    config.threepids.allowed_local_3pids = vec![AllowedThreepid { medium, pattern }];
    let server = TestServer::start_with(&config).await;
    ask(&server, "register", "a@elsewhere.org", 1).await.refused(403, "M_THREEPID_DENIED");
    ask(&server, "register", "nonsense", 1).await.refused(400, "M_INVALID_PARAM");
    ask(&server, "register", "a@example.org\r\nBcc: b@example.org", 1)
        .await
        .refused(400, "M_INVALID_PARAM");
    ask(&server, "register", "a@example.org", 1).await.ok();
    assert_eq!(sink.count(), 1);
}

#[tokio::test]
async fn a_silent_server_tells_the_owner_of_an_address_and_nobody_else() {
    let sink = MailSink::start().await;
    let mut config = config(&sink);
    config.threepids.request_token_inhibit_3pid_errors = true;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    add(&server, &sink, &alice, "alice@example.org").await.ok();
    ask(&server, "register", "alice@example.org", 1).await.ok();
    assert!(sink.newest().text.contains("already"), "{}", sink.newest().text);
    let before = sink.count();
    ask(&server, "account/password", "nobody@example.org", 1).await.ok();
    assert_eq!(sink.count(), before);
}

#[tokio::test]
async fn nobody_is_flooded_with_mails() {
    let sink = MailSink::start().await;
    let mut config = config(&sink);
    config.rate_limits.enabled = true;
    let server = TestServer::start_with(&config).await;
    for attempt in 1..=5 {
        ask(&server, "register", "a@example.org", attempt).await.ok();
    }
    ask(&server, "register", "a@example.org", 6).await.refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(sink.count(), 5);
}

/// A server that trusts an identity server, which also sends text messages for it.
async fn with_identity_server() -> (TestServer, FakeServer) {
    let network = Network::default();
    let identity = FakeServer::start(&network, "id.example");
    let mut config = TestServer::config();
    config.threepids.trusted_third_party_id_servers = vec!["id.example".try_into().unwrap()];
    config.threepids.msisdn_validation_url = Some("https://id.example".to_owned());
    config.threepids.msisdn_validation_token = Some("our token".to_owned());
    config.well_known.client = Some("https://client.test".to_owned());
    (TestServer::start_in_with(&network, "test", config).await, identity)
}

fn bodies(identity: &FakeServer, part: &str) -> Vec<Value> {
    identity.asked(part).into_iter().map(|asked| asked.body).collect()
}

#[tokio::test]
async fn a_phone_number_is_proved_through_the_configured_identity_server() {
    let (server, identity) = with_identity_server().await;
    identity.on("validate/msisdn/requestToken", |_: &Asked| {
        Some(FakeAnswer::Json(json!({ "sid": "remote" })))
    });
    identity.on("validate/msisdn/submitToken", |asked: &Asked| {
        let right = asked.body["token"] == "123456";
        Some(FakeAnswer::Json(json!({ "success": right })))
    });
    let alice = server.register("alice").await;
    let body = json!({
        "client_secret": "s3cret", "country": "GB", "phone_number": "07700 900001",
        "send_attempt": 1,
    });
    let path = "account/3pid/msisdn/requestToken";
    let asked = post(&server.client(), path, body).await.ok();
    let submit = asked["submit_url"].as_str().unwrap().replace("https://client.test", "");
    let submit = async |token: &str| {
        let mut body = proof(&asked["sid"]);
        body["token"] = token.into();
        server.client().post(&submit, body).await.ok()["success"].clone()
    };
    let mut adding = proof(&asked["sid"]);
    adding["auth"] = password_auth("alice");
    assert_eq!(submit("000000").await, false);
    let refused = post(&alice, "account/3pid/add", adding.clone()).await;
    refused.refused(400, "M_THREEPID_AUTH_FAILED");
    assert_eq!(submit("123456").await, true);
    post(&alice, "account/3pid/add", adding).await.ok();
    assert_eq!(addresses(&alice).await, ["447700900001"]);
    assert_eq!(bodies(&identity, "submitToken")[0]["sid"], "remote");

    let phone = json!({ "type": "m.id.phone", "country": "GB", "phone": "07700900001" });
    log_in(&server, phone, "password").await.ok();
    let msisdn =
        json!({ "type": "m.id.thirdparty", "medium": "msisdn", "address": "447700900001" });
    log_in(&server, msisdn, "password").await.ok();
}

#[tokio::test]
async fn an_address_is_bound_and_unbound_at_trusted_identity_servers_only() {
    let (server, identity) = with_identity_server().await;
    identity.on("3pid/bind", |_: &Asked| {
        Some(FakeAnswer::Json(json!({ "medium": "email", "address": "alice@example.org" })))
    });
    identity.on("3pid/unbind", |_: &Asked| Some(FakeAnswer::Json(json!({}))));
    let alice = server.register("alice").await;
    let bind = |server: &str| {
        json!({
            "sid": "1", "client_secret": "s", "id_server": server, "id_access_token": "token",
        })
    };
    let path = "account/3pid/bind";
    post(&alice, path, bind("evil.example")).await.refused(400, "M_SERVER_NOT_TRUSTED");
    post(&alice, path, bind("id.example")).await.ok();
    assert_eq!(bodies(&identity, "3pid/bind")[0]["mxid"], "@alice:test");

    let address = json!({ "medium": "email", "address": "alice@example.org" });
    let unbound = post(&alice, "account/3pid/unbind", address.clone()).await.ok();
    assert_eq!(unbound["id_server_unbind_result"], "success");
    let sent = bodies(&identity, "3pid/unbind");
    assert_eq!(sent[0]["threepid"], address);
    let unbound = post(&alice, "account/3pid/unbind", address).await.ok();
    assert_eq!(unbound["id_server_unbind_result"], "no-support");

    // The deprecated endpoint binds too; who gives up the account is unbound everywhere.
    let creds = json!({ "three_pid_creds": bind("id.example") });
    post(&alice, "account/3pid", creds).await.ok();
    let body = json!({ "auth": password_auth("alice") });
    let gone = post(&alice, "account/deactivate", body).await.ok();
    assert_eq!(gone["id_server_unbind_result"], "success");
    assert_eq!(bodies(&identity, "3pid/unbind").len(), 2);
}

#[tokio::test]
async fn the_refusal_of_an_identity_server_is_passed_on() {
    let (server, identity) = with_identity_server().await;
    let alice = server.register("alice").await;
    identity.on("3pid/bind", |_: &Asked| {
        let body = json!({ "errcode": "M_SESSION_NOT_VALIDATED", "error": "no" });
        Some(FakeAnswer::Status(400, body))
    });
    let body = json!({
        "sid": "1", "client_secret": "s", "id_server": "id.example", "id_access_token": "token",
    });
    let refused = post(&alice, "account/3pid/bind", body.clone()).await;
    refused.refused(400, "M_SESSION_NOT_VALIDATED");
    identity.network().leave("id.example");
    post(&alice, "account/3pid/bind", body).await.refused(502, "M_UNKNOWN");
}
