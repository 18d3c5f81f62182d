//! Single sign-on by OpenID Connect, end to end: a browser, this server, and a provider that signs real
//! tokens and checks what a provider has to check, over HTTP on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends where an answer is not as expected")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use millrace::config::{Config, sso::SsoProvider};
use millrace_domain::Clock;
use millrace_test_support::{Answer, Client, TestClock, TestServer};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const V3: &str = "/_matrix/client/v3";
const CALLBACK: &str = "https://client.test/_matrix/millrace/sso/callback";

/// What the provider does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Nonce,
    Audience,
    Key,
    Expired,
    Userinfo,
}

struct Provider {
    issuer: String,
    clock: TestClock,
    key: Mutex<EcdsaKeyPair>,
    /// Signs, and is not published.
    other: EcdsaKeyPair,
    fault: Mutex<Fault>,
    /// Who signs on next.
    person: Mutex<Value>,
    /// Codes given out, with what was asked.
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
}

type Shared = Arc<Provider>;

fn key() -> EcdsaKeyPair {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

impl Provider {
    async fn start(clock: TestClock) -> Shared {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let person = json!({ "sub": "1", "preferred_username": "Ann", "name": "Ann Lee" });
        let provider = Arc::new(Self {
            issuer,
            clock,
            key: Mutex::new(key()),
            other: key(),
            fault: Mutex::new(Fault::None),
            person: Mutex::new(person),
            codes: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(Arc::clone(&provider));
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// What happens in the browser at the provider: its user agrees, and it is sent back.
    fn agree(&self, location: &str) -> String {
        let uri: http::Uri = location.parse().unwrap();
        let Query(asked) = Query::<HashMap<String, String>>::try_from_uri(&uri).unwrap();
        assert_eq!((uri.path(), &*asked["response_type"]), ("/authorize", "code"));
        assert_eq!((&*asked["client_id"], &*asked["redirect_uri"]), ("matrix", CALLBACK));
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
        let code = format!("code{}", self.codes.lock().unwrap().len());
        let path = CALLBACK.strip_prefix("https://client.test").unwrap();
        let back = format!("{path}?state={}&code={code}", asked["state"]);
        self.codes.lock().unwrap().insert(code, asked);
        back
    }

    fn id_token(&self, nonce: &str) -> String {
        let fault = *self.fault.lock().unwrap();
        let now = u64::from(self.clock.now().get()) / 1000;
        let audience = if fault == Fault::Audience { "other" } else { "matrix" };
        let nonce = if fault == Fault::Nonce { "other" } else { nonce };
        let end = if fault == Fault::Expired { now - 1000 } else { now + 60 };
        let claims = json!({
            "iss": self.issuer, "sub": self.person.lock().unwrap()["sub"], "aud": audience,
            "iat": now, "exp": end, "nonce": nonce,
        });
        let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(json!({ "alg": "ES256", "kid": "k" })), part(claims));
        let ours = self.key.lock().unwrap();
        let key = if fault == Fault::Key { &self.other } else { &*ours };
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn metadata(State(provider): State<Shared>) -> Json<Value> {
    let issuer = &provider.issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/keys"),
    }))
}

async fn keys(State(provider): State<Shared>) -> Json<Value> {
    let key = provider.key.lock().unwrap();
    let point = key.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": part(1..33), "y": part(33..65),
    });
    Json(json!({ "keys": [key] }))
}

async fn token(
    State(provider): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, StatusCode> {
    let uri: http::Uri = format!("/?{}", String::from_utf8_lossy(&body)).parse().unwrap();
    let Query(form) = Query::<HashMap<String, String>>::try_from_uri(&uri).unwrap();
    // A code is good once, for the client that asked, where it shows the verifier.
    let asked = provider.codes.lock().unwrap().remove(&form["code"]);
    let asked = asked.ok_or(StatusCode::BAD_REQUEST)?;
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    let login = base64::prelude::BASE64_STANDARD.encode("matrix:se%20cret");
    let good = form["grant_type"] == "authorization_code"
        && form["redirect_uri"] == CALLBACK
        && challenge == asked["code_challenge"]
        && headers.get("authorization").is_some_and(|value| *value == format!("Basic {login}"));
    if !good {
        return Err(StatusCode::BAD_REQUEST);
    }
    let id_token = provider.id_token(&asked["nonce"]);
    Ok(Json(json!({ "access_token": "bearer", "token_type": "Bearer", "id_token": id_token })))
}

async fn userinfo(
    State(provider): State<Shared>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if headers.get("authorization").is_none_or(|value| value != "Bearer bearer") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut person = provider.person.lock().unwrap().clone();
    if *provider.fault.lock().unwrap() == Fault::Userinfo {
        person["sub"] = "2".into();
    }
    Ok(Json(person))
}

struct World {
    server: TestServer,
    provider: Shared,
    browser: Client,
}

fn provider_config(issuer: &str) -> SsoProvider {
    SsoProvider {
        id: "corp".to_owned(),
        name: "Corp".to_owned(),
        icon: None,
        brand: Some("github".to_owned()),
        issuer: issuer.to_owned(),
        client_id: "matrix".to_owned(),
        client_secret: Some("se cret".to_owned()),
        scopes: vec!["openid".to_owned(), "profile".to_owned()],
        localpart_template: "{{ preferred_username }}".to_owned(),
        display_name_template: "{{ name }}".to_owned(),
        allow_existing_users: false,
        enable_registration: true,
    }
}

async fn world(change: impl Fn(&mut Config)) -> World {
    let clock = TestClock::default();
    let provider = Provider::start(clock.clone()).await;
    let mut config = TestServer::config();
    config.registration.allow_registration = true;
    config.well_known.client = Some("https://client.test".to_owned());
    config.sso.sso_providers = vec![provider_config(&provider.issuer)];
    config.sso.sso_redirect_hosts = vec!["app.test".to_owned()];
    change(&mut config);
    let engine = Arc::new(millrace_store::engine::MemoryEngine::new());
    let server = TestServer::start_on(engine, &config, clock).await;
    let browser = server.client();
    World { server, provider, browser }
}

/// Follows a path with a cookie.
async fn follow(browser: &Client, path: &str, cookie: &str) -> Answer {
    let request = http::Request::get(path).header("cookie", cookie);
    browser.request(request.body(axum::body::Body::empty()).unwrap()).await
}

fn location(answer: &Answer) -> String {
    answer.headers["location"].to_str().unwrap().to_owned()
}

/// The cookie that the browser keeps.
fn cookie(answer: &Answer) -> String {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; Secure"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

impl World {
    /// From the client to the provider and back.
    async fn sign_on(&self, redirect_url: &str) -> Answer {
        let byte = |byte: u8| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        };
        let url: String = redirect_url.bytes().map(byte).collect();
        let path = format!("{V3}/login/sso/redirect/corp?redirectUrl={url}");
        let sent = self.browser.get(&path).await;
        assert_eq!(sent.status, 302, "{}", sent.text);
        let back = self.provider.agree(&location(&sent));
        follow(&self.browser, &back, &cookie(&sent)).await
    }

    async fn log_in(&self, redirect_url: &str) -> Value {
        let back = self.sign_on(redirect_url).await;
        assert_eq!(back.status, 303, "{}", back.text);
        let location = location(&back);
        let token = location.split_once("loginToken=").unwrap().1;
        let token = token.split(['#', '&']).next().unwrap();
        let body = json!({ "type": "m.login.token", "token": token });
        self.browser.post(&format!("{V3}/login"), body).await.ok()
    }

    fn person(&self, person: Value) {
        *self.provider.person.lock().unwrap() = person;
    }
}

#[tokio::test]
async fn somebody_logs_in_for_the_first_time_and_again() {
    let w = world(|_| {}).await;
    let flows = w.browser.get(&format!("{V3}/login")).await.ok()["flows"].clone();
    let provider = json!({ "id": "corp", "name": "Corp", "brand": "github" });
    assert_eq!(flows[1], json!({ "type": "m.login.sso", "identity_providers": [provider] }));

    let session = w.log_in("https://app.test/#/login").await;
    assert_eq!(session["user_id"], "@ann:test");
    let ann = w.server.client().with_session(&session);
    let profile = ann.get(&format!("{V3}/profile/@ann:test")).await.ok();
    assert_eq!(profile["displayname"], "Ann Lee");
    // Whatever the provider calls them later, it is the same person.
    w.person(json!({ "sub": "1", "preferred_username": "anna", "name": "Anna" }));
    assert_eq!(w.log_in("https://app.test/").await["user_id"], "@ann:test");
    // Somebody else of the same name is somebody else.
    w.person(json!({ "sub": "2", "preferred_username": "ann", "name": "Another" }));
    assert_eq!(w.log_in("https://app.test/").await["user_id"], "@ann2:test");
    // New keys of the provider are fetched when they are met.
    *w.provider.key.lock().unwrap() = key();
    assert_eq!(w.log_in("https://app.test/").await["user_id"], "@ann2:test");
    // Nobody logs in with a password that there is none of.
    let identifier = json!({ "type": "m.id.user", "user": "ann" });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "" });
    w.browser.post(&format!("{V3}/login"), body).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn an_unknown_client_is_shown_before_it_gets_the_token() {
    let w = world(|_| {}).await;
    let page = w.sign_on("https://evil.test/?a=1&b='x'").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("evil.test") && page.text.contains("@ann:test"), "{}", page.text);
    let link = "https://evil.test/?a=1&amp;b=&#39;x&#39;&amp;loginToken=";
    assert!(page.text.contains(link), "{}", page.text);
    for bad in ["javascript:alert(1)", "data:text/html,x", "nonsense"] {
        let path = format!("{V3}/login/sso/redirect?redirectUrl={}", bad.replace(':', "%3A"));
        w.browser.get(&path).await.says(400, "The redirectUrl is not the address of a client.");
    }
    let path = format!("{V3}/login/sso/redirect/%3Cb%3E?redirectUrl=https%3A%2F%2Fapp.test");
    w.browser.get(&path).await.says(404, "There is no identity provider &quot;&lt;b&gt;&quot;.");
    w.browser.get(&format!("{V3}/login/sso/redirect")).await.says(400, "redirectUrl");
    w.browser.get("/_matrix/millrace/sso/confirm?idp=corp").await.says(400, "missing field");
    let twice = "/_matrix/millrace/sso/callback?code=1&code=2";
    w.browser.get(twice).await.says(400, "duplicate field");
}

#[tokio::test]
async fn a_sign_on_is_one_browsers_and_ends_once() {
    let w = world(|_| {}).await;
    let path = format!("{V3}/login/sso/redirect?redirectUrl=https%3A%2F%2Fapp.test");
    let sent = w.browser.get(&path).await;
    let back = w.provider.agree(&location(&sent));
    // Another browser, which was sent the link, is not logged in as the first one's user.
    assert_eq!(w.browser.get(&back).await.status, 400);
    let name = cookie(&sent).split_once('=').unwrap().0.to_owned();
    assert_eq!(follow(&w.browser, &back, &format!("{name}=guess")).await.status, 400);
    assert_eq!(follow(&w.browser, &back, &cookie(&sent)).await.status, 303);
    assert_eq!(follow(&w.browser, &back, &cookie(&sent)).await.status, 400);
    let denied = "/_matrix/millrace/sso/callback?error=access_denied";
    let refused = w.browser.get(denied).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text.contains("access_denied"));
    // One that takes too long is over.
    let sent = w.browser.get(&path).await;
    let back = w.provider.agree(&location(&sent));
    w.server.clock.advance(std::time::Duration::from_secs(16 * 60));
    assert_eq!(follow(&w.browser, &back, &cookie(&sent)).await.status, 400);
}

#[tokio::test]
async fn a_provider_whose_word_does_not_hold_logs_nobody_in() {
    let w = world(|_| {}).await;
    for fault in [Fault::Nonce, Fault::Audience, Fault::Key, Fault::Expired, Fault::Userinfo] {
        *w.provider.fault.lock().unwrap() = fault;
        let back = w.sign_on("https://app.test/").await;
        assert_eq!(back.status, 502, "{fault:?}: {}", back.text);
    }
    *w.provider.fault.lock().unwrap() = Fault::None;
    w.person(json!({ "sub": "1" }));
    assert_eq!(w.sign_on("https://app.test/").await.status, 502, "there is no name");
    w.person(json!({ "sub": "1", "preferred_username": "ann" }));
    assert_eq!(w.sign_on("https://app.test/").await.status, 303);
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_on_a_page() {
    let down = "http://127.0.0.1:1".to_owned();
    let w = world(|config| config.sso.sso_providers[0].issuer.clone_from(&down)).await;
    let path = format!("{V3}/login/sso/redirect/corp?redirectUrl=https%3A%2F%2Fapp.test");
    w.browser.get(&path).await.says(502, "The identity provider cannot be used.");
}

#[tokio::test]
async fn accounts_are_taken_over_only_where_that_is_configured() {
    let w = world(|config| config.sso.sso_providers[0].enable_registration = false).await;
    w.server.register("ann").await;
    assert_eq!(w.sign_on("https://app.test/").await.status, 403);
    let w = world(|config| config.sso.sso_providers[0].allow_existing_users = true).await;
    w.server.register("ann").await;
    assert_eq!(w.log_in("https://app.test/").await["user_id"], "@ann:test");
}

#[tokio::test]
async fn who_has_no_password_confirms_by_signing_on() {
    let w = world(|_| {}).await;
    let session = w.log_in("https://app.test/").await;
    let ann = w.server.client().with_session(&session);
    w.log_in("https://app.test/").await;
    let path = format!("{V3}/delete_devices");
    let mut body = json!({ "devices": [ann.device()] });
    let asked = ann.post(&path, body.clone()).await;
    let flows = json!([{ "stages": ["m.login.password"] }, { "stages": ["m.login.sso"] }]);
    assert_eq!(asked.body["flows"], flows);
    let dialogue = asked.body["session"].as_str().unwrap().to_owned();
    body["auth"] = json!({ "session": dialogue });
    assert_eq!(ann.post(&path, body.clone()).await.status, 401);

    let fallback = format!("{V3}/auth/m.login.sso/fallback/web?session={dialogue}");
    let page = w.browser.get(&fallback).await;
    let link = page.text.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    let link = link.replace("&amp;", "&");
    let confirm = async || {
        let sent = w.browser.get(&link).await;
        let back = w.provider.agree(&location(&sent));
        follow(&w.browser, &back, &cookie(&sent)).await
    };
    // Somebody else cannot confirm it.
    let ann_there = w.provider.person.lock().unwrap().clone();
    w.person(json!({ "sub": "9", "preferred_username": "eve" }));
    assert_eq!(confirm().await.status, 403);
    w.person(ann_there);
    let done = confirm().await;
    assert!(done.text.contains("onAuthDone"), "{}", done.text);
    ann.post(&path, body).await.ok();
}

#[tokio::test]
async fn several_providers_are_a_choice() {
    let w = world(|config| {
        let other = SsoProvider {
            id: "other".to_owned(),
            name: "<Other>".to_owned(),
            ..config.sso.sso_providers[0].clone()
        };
        config.sso.sso_providers.push(other);
    })
    .await;
    let path = format!("{V3}/login/sso/redirect?redirectUrl=https%3A%2F%2Fapp.test");
    let page = w.browser.get(&path).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("redirect/corp?") && page.text.contains("&lt;Other&gt;"));

    // The page to log in on has the same choice; where it leads back to says its script.
    let page = w.browser.get("/_matrix/static/client/login/").await;
    for (id, name) in [("corp", "Corp"), ("other", "&lt;Other&gt;")] {
        let link = format!("href=\"{V3}/login/sso/redirect/{id}\">Log in with {name}</a>");
        page.says(200, &link);
    }
}

#[tokio::test]
async fn who_is_erased_is_not_known_to_the_provider_s_word_any_more() {
    let w = world(|config| config.sso.sso_providers[0].allow_existing_users = true).await;
    w.server.register("ann").await;
    let session = w.log_in("https://app.test/").await;
    let ann = w.server.client().with_session(&session);
    let export = ann.text("/_millrace/admin/v1/users/@ann:test/export").await;
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let link = lines.into_iter().find(|line| line["kind"] == "single_sign_on").unwrap();
    assert_eq!(link["data"], json!({ "provider": "corp", "subject": "1" }));
    let identifier = json!({ "type": "m.id.user", "user": "ann" });
    let auth = json!({
        "type": "m.login.password", "identifier": identifier, "password": "password",
    });
    let body = json!({ "auth": auth, "erase": true });
    ann.post(&format!("{V3}/account/deactivate"), body).await.ok();
    // The name stays taken, and is nobody's.
    assert_eq!(w.sign_on("https://app.test/").await.status, 403);
    w.person(json!({ "sub": "1", "preferred_username": "anna" }));
    assert_eq!(w.log_in("https://app.test/").await["user_id"], "@anna:test");
}
