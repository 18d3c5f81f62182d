use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use ruma::OwnedServerName;
use serde_json::json;

use super::{
    test_servers::{Body, TestInternet, authority},
    *,
};
use crate::testing::{TestClock, TestRandom};

struct World {
    internet: Arc<TestInternet>,
    clock: Arc<TestClock>,
    transport: HttpTransport,
}

fn world() -> World {
    let (internet, clock) = (Arc::<TestInternet>::default(), Arc::<TestClock>::default());
    let refused = ["127.0.0.0/8", "10.0.0.0/8", "::1"].map(|range| range.parse().unwrap());
    let transport = HttpTransport::new(HttpSettings {
        internet: internet.clone(),
        clock: clock.clone(),
        random: Arc::new(TestRandom),
        addresses: AddressPolicy { refused: refused.to_vec(), allowed: Vec::new() },
        authorities: vec![authority()],
    });
    World { internet, clock, transport: transport.unwrap() }
}

fn text(text: impl Into<String>) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text.into())).map_err(|never| match never {}).boxed())
}

/// Says how it was called: `Host`, or its name in HTTP/2.
fn echo(request: &Request<Incoming>) -> Response<Body> {
    let host = request.uri().authority().map(ToString::to_string);
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap().to_owned());
    text(format!("{} {}", host.or(header).unwrap(), request.uri().path()))
}

fn delegation(to: &str) -> impl Fn(Request<Incoming>) -> Response<Body> + Send + Sync + 'static {
    let body = json!({ "m.server": to }).to_string();
    move |request| {
        assert_eq!(request.uri().path(), "/.well-known/matrix/server");
        text(body.clone())
    }
}

impl World {
    async fn server(&self, at: &str, name: &str) {
        self.internet.serve(at, name, |request| echo(&request)).await;
    }

    async fn ask_within(
        &self,
        server: &str,
        limits: ExchangeLimits,
    ) -> Result<String, TransportError> {
        let server: OwnedServerName = server.try_into().unwrap();
        let request = Request::get("/x?y=z").body(Bytes::new()).unwrap();
        let answer = self.transport.exchange(&server, request, limits).await?;
        Ok(String::from_utf8_lossy(answer.body()).into_owned())
    }

    async fn ask(&self, server: &str) -> Result<String, TransportError> {
        self.ask_within(server, ExchangeLimits::default()).await
    }

    fn connected(&self) -> Vec<String> {
        self.internet.connected.lock().iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn an_ip_literal_is_connected_to_and_proves_its_address() {
    let world = world();
    world.server("9.9.9.1:8448", "9.9.9.1").await;
    world.server("9.9.9.1:1234", "9.9.9.1").await;
    world.server("[2620:fe::9]:8448", "2620:fe::9").await;
    assert_eq!(world.ask("9.9.9.1").await.unwrap(), "9.9.9.1 /x");
    assert_eq!(world.ask("9.9.9.1:1234").await.unwrap(), "9.9.9.1:1234 /x");
    assert_eq!(world.ask("[2620:fe::9]").await.unwrap(), "[2620:fe::9] /x");
}

#[tokio::test]
async fn a_name_with_a_port_is_looked_up_and_proves_its_name() {
    let world = world();
    world.internet.host("one.example", &["9.9.9.9", "9.9.9.1"]);
    world.internet.service("_matrix-fed._tcp.one.example", (0, 0, "elsewhere", 1));
    world.server("9.9.9.1:443", "one.example").await;
    assert_eq!(world.ask("one.example:443").await.unwrap(), "one.example:443 /x");
    assert_eq!(world.connected(), ["9.9.9.9:443", "9.9.9.1:443"], "the first does not answer");
}

#[tokio::test]
async fn delegation_is_followed_to_an_address_a_port_and_a_service() {
    for (delegate, at, host) in [
        ("9.9.9.2", "9.9.9.2:8448", "9.9.9.2"),
        ("9.9.9.2:99", "9.9.9.2:99", "9.9.9.2"),
        ("two.example:99", "9.9.9.2:99", "two.example"),
        ("two.example", "9.9.9.2:8448", "two.example"),
        ("fed.example", "9.9.9.3:77", "fed.example"),
        ("old.example", "9.9.9.3:88", "old.example"),
    ] {
        let world = world();
        world.internet.host("one.example", &["9.9.9.1"]);
        world.internet.host("two.example", &["9.9.9.2"]);
        world.internet.host("srv.example", &["9.9.9.3"]);
        world.internet.service("_matrix-fed._tcp.fed.example", (1, 0, "srv.example", 77));
        world.internet.service("_matrix-fed._tcp.fed.example", (2, 0, "two.example", 1));
        world.internet.service("_matrix._tcp.fed.example", (0, 0, "two.example", 2));
        world.internet.service("_matrix._tcp.old.example", (0, 0, "srv.example", 88));
        world.internet.serve("9.9.9.1:443", "one.example", delegation(delegate)).await;
        world.server(at, host).await;
        assert_eq!(world.ask("one.example").await.unwrap(), format!("{delegate} /x"));
        assert_eq!(world.connected(), ["9.9.9.1:443", at]);
    }
}

#[tokio::test]
async fn without_delegation_services_and_then_the_usual_port_are_tried() {
    for (service, at) in [
        (Some("_matrix-fed._tcp.one.example"), "9.9.9.3:77"),
        (Some("_matrix._tcp.one.example"), "9.9.9.3:77"),
        (None, "9.9.9.1:8448"),
    ] {
        let world = world();
        world.internet.host("one.example", &["9.9.9.1"]);
        world.internet.host("srv.example", &["9.9.9.3"]);
        if let Some(name) = service {
            world.internet.service(name, (0, 5, "srv.example", 77));
        }
        world.server(at, "one.example").await;
        assert_eq!(world.ask("one.example").await.unwrap(), "one.example /x", "{at}");
        assert_eq!(world.connected(), ["9.9.9.1:443", at]);
    }
}

#[tokio::test]
async fn a_certificate_of_another_name_or_authority_is_refused() {
    let world = world();
    world.internet.host("one.example", &["9.9.9.1"]);
    world.internet.host("srv.example", &["9.9.9.3"]);
    world.internet.service("_matrix-fed._tcp.one.example", (0, 5, "srv.example", 77));
    world.server("9.9.9.3:77", "srv.example").await;
    assert!(matches!(world.ask("one.example").await, Err(TransportError::Unreachable(_))));
    world.server("9.9.9.3:77", "one.example").await;
    world.ask("one.example").await.unwrap();
    let strict = HttpTransport::new(HttpSettings {
        internet: world.internet.clone(),
        clock: world.clock.clone(),
        random: Arc::new(TestRandom),
        addresses: AddressPolicy::default(),
        authorities: Vec::new(),
    });
    let strict = World { transport: strict.unwrap(), ..world };
    assert!(matches!(strict.ask("one.example").await, Err(TransportError::Unreachable(_))));
}

#[tokio::test]
async fn no_way_leads_to_an_address_of_ours() {
    let world = world();
    let refused = async |server: &str| match world.ask(server).await {
        Err(TransportError::Unresolved(reason)) => assert!(reason.contains("not an address")),
        other => panic!("{server}: {other:?}"),
    };
    world.internet.host("inner.example", &["127.0.0.1", "::ffff:10.0.0.1"]);
    world.internet.host("mixed.example", &["10.0.0.1", "9.9.9.1"]);
    for server in ["127.0.0.1", "127.0.0.1:8448", "[::1]", "inner.example:1", "inner.example"] {
        refused(server).await;
    }
    for delegate in ["127.0.0.1:8008", "inner.example:1", "inner.example", "srv.example"] {
        let name = format!("d{}.example", delegate.len());
        world.internet.host(&name, &["9.9.9.8"]);
        world.internet.service("_matrix-fed._tcp.srv.example", (0, 0, "inner.example", 1));
        world.internet.serve("9.9.9.8:443", &name, delegation(delegate)).await;
        refused(&name).await;
    }
    assert!(world.connected().iter().all(|address| address == "9.9.9.8:443"));
    world.server("9.9.9.1:1", "mixed.example").await;
    world.ask("mixed.example:1").await.unwrap();
    assert!(!world.connected().contains(&"10.0.0.1:1".to_owned()));
}

fn redirect(to: &'static str) -> Response<Body> {
    let mut answer = text("");
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    answer
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_over_https_and_to_public_addresses() {
    for (to, followed) in [
        ("https://www.example/there", true),
        ("/.well-known/matrix/server", false),
        ("http://www.example/there", false),
        ("https://127.0.0.1/there", false),
        ("https://inner.example/there", false),
    ] {
        let world = world();
        world.internet.host("one.example", &["9.9.9.1"]);
        world.internet.host("www.example", &["9.9.9.4"]);
        world.internet.host("inner.example", &["127.0.0.1"]);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let answer = move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            redirect(to)
        };
        world.internet.serve("9.9.9.1:443", "one.example", answer).await;
        let page = |_| text(r#"{"m.server":"9.9.9.2"}"#);
        world.internet.serve("9.9.9.4:443", "www.example", page).await;
        world.server("9.9.9.2:8448", "9.9.9.2").await;
        world.server("9.9.9.1:8448", "one.example").await;
        let expected = if followed { "9.9.9.2 /x" } else { "one.example /x" };
        assert_eq!(world.ask("one.example").await.unwrap(), expected, "{to}");
        assert!(count.load(Ordering::Relaxed) <= 6);
        assert!(world.connected().iter().all(|address| !address.starts_with("127.")));
    }
}

#[tokio::test]
async fn a_delegation_is_remembered_for_as_long_as_it_says_and_a_failure_for_a_while() {
    let world = world();
    world.internet.host("one.example", &["9.9.9.1"]);
    world.server("9.9.9.2:8448", "9.9.9.2").await;
    world.server("9.9.9.1:8448", "one.example").await;
    let asked = async |minutes: u64| {
        world.clock.advance(Duration::from_secs(minutes * 60));
        world.internet.connected.lock().clear();
        world.ask("one.example").await.unwrap();
        world.connected().contains(&"9.9.9.1:443".to_owned())
    };
    assert!(asked(0).await, "the first failure is good for a minute");
    assert!(!asked(0).await);
    assert!(asked(1).await, "the second one for two");
    assert!(!asked(1).await);
    let page = |_| {
        let mut answer = text(r#"{"m.server":"9.9.9.2"}"#);
        let control = HeaderValue::from_static("public, max-age=3600");
        answer.headers_mut().insert(header::CACHE_CONTROL, control);
        answer
    };
    world.internet.serve("9.9.9.1:443", "one.example", page).await;
    assert!(asked(1).await);
    assert!(!asked(59).await);
    assert_eq!(world.ask("one.example").await.unwrap(), "9.9.9.2 /x");
    let waiting = (0..20).map(|_| world.ask("one.example"));
    assert!(futures::future::join_all(waiting).await.into_iter().all(|answer| answer.is_ok()));
}

#[test]
fn how_long_an_answer_is_good_stays_between_bounds() {
    let good_for = |headers: &[(&str, &str)]| {
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.insert(name, value.parse().unwrap());
        }
        crate::well_known::good_for(&map).as_secs()
    };
    assert_eq!(good_for(&[]), 24 * 3600);
    assert_eq!(good_for(&[("cache-control", "max-age=7200")]), 7200);
    assert_eq!(good_for(&[("cache-control", "max-age=1")]), 300);
    assert_eq!(good_for(&[("cache-control", "no-store")]), 300);
    assert_eq!(good_for(&[("cache-control", "max-age=99999999")]), 48 * 3600);
    let dates =
        [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("expires", "Wed, 21 Oct 2015 09:28:00 GMT")];
    assert_eq!(good_for(&dates), 7200);
}

#[tokio::test]
async fn an_answer_without_end_or_without_progress_is_cut_off() {
    let world = world();
    let endless = |_| {
        let chunk = || Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[b' '; 10_000])));
        Response::new(StreamBody::new(stream::repeat_with(chunk)).boxed())
    };
    world.internet.serve("9.9.9.1:8448", "9.9.9.1", endless).await;
    assert!(matches!(world.ask("9.9.9.1").await, Err(TransportError::TooLarge(_))));
    let silent = |_| Response::new(StreamBody::new(stream::pending()).boxed());
    world.internet.serve("9.9.9.2:8448", "9.9.9.2", silent).await;
    let short = ExchangeLimits { timeout: Duration::from_millis(200), ..ExchangeLimits::default() };
    let answer = world.ask_within("9.9.9.2", short).await;
    assert!(matches!(answer, Err(TransportError::TimedOut(_))));
    assert!(matches!(world.ask("9.9.9.3").await, Err(TransportError::Unreachable(_))));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let world = world();
    world.server("9.9.9.1:8448", "9.9.9.1").await;
    for _ in 0..20 {
        world.ask("9.9.9.1").await.unwrap();
    }
    assert_eq!(world.connected().len(), 1);
}
