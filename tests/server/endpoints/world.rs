//! A small world for each case, whose clients note what they were answered.

use std::sync::Arc;

use axum::{Json, Router, body::Body, response::IntoResponse, routing::get};
use bytes::Bytes;
use http::{Method, Request, Response};
use millrace::config::{email::Security, sso::SsoProvider};
use millrace_store::{Node, Read, Scan, tables::REPORTS};
use millrace_test_support::{
    Answer, Client, FakeAnswer, FakeServer, MailSink, Network, TestServer, TestService,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Below which most endpoints are.
const V3: &str = "/_matrix/client/v3/";
/// A host with a page, `/page`.
pub const PAGES: &str = "pages.example";

/// A request and what it was answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: Method,
    /// The path without the query.
    pub path: String,
    pub status: u16,
    pub errcode: String,
}

type Log = Arc<Mutex<Vec<Exchange>>>;

/// Two users in a public room of the first, an administrator, and somebody without an account.
pub struct World {
    pub server: TestServer,
    pub alice: User,
    pub bob: User,
    pub root: User,
    pub nobody: User,
    pub room: String,
    /// Takes the mails of the server.
    pub mail: MailSink,
    /// An application service, and a client with its token.
    pub service: TestService,
    pub bridge: User,
    /// An identity server that the server trusts, and that sends text messages for it.
    pub identity: FakeServer,
    log: Log,
}

/// A client whose exchanges are noted.
#[derive(Clone)]
pub struct User {
    client: Client,
    log: Log,
}

impl World {
    pub async fn new() -> Self {
        let mut config = TestServer::config();
        config.registration.allow_guest_registration = true;
        config.registration.registration_token = None;
        config.rooms.allow_public_rooms_without_auth = true;
        config.server_notices.localpart = Some("server".to_owned());
        config.voip.turn_uris = vec!["turn:turn.test".to_owned()];
        config.voip.turn_secret = Some("secret".to_owned());
        config.well_known.client = Some("https://test".to_owned());
        let (network, mail) = (Network::default(), MailSink::start().await);
        let identity = identity_server(&network);
        config.email.smtp_host = Some("127.0.0.1".to_owned());
        config.email.smtp_port = Some(mail.port());
        config.email.smtp_security = Security::None;
        config.email.from = Some("no-reply@test".to_owned());
        config.threepids.trusted_third_party_id_servers = vec![identity.name().to_owned()];
        config.threepids.msisdn_validation_url = Some(format!("https://{}", identity.name()));
        config.threepids.msisdn_validation_token = Some("token".to_owned());
        config.well_known.support_email = Some("help@test".to_owned());
        config.well_known.policy_server_key =
            Some("6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s".to_owned());
        let service = TestService::start("irc").await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("irc.yaml");
        std::fs::write(&path, service.registration("")).expect("it can be written");
        config.appservices.appservice_files = vec![path];
        config.media.url_previews = true;
        // The deprecated endpoints have something to serve.
        config.media.freeze_legacy_endpoints = false;
        config.sso.sso_providers = vec![identity_provider().await];
        network.enter(PAGES, pages());
        let server = TestServer::start_in_with(&network, "test", config).await;
        Self::with(server, (mail, identity, service)).await
    }

    async fn with(
        server: TestServer,
        (mail, identity, service): (MailSink, FakeServer, TestService),
    ) -> Self {
        let log = Log::default();
        let user = |client: Client| User { client, log: Arc::clone(&log) };
        let alice = user(server.register("alice").await);
        let bob = user(server.register("bob").await);
        let root = user(server.register_admin("root").await);
        let nobody = user(server.client());
        let session = json!({
            "user_id": "@irc-bot:test", "device_id": "none", "access_token": service.token(),
        });
        let bridge = user(server.client().with_session(&session));
        let body = json!({"preset": "public_chat", "name": "Room"});
        let room = alice.post("createRoom", body).await.ok()["room_id"].clone();
        let room = text(&room).to_owned();
        bob.post(&format!("rooms/{room}/join"), json!({})).await.ok();
        log.lock().clear();
        Self { server, alice, bob, root, nobody, room, mail, service, bridge, identity, log }
    }

    /// Another server, without what this one has of configuration.
    pub async fn bare() -> Self {
        let service = TestService::start("unknown").await;
        let others = (MailSink::start().await, identity_server(&Network::default()), service);
        Self::with(TestServer::start().await, others).await
    }

    /// Notes what another world was asked and answered as this one's.
    pub fn adopt(&self, other: &Self) {
        self.log.lock().extend(other.exchanges());
    }

    /// How many reports the server keeps.
    pub async fn reports(&self) -> usize {
        let snapshot = self.server.env.store.snapshot();
        snapshot.scan(&REPORTS, Node, Scan::all()).await.expect("a store").len()
    }

    /// What was asked and answered.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.log.lock().clone()
    }

    /// A client with the session that an answer tells of.
    pub fn session(&self, answer: &Value) -> User {
        User { client: self.server.client().with_session(answer), log: Arc::clone(&self.log) }
    }

    /// A path below the room.
    pub fn in_room(&self, path: &str) -> String {
        format!("rooms/{}/{path}", self.room)
    }

    /// A path of alice's own things.
    pub fn of_alice(&self, path: &str) -> String {
        format!("user/{}/{path}", self.alice.id())
    }

    /// Alice says something, and the event's ID.
    pub async fn say(&self, body: &str) -> String {
        self.send("m.room.message", json!({"msgtype": "m.text", "body": body})).await
    }

    /// Alice sends an event, and its ID.
    pub async fn send(&self, kind: &str, content: Value) -> String {
        let id = self.log.lock().len();
        let path = self.in_room(&format!("send/{kind}/txn{id}"));
        text(&self.alice.put(&path, content).await.ok()["event_id"]).to_owned()
    }

    /// What alice's room section of a whole sync is.
    pub async fn synced(&self, user: &User) -> Value {
        user.get("sync").await.ok()
    }
}

impl User {
    pub fn id(&self) -> &str {
        self.client.user().as_str()
    }

    pub fn device(&self) -> &str {
        self.client.device()
    }

    pub async fn get(&self, path: &str) -> Answer {
        let path = whole(path);
        let answer = self.client.get(&path).await;
        self.note(Method::GET, &path, answer)
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let path = whole(path);
        let answer = self.client.post(&path, body).await;
        self.note(Method::POST, &path, answer)
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        let path = whole(path);
        let answer = self.client.put(&path, body).await;
        self.note(Method::PUT, &path, answer)
    }

    pub async fn delete(&self, path: &str, body: Value) -> Answer {
        let path = whole(path);
        let answer = self.client.delete(&path, body).await;
        self.note(Method::DELETE, &path, answer)
    }

    /// Follows a link, which leads to a page.
    pub async fn follow(&self, link: &str) {
        assert_eq!(self.client.get(link).await.status, 200);
    }

    /// `GET` with a cookie, as a browser follows a redirect.
    pub async fn get_with_cookie(&self, path: &str, cookie: &str) -> Answer {
        let request = Request::get(path).header("cookie", cookie).body(Body::empty());
        let answer = self.client.request(request.expect("a valid path")).await;
        self.note(Method::GET, path, answer)
    }

    /// `GET` of content that is no JSON.
    pub async fn read(&self, path: &str) -> Response<Bytes> {
        let answer = self.client.send_raw(Method::GET, path, &[], Body::empty()).await;
        let status = answer.status().as_u16();
        self.log.lock().push(Exchange::new(Method::GET, path, status, ""));
        answer
    }

    /// Uploads content, and its name as `server/media ID`.
    pub async fn upload(&self, kind: &str, content: Vec<u8>) -> String {
        let (path, headers) = ("/_matrix/media/v3/upload", [("content-type", kind)]);
        let answer = self.client.send_raw(Method::POST, path, &headers, content.into()).await;
        let body: Value = serde_json::from_slice(answer.body()).expect("JSON");
        text(&body["content_uri"]).replace("mxc://", "")
    }

    fn note(&self, method: Method, path: &str, answer: Answer) -> Answer {
        let errcode = answer.body["errcode"].as_str().unwrap_or_default();
        let exchange = Exchange::new(method, path, answer.status.as_u16(), errcode);
        self.log.lock().push(exchange);
        answer
    }
}

impl Exchange {
    fn new(method: Method, path: &str, status: u16, errcode: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Self { method, path, status, errcode: errcode.to_owned() }
    }
}

/// A host with a page that says what it is about.
fn pages() -> Router {
    let page = async || {
        let kind = [("content-type", "text/html")];
        (kind, r#"<meta property="og:title" content="About wombles">"#).into_response()
    };
    Router::new().route("/page", get(page))
}

/// An identity provider that tells where people sign on, and nothing more.
async fn identity_provider() -> SsoProvider {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let issuer = format!("http://{}", listener.local_addr().expect("an address"));
    let metadata = Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "jwks_uri": format!("{issuer}/keys"),
    }));
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(async move || metadata))
        .route("/keys", get(async || Json(json!({"keys": []}))));
    tokio::spawn(async move { axum::serve(listener, router).await });
    SsoProvider {
        id: "corp".to_owned(),
        name: "Corp".to_owned(),
        icon: None,
        brand: None,
        issuer,
        client_id: "matrix".to_owned(),
        client_secret: None,
        scopes: vec!["openid".to_owned()],
        localpart_template: "{{ preferred_username }}".to_owned(),
        display_name_template: "{{ name }}".to_owned(),
        allow_existing_users: false,
        enable_registration: true,
    }
}

/// An identity server that says yes to everything.
fn identity_server(network: &Network) -> FakeServer {
    let identity = FakeServer::start(network, "id.example");
    let bound = json!({"medium": "email", "address": "alice@example.org"});
    for (path, answer) in [
        ("3pid/bind", bound),
        ("3pid/unbind", json!({})),
        ("validate/msisdn/requestToken", json!({"sid": "remote"})),
        ("validate/msisdn/submitToken", json!({"success": true})),
        ("hash_details", json!({"lookup_pepper": "pepper", "algorithms": ["sha256"]})),
        ("lookup", json!({"mappings": {}})),
        (
            "store-invite",
            json!({
                "token": "t0ken", "display_name": "b...@e...",
                "public_keys": [{
                    "public_key": "CGuRBdgSA5S/7mIrvPYD8ifQyCcYh4LDYPEC9fHKdCY",
                    "key_validity_url": "https://id.example/_matrix/identity/v2/pubkey/isvalid",
                }],
            }),
        ),
    ] {
        identity.answers(path, FakeAnswer::Json(answer));
    }
    identity
}

/// Paths without a slash before them are below `/_matrix/client/v3`.
fn whole(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{V3}{path}") }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The proof of who somebody is that a dialogue of user-interactive authentication wants.
pub fn auth(user: &str, password: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": password})
}

/// `auth` as the whole of a request.
pub fn proven(user: &str, password: &str) -> Value {
    json!({"auth": auth(user, password)})
}
