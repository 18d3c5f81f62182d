//! Stages of user-interactive authentication on pages, and the captcha, over HTTP; the service that
//! checks captchas is one of the test's own.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::sync::{Arc, Mutex};

use axum::{Json, Router, routing::post};
use millrace::config::{email::Security, registration::Policy, threepids::Medium};
use millrace_test_support::{
    Answer, Client, FakeAnswer, FakeServer, MailSink, Network, TestServer,
};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

async fn register(client: &Client, auth: Value) -> Answer {
    let body = json!({ "username": "alice", "password": "password", "auth": auth });
    client.post(&format!("{V3}/register"), body).await
}

fn fallback(stage: &str) -> String {
    format!("{V3}/auth/{stage}/fallback/web")
}

async fn submit(client: &Client, stage: &str, form: String) -> Answer {
    client.send(http::Method::POST, &fallback(stage), form.into()).await
}

/// A service that takes one solution for one private key; what it was asked.
async fn siteverify() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/siteverify", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let verify = async move |body: String| {
        let success = body == "secret=private+%26+key&response=solved"
            || body == "secret=private%20%26%20key&response=solved";
        noted.lock().unwrap().push(body);
        Json(json!({ "success": success }))
    };
    let router = Router::new().route("/siteverify", post(verify));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

#[tokio::test]
async fn whoever_registers_solves_a_riddle_agrees_and_has_a_word_all_on_pages() {
    let (url, asked) = siteverify().await;
    let mut config = TestServer::config();
    config.registration.registration_token = Some("open sesame".to_owned());
    config.registration.terms = vec![Policy {
        id: "privacy".to_owned(),
        version: "1.2".to_owned(),
        language: "en".to_owned(),
        name: "Privacy <policy>".to_owned(),
        url: "https://example.org/p".to_owned(),
    }];
    config.sso.recaptcha_public_key = Some("public key".to_owned());
    config.sso.recaptcha_private_key = Some("private & key".to_owned());
    config.sso.recaptcha_siteverify_api = url;
    let server = TestServer::start_with(&config).await;
    let client = server.client();
    let begun = register(&client, Value::Null).await;
    let stages = ["m.login.registration_token", "m.login.recaptcha", "m.login.terms"];
    assert_eq!(begun.body["flows"], json!([{ "stages": stages }]));
    assert_eq!(begun.body["params"]["m.login.recaptcha"], json!({ "public_key": "public key" }));
    let session = begun.body["session"].as_str().unwrap();

    for (stage, shown) in stages.into_iter().zip(["name=\"token\"", "public key", "&lt;policy&gt;"])
    {
        let page = client.get(&format!("{}?session={session}", fallback(stage))).await;
        assert_eq!(page.status, 200);
        assert!(page.text.contains(shown) && page.text.contains(session), "{}", page.text);
    }
    let token = |token: &str| format!("session={session}&token={token}");
    let wrong = submit(&client, stages[0], token("open+barley")).await;
    assert_eq!(wrong.status, 401);
    assert!(wrong.text.contains("not valid"), "{}", wrong.text);
    let done = submit(&client, stages[0], token("open+sesame")).await;
    assert!(done.text.contains("window.onAuthDone()"), "{}", done.text);

    let solution = |word: &str| format!("session={session}&g-recaptcha-response={word}");
    assert_eq!(submit(&client, stages[1], solution("guessed")).await.status, 401);
    let unfinished = json!({ "session": session });
    assert_eq!(register(&client, unfinished.clone()).await.status, 401);
    assert_eq!(submit(&client, stages[1], solution("solved")).await.status, 200);
    assert_eq!(asked.lock().unwrap().len(), 2);
    submit(&client, stages[2], format!("session={session}")).await;
    register(&client, unfinished).await.ok();
}

#[tokio::test]
async fn a_riddle_is_solved_in_a_client_too_and_nobody_registers_while_it_cannot_be_checked() {
    let (url, _) = siteverify().await;
    let mut config = TestServer::config();
    config.sso.recaptcha_public_key = Some("public key".to_owned());
    config.sso.recaptcha_private_key = Some("private & key".to_owned());
    config.sso.recaptcha_siteverify_api = url;
    let server = TestServer::start_with(&config).await;
    let solve = |word: &str| json!({ "type": "m.login.recaptcha", "response": word });
    register(&server.client(), solve("guessed")).await.refused(401, "M_FORBIDDEN");
    register(&server.client(), json!({ "type": "m.login.dummy" }))
        .await
        .refused(401, "M_UNRECOGNIZED");
    register(&server.client(), solve("solved")).await.ok();

    config.sso.recaptcha_siteverify_api = "http://127.0.0.1:1/".to_owned();
    let server = TestServer::start_with(&config).await;
    let down = register(&server.client(), solve("solved")).await;
    down.refused(500, "M_UNKNOWN");
    let begun = register(&server.client(), Value::Null).await;
    let session = begun.body["session"].as_str().unwrap();
    let form = format!("session={session}&g-recaptcha-response=solved");
    let page = submit(&server.client(), "m.login.recaptcha", form).await;
    page.says(500, "Internal server error.");
}

#[tokio::test]
async fn pages_are_for_stages_of_dialogues_that_there_are() {
    let server = TestServer::start().await;
    let client = server.client();
    let begun = register(&client, Value::Null).await;
    let session = begun.body["session"].as_str().unwrap();
    for (stage, session) in [
        ("m.login.dummy", "unknown"),
        ("m.login.recaptcha", session),
        ("m.login.sso", session),
        ("nonsense", session),
    ] {
        let page = client.get(&format!("{}?session={session}", fallback(stage))).await;
        page.says(404, "There is no such dialogue");
        let page = submit(&client, stage, format!("session={session}")).await;
        page.says(404, "There is no such dialogue");
    }
    let script = format!("{}?session=%22%3E%3Cscript%3E", fallback("m.login.dummy"));
    client.get(&script).await.says(404, "There is no such dialogue");
    let twice = format!("{}?session=1&session=2", fallback("m.login.dummy"));
    client.get(&twice).await.says(400, "duplicate field");
    client.get(&fallback("%FF")).await.says(400, "That did not work");
    assert_eq!(submit(&client, "m.login.dummy", format!("session={session}")).await.status, 200);
    register(&client, json!({ "session": session })).await.ok();
}

#[tokio::test]
async fn whoever_sends_too_much_on_a_page_is_told_there_when_to_try_again() {
    let mut config = TestServer::config();
    config.rate_limits.enabled = true;
    (config.rate_limits.login.per_second, config.rate_limits.login.burst) = (0.1, 1);
    let server = TestServer::start_with(&config).await;
    let client = server.client();
    let form = || "session=unknown".to_owned();
    submit(&client, "m.login.dummy", form()).await.says(404, "There is no such dialogue");
    let page = submit(&client, "m.login.dummy", form()).await;
    page.says(429, "Too many requests. Try again in 10 s.");
    assert_eq!(page.headers["retry-after"], "10");
}

#[tokio::test]
async fn a_password_is_asked_for_on_a_page() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let path = format!("{V3}/delete_devices");
    let mut body = json!({ "devices": [alice.device()] });
    let asked = alice.post(&path, body.clone()).await;
    let session = asked.body["session"].as_str().unwrap();
    let form =
        |user: &str, password: &str| format!("session={session}&user={user}&password={password}");
    server.register("bob").await;
    for (user, password) in [("alice", "wrong"), ("alise", "password"), ("bob", "password")] {
        let again = submit(&alice, "m.login.password", form(user, password)).await;
        assert_eq!(again.status, 401, "{user}: {}", again.text);
        assert!(again.text.contains("Wrong username or password"), "{}", again.text);
        assert!(again.text.contains("<form method=\"post\">"), "{}", again.text);
    }
    assert_eq!(submit(&alice, "m.login.password", form("alice", "password")).await.status, 200);
    body["auth"] = json!({ "session": session });
    alice.post(&path, body).await.ok();
}

#[tokio::test]
async fn there_is_a_page_to_log_in_on_and_no_oauth() {
    let server = TestServer::start().await;
    let page = server.client().get("/_matrix/static/client/login/?device_id=X").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("window.matrixLogin.onLogin"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.text.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
    let metadata = server.client().get("/_matrix/client/v1/auth_metadata").await;
    metadata.refused(404, "M_UNRECOGNIZED");
}

/// The value of a hidden field of a page, as a form sends it.
fn field(page: &Answer, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let value = page.text.split_once(&mark).unwrap().1.split_once('"').unwrap().0;
    format!("{name}={value}")
}

#[tokio::test]
async fn an_address_is_proved_on_a_page() {
    let sink = MailSink::start().await;
    let mut config = TestServer::config();
    config.email.smtp_host = Some("127.0.0.1".to_owned());
    config.email.smtp_port = Some(sink.port());
    config.email.smtp_security = Security::None;
    config.email.from = Some("no-reply@test".to_owned());
    config.threepids.registrations_require_3pid = vec![Medium::Email];
    let server = TestServer::start_with(&config).await;
    let client = server.client();
    let begun = register(&client, Value::Null).await;
    let session = begun.body["session"].as_str().unwrap();
    let stage = "m.login.email.identity";
    let page = client.get(&format!("{}?session={session}", fallback(stage))).await;
    assert!(page.status == 200 && page.text.contains("name=\"email\""), "{}", page.text);
    let wrong = submit(&client, stage, format!("session={session}&email=nonsense")).await;
    assert_eq!(wrong.status, 401);
    let form = format!("session={session}&email=alice%40example.org");
    let waiting = submit(&client, stage, form).await;
    assert_eq!(waiting.status, 200, "{}", waiting.text);
    let proof = format!(
        "session={session}&{}&{}",
        field(&waiting, "sid"),
        field(&waiting, "client_secret")
    );
    assert_eq!(submit(&client, stage, proof.clone()).await.status, 401, "nobody followed the link");
    assert_eq!(client.get(&sink.newest().link()).await.status, 200);
    let done = submit(&client, stage, proof).await;
    assert!(done.text.contains("window.onAuthDone()"), "{}", done.text);
    let created = register(&client, json!({ "session": session })).await.ok();
    let alice = client.clone().with_session(&created);
    let mine = alice.get(&format!("{V3}/account/3pid")).await.ok();
    assert_eq!(mine["threepids"][0]["address"], "alice@example.org");
    let unknown = client_page(&server, stage).await;
    unknown.says(404, "There is no such dialogue");

    let body = json!({ "username": "bob", "password": "password" });
    let begun = client.post(&format!("{V3}/register"), body).await;
    let session = begun.body["session"].as_str().unwrap();
    let form = |email: &str| format!("session={session}&email={email}%40example.org");
    submit(&client, stage, form("alice")).await.says(400, "belongs to an account already.");
    sink.refuse(true);
    submit(&client, stage, form("bob")).await.says(500, "Internal server error.");
}

async fn client_page(server: &TestServer, stage: &str) -> Answer {
    server.client().get(&format!("{}?session=unknown", fallback(stage))).await
}

#[tokio::test]
async fn a_phone_number_is_proved_on_a_page() {
    let network = Network::default();
    let identity = FakeServer::start(&network, "id.example");
    let answer = |json: Value| FakeAnswer::Json(json);
    identity.answers("validate/msisdn/requestToken", answer(json!({ "sid": "remote" })));
    identity.on("validate/msisdn/submitToken", |asked| {
        let success = asked.body.to_string().contains("123456");
        Some(FakeAnswer::Json(json!({ "success": success })))
    });
    let mut config = TestServer::config();
    config.threepids.trusted_third_party_id_servers = vec![identity.name().to_owned()];
    config.threepids.msisdn_validation_url = Some(format!("https://{}", identity.name()));
    config.threepids.msisdn_validation_token = Some("token".to_owned());
    config.threepids.registrations_require_3pid = vec![Medium::Msisdn];
    let server = TestServer::start_in_with(&network, "test", config).await;
    let client = server.client();
    let begun = register(&client, Value::Null).await;
    let session = begun.body["session"].as_str().unwrap();
    let stage = "m.login.msisdn";
    let page = client.get(&format!("{}?session={session}", fallback(stage))).await;
    assert!(page.status == 200 && page.text.contains("name=\"phone_number\""), "{}", page.text);
    let form =
        |country: &str| format!("session={session}&country={country}&phone_number=07700900001");
    assert_eq!(submit(&client, stage, form("XX")).await.status, 401);
    let waiting = submit(&client, stage, form("gb")).await;
    assert_eq!(waiting.status, 200, "{}", waiting.text);
    let proof = format!(
        "session={session}&{}&{}",
        field(&waiting, "sid"),
        field(&waiting, "client_secret")
    );
    assert_eq!(submit(&client, stage, format!("{proof}&token=000000")).await.status, 401);
    assert_eq!(submit(&client, stage, format!("{proof}&token=123456")).await.status, 200);
    register(&client, json!({ "session": session })).await.ok();
}

#[tokio::test]
async fn there_is_a_page_to_register_on() {
    let server = TestServer::start().await;
    let page = server.client().get("/_matrix/static/client/register/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("window.matrixRegistration"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(page.text.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
}
