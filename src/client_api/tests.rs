//! What is true of every endpoint, shown on the whole router and on two endpoints of our own.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::Response,
};
use http::{Method, Request, StatusCode};
use millrace_domain::Env;
use millrace_federation::{
    addresses::AddressPolicy,
    http::{HttpSettings, HttpTransport},
    internet::SystemInternet,
};
use millrace_model::rules::room_version;
use millrace_search::index::Place;
use millrace_store::{Limits, Store, engine::MemoryEngine};
use ruma::{
    MilliSecondsSinceUnixEpoch,
    api::client::{
        account::whoami,
        discovery::discover_support,
        room::create_room,
        state::{get_state_event_for_key, send_state_event},
    },
    server_name,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    error::ApiError,
    extract::Matrix,
    limits::{EndpointClass, RateLimiter},
    router::{MatrixRouter, finish, router},
};
use crate::{
    app::App,
    config::{Config, rate_limits::Rate},
    identity,
    shutdown::Shutdown,
    system::{SystemClock, SystemRandom},
};

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Body::empty())
}

async fn json_of(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// The status, errcode and sentence of an answer, which must allow browsers.
async fn refusal(router: &Router, request: Request<Body>) -> (u16, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let status = response.status().as_u16();
    let body = json_of(response).await;
    assert!(body["error"].is_string(), "{body}");
    (status, body["errcode"].as_str().unwrap().to_owned())
}

fn expected(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

async fn app(config: &Config) -> App {
    let name = server_name!("test");
    let store = Store::open(Arc::new(MemoryEngine::new()), name, Limits::default()).await.unwrap();
    let random = Arc::new(SystemRandom);
    let identity = Arc::new(identity::load(&store, random.clone(), name, None).await.unwrap());
    let env =
        Env { store, clock: Arc::new(SystemClock), random, identity, rules: room_version::rules };
    let transport = HttpTransport::new(HttpSettings {
        internet: Arc::new(SystemInternet::new()),
        clock: env.clock.clone(),
        random: env.random.clone(),
        addresses: AddressPolicy::default(),
        authorities: Vec::new(),
    });
    let transport = Arc::new(transport.unwrap());
    App::build(config, env, transport, Place::Memory, Shutdown::default()).await.unwrap()
}

async fn whole() -> Router {
    router(app(&Config::default()).await)
}

/// Two endpoints that only echo, with tight limits.
async fn echo() -> Router {
    async fn create(
        Matrix(request): Matrix<create_room::v3::Request>,
    ) -> Result<Matrix<create_room::v3::Response>, ApiError> {
        let name = request.name.unwrap_or_else(|| "unnamed".to_owned());
        let room = format!("!{name}:test").try_into().map_err(ApiError::invalid_param)?;
        Ok(Matrix(create_room::v3::Response::new(room)))
    }
    async fn read(
        Matrix(request): Matrix<get_state_event_for_key::v3::Request>,
    ) -> Result<Matrix<get_state_event_for_key::v3::Response>, ApiError> {
        let echo = json!({ "type": request.event_type.to_string(), "key": request.state_key });
        let raw = serde_json::value::to_raw_value(&echo).map_err(ApiError::internal)?;
        Ok(Matrix(get_state_event_for_key::v3::Response::new(raw)))
    }
    async fn write(
        Matrix(request): Matrix<send_state_event::v3::Request>,
    ) -> Result<Matrix<send_state_event::v3::Response>, ApiError> {
        Err(ApiError::forbidden(request.state_key))
    }
    async fn panics(
        Matrix(_): Matrix<whoami::v3::Request>,
    ) -> Result<Matrix<whoami::v3::Response>, ApiError> {
        panic!("a handler's mistake")
    }
    async fn limited(
        State(limiter): State<Arc<RateLimiter>>,
        Matrix(_): Matrix<discover_support::Request>,
    ) -> Result<Matrix<discover_support::Response>, ApiError> {
        limiter.check(EndpointClass::Search, "me", MilliSecondsSinceUnixEpoch(0_u32.into()))?;
        Ok(Matrix(discover_support::Response::with_contacts(Vec::new())))
    }
    let mut config = Config::default();
    config.limits.max_request_size = 200;
    config.limits.limits.json_depth_max = 10;
    config.rate_limits.search = Rate { per_second: 0.4, burst: 1 };
    let routes =
        Router::new().matrix(create).matrix(read).matrix(write).matrix(panics).matrix(limited);
    finish(routes).with_state(app(&config).await)
}

const CREATE: &str = "/_matrix/client/v3/createRoom";

fn create(body: impl Into<Body>) -> Request<Body> {
    request(Method::POST, CREATE, body)
}

#[tokio::test]
async fn an_unknown_endpoint_is_unrecognized() {
    for path in
        ["/", "/_matrix/unknown", "/_matrix/client/v3/unknown", "/_matrix/client/versions/x"]
    {
        assert_eq!(
            refusal(&whole().await, get(path)).await,
            expected(404, "M_UNRECOGNIZED"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_wrong_method_is_unrecognized_with_its_own_status() {
    let wrong = request(Method::PUT, "/_matrix/client/versions", "{}");
    assert_eq!(refusal(&whole().await, wrong).await, expected(405, "M_UNRECOGNIZED"));
}

#[tokio::test]
async fn options_is_answered_everywhere_with_cors_and_without_logic() {
    for path in
        ["/_matrix/client/versions", "/_matrix/nowhere", "/_matrix/client/v3/account/whoami"]
    {
        let options = request(Method::OPTIONS, path, Body::empty());
        let response = echo().await.oneshot(options).await.unwrap();
        assert!(response.status().is_success(), "{path}");
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "GET, POST, PUT, DELETE, OPTIONS");
        assert_eq!(
            headers["access-control-allow-headers"],
            "X-Requested-With, Content-Type, Authorization"
        );
    }
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let head = request(Method::HEAD, "/_matrix/client/versions", Body::empty());
    let response = whole().await.oneshot(head).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(to_bytes(response.into_body(), 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_json_is_not_json() {
    for body in ["{", "not json", "{\"name\": }", "{\"name\":Infinity}", "{}{}", "{\"a\" 1}"] {
        assert_eq!(
            refusal(&echo().await, create(body)).await,
            expected(400, "M_NOT_JSON"),
            "{body}"
        );
    }
    let invalid_utf8 = b"{\"name\":\"a\x81\"}".to_vec();
    assert_eq!(refusal(&echo().await, create(invalid_utf8)).await, expected(400, "M_NOT_JSON"));
}

#[tokio::test]
async fn json_of_another_form_is_bad_json() {
    for body in ["[]", "17", "\"x\"", "{\"name\":{}}", "{\"invite\":[\"nobody\"]}"] {
        assert_eq!(
            refusal(&echo().await, create(body)).await,
            expected(400, "M_BAD_JSON"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn null_is_no_body() {
    for body in ["null", " null\n", ""] {
        let response = echo().await.oneshot(create(body)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{body}");
    }
}

#[tokio::test]
async fn json_nested_too_deep_is_refused_also_where_nobody_looks() {
    let deep = format!("{{\"unknown_field\":{}{}}}", "[".repeat(10), "]".repeat(10));
    assert_eq!(refusal(&echo().await, create(deep)).await, expected(400, "M_BAD_JSON"));
    let bearable = format!("{{\"unknown_field\":{}{}}}", "[".repeat(9), "]".repeat(9));
    let response = echo().await.oneshot(create(bearable)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_too_large_is_refused_announced_or_not() {
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(300));
    let mut announced = create(large.clone());
    announced.headers_mut().insert("content-length", large.len().into());
    assert_eq!(refusal(&echo().await, announced).await, expected(413, "M_TOO_LARGE"));
    let chunks = futures::stream::iter(
        large
            .into_bytes()
            .chunks(7)
            .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
            .collect::<Vec<_>>(),
    );
    let streamed = create(Body::from_stream(chunks));
    assert_eq!(refusal(&echo().await, streamed).await, expected(413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn an_empty_body_and_any_content_type_are_accepted() {
    let body = json_of(echo().await.oneshot(create(Body::empty())).await.unwrap()).await;
    assert_eq!(body, json!({ "room_id": "!unnamed:test" }));
    let mut odd = create("{\"name\":\"odd\"}");
    odd.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let body = json_of(echo().await.oneshot(odd).await.unwrap()).await;
    assert_eq!(body, json!({ "room_id": "!odd:test" }));
}

#[tokio::test]
async fn a_state_key_may_be_absent_empty_or_percent_encoded() {
    let base = "/_matrix/client/v3/rooms/!r:test/state/m.room.name";
    for (path, key) in [("", ""), ("/", ""), ("/a%2Fb%20c", "a/b c")] {
        let response = echo().await.oneshot(get(&format!("{base}{path}"))).await.unwrap();
        assert_eq!(json_of(response).await["key"], key, "{path}");
    }
}

#[tokio::test]
async fn one_path_serves_its_methods_by_different_handlers() {
    let path = "/_matrix/client/r0/rooms/!r:test/state/m.room.name/key";
    assert_eq!(echo().await.oneshot(get(path)).await.unwrap().status(), StatusCode::OK);
    let write = request(Method::PUT, path, "{}");
    assert_eq!(refusal(&echo().await, write).await, expected(403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn identifiers_that_are_too_long_or_malformed_are_refused() {
    let long = "x".repeat(256);
    let state = "/_matrix/client/v3/rooms";
    let cases = [
        (format!("{state}/!{long}:test/state/m.room.name/"), expected(400, "M_INVALID_PARAM")),
        (format!("{state}/not-a-room/state/m.room.name/"), expected(400, "M_INVALID_PARAM")),
        (format!("{state}/!r:test/state/m.room.name/{long}"), expected(413, "M_TOO_LARGE")),
        (format!("{state}/%ff/state/m.room.name/"), expected(400, "M_INVALID_PARAM")),
    ];
    for (path, refused) in cases {
        assert_eq!(refusal(&echo().await, get(&path)).await, refused, "{path}");
    }
}

#[tokio::test]
async fn a_panic_becomes_a_matrix_error() {
    let path = "/_matrix/client/v3/account/whoami";
    assert_eq!(refusal(&echo().await, get(path)).await, expected(500, "M_UNKNOWN"));
}

#[tokio::test]
async fn a_limit_tells_when_to_come_back() {
    let (router, path) = (echo().await, "/.well-known/matrix/support");
    assert_eq!(router.clone().oneshot(get(path)).await.unwrap().status(), StatusCode::OK);
    let refused = router.oneshot(get(path)).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "3");
    let body = json_of(refused).await;
    assert_eq!(
        (&body["errcode"], &body["retry_after_ms"]),
        (&json!("M_LIMIT_EXCEEDED"), &json!(2500))
    );
}

#[tokio::test]
async fn versions_end_with_the_newest_specification() {
    let response = whole().await.oneshot(get("/_matrix/client/versions")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let versions = json_of(response).await["versions"].clone();
    assert_eq!(versions.as_array().unwrap().last().unwrap(), "v1.19");
}

#[tokio::test]
async fn well_known_files_exist_only_where_configured() {
    let paths = ["client", "server", "support", "policy_server"]
        .map(|file| format!("/.well-known/matrix/{file}"));
    for path in &paths {
        assert_eq!(refusal(&whole().await, get(path)).await, expected(404, "M_NOT_FOUND"));
    }
    let mut config = Config::default();
    config.well_known.client = Some("https://matrix.example.org".to_owned());
    config.well_known.server = Some("matrix.example.org:443".to_owned());
    config.well_known.support_email = Some("admin@example.org".to_owned());
    let key = "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s";
    config.well_known.policy_server_key = Some(key.to_owned());
    let router = router(app(&config).await);
    let mut bodies = Vec::new();
    for path in &paths {
        bodies.push(json_of(router.clone().oneshot(get(path)).await.unwrap()).await);
    }
    assert_eq!(
        bodies,
        [
            json!({ "m.homeserver": { "base_url": "https://matrix.example.org" } }),
            json!({ "m.server": "matrix.example.org:443" }),
            json!({ "contacts": [{ "role": "m.role.admin", "email_address": "admin@example.org" }] }),
            json!({ "public_keys": { "ed25519": key } }),
        ]
    );
}
