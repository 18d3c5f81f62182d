//! URL previews: what pages say of themselves, and which are never fetched.

use std::sync::{Arc, atomic::Ordering};

use axum::{Router, response::IntoResponse};
use http::{StatusCode, header::LOCATION};
use image::ImageFormat;
use millrace_test_support::{Client, Network, TestServer};
use serde_json::{Value, json};

use super::{download, header, host, thumbnails::picture};

const HTML: [(&str, &str); 1] = [("content-type", "text/html; charset=utf-8")];

async fn server(network: &Network) -> TestServer {
    let mut config = TestServer::config();
    config.media.url_previews = true;
    config.media.url_preview_bytes_max = 100_000;
    TestServer::start_in_with(network, "one", config).await
}

async fn preview(client: &Client, url: &str) -> millrace_test_support::Answer {
    client.get(&format!("/_matrix/client/v1/media/preview_url?url={url}")).await
}

#[tokio::test]
async fn a_page_is_described_once_in_an_hour_with_its_image() {
    let network = Network::default();
    let one = server(&network).await;
    let alice = one.register("alice").await;
    let asked = host(&network, "pages.example", |path| {
        match path {
        "/page" => Some((StatusCode::FOUND, [(LOCATION, "/a/page")]).into_response()),
        "/a/page" => Some((HTML, r#"<meta property="og:title" content="T"><body>Text
            <meta property="og:image" content="i.png"><meta property="og:image:width" content="9">"#)
            .into_response()),
        "/a/i.png" => {
            let kind = [("content-type", "image/jpeg")];
            Some((kind, picture(60, 40, ImageFormat::Png)).into_response())
        }
        _ => None,
    }
    });
    let said = preview(&alice, "https://pages.example/page").await.ok();
    let uri = said["og:image"].as_str().unwrap().to_owned();
    let size = picture(60, 40, ImageFormat::Png).len();
    assert_eq!(
        said,
        json!({
            "og:title": "T", "og:description": "Text", "og:image": uri, "og:image:type": "image/png",
            "og:image:width": 60, "og:image:height": 40, "matrix:image:size": size,
        })
    );
    let image = download(&alice, uri.strip_prefix("mxc://").unwrap()).await;
    assert_eq!((header(&image, "content-type"), image.body().len()), ("image/png", size));
    let legacy = "/_matrix/media/v3/preview_url?url=https://pages.example/page%23part";
    assert_eq!(alice.get(legacy).await.ok()["og:title"], "T");
    assert_eq!(asked.load(Ordering::Relaxed), 3, "it is remembered");
    one.clock.advance(std::time::Duration::from_hours(1));
    one.media.step().await.unwrap();
    preview(&alice, "https://pages.example/page").await.ok();
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn oembed_fills_in_what_a_page_does_not_say() {
    let network = Network::default();
    let one = server(&network).await;
    let alice = one.register("alice").await;
    host(&network, "pages.example", |path| match path {
        "/video" => Some(
            (
                HTML,
                "<title>Plain</title><link rel=alternate href=/oembed \
            type=application/json+oembed>",
            )
                .into_response(),
        ),
        "/oembed" => {
            let answer = json!({ "type": "video", "title": "Rich", "provider_name": "P" });
            Some(answer.to_string().into_response())
        }
        _ => None,
    });
    let said = preview(&alice, "http://pages.example/video").await.ok();
    assert_eq!(said, json!({ "og:title": "Rich", "og:site_name": "P" }));
}

#[tokio::test]
async fn what_is_no_page_is_described_as_far_as_it_can_be() {
    let network = Network::default();
    let one = server(&network).await;
    let alice = one.register("alice").await;
    host(&network, "pages.example", |path| match path {
        "/i.png" => Some(
            ([("content-type", "image/png")], picture(20, 10, ImageFormat::Png)).into_response(),
        ),
        "/a.pdf" => Some(([("content-type", "application/pdf")], "%PDF").into_response()),
        "/gone.html" => {
            Some((HTML, "<title>T</title><meta property=og:image content=/404>").into_response())
        }
        "/large" => Some((HTML, "x".repeat(400_000)).into_response()),
        _ => None,
    });
    let image = preview(&alice, "https://pages.example/i.png").await.ok();
    assert_eq!((&image["og:title"], &image["og:image:width"]), (&json!("i.png"), &json!(20)));
    let file = preview(&alice, "https://pages.example/a.pdf").await.ok();
    assert_eq!(file, json!({ "og:title": "a.pdf" }));
    let page = preview(&alice, "https://pages.example/gone.html").await.ok();
    assert_eq!(page, json!({ "og:title": "T" }));
    preview(&alice, "https://pages.example/large").await.refused(502, "M_UNKNOWN");
    preview(&alice, "https://pages.example/404").await.refused(502, "M_UNKNOWN");
    preview(&alice, "https://nowhere.example/").await.refused(502, "M_UNKNOWN");
}

#[tokio::test]
async fn addresses_that_are_no_pages_and_servers_without_previews_are_refused() {
    let network = Network::default();
    let one = server(&network).await;
    let alice = one.register("alice").await;
    for wrong in [
        "",
        "nothing",
        "ftp://pages.example/",
        "file:///etc/passwd",
        "https://a:b@pages.example/",
        "data:text/html,x",
        "https://",
    ] {
        preview(&alice, wrong).await.refused(400, "M_UNKNOWN");
    }
    let none = one.client().get("/_matrix/client/v1/media/preview_url?url=https://a/").await;
    none.refused(401, "M_MISSING_TOKEN");
    let two = TestServer::start_in(&network, "two").await;
    let bob = two.register("bob").await;
    preview(&bob, "https://pages.example/").await.refused(404, "M_UNRECOGNIZED");
}

/// The way out that the real server has, with addresses of this machine refused as by default.
#[tokio::test]
async fn private_addresses_are_never_connected_to_also_not_by_a_redirect() {
    use millrace_domain::Env;
    use millrace_federation::{
        Transport,
        http::{HttpSettings, HttpTransport},
        internet::SystemInternet,
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = TestServer::config();
    config.media.url_previews = true;
    let network = Network::default();
    let outer = TestServer::start_in(&network, "outer").await;
    let Env { clock, random, .. } = outer.env.clone();
    let transport = |whitelist: &[&str]| -> Arc<dyn Transport> {
        let mut policy = config.federation.clone();
        policy.ip_range_whitelist = whitelist.iter().map(|&range| range.to_owned()).collect();
        let settings = HttpSettings {
            internet: Arc::new(SystemInternet::new()),
            clock: clock.clone(),
            random: random.clone(),
            addresses: policy.address_policy(),
            authorities: Vec::new(),
        };
        Arc::new(HttpTransport::new(settings).unwrap())
    };
    let start = async |transport| {
        let engine = Arc::new(millrace_store::engine::MemoryEngine::new());
        TestServer::start_between(engine, &config, Default::default(), transport).await
    };
    let redirect = move || async move {
        (StatusCode::FOUND, [(LOCATION, format!("http://127.0.0.2:{port}/inner"))])
    };
    let router = Router::new()
        .route("/inner", axum::routing::get(async || (HTML, "<title>Secret</title>")))
        .route("/", axum::routing::get(redirect));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let closed = start(transport(&[])).await;
    let alice = closed.register("alice").await;
    for address in [
        format!("http://127.0.0.1:{port}/inner"),
        format!("http://localhost:{port}/inner"),
        format!("http://[::ffff:127.0.0.1]:{port}/inner"),
        format!("http://2130706433:{port}/inner"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        preview(&alice, &address).await.refused(502, "M_UNKNOWN");
    }
    // With one address allowed, a redirect to another is still refused.
    let half = start(transport(&["127.0.0.1/32"])).await;
    let alice = half.register("alice").await;
    let direct = preview(&alice, &format!("http://127.0.0.1:{port}/inner")).await.ok();
    assert_eq!(direct["og:title"], Value::from("Secret"));
    preview(&alice, &format!("http://127.0.0.1:{port}/")).await.refused(502, "M_UNKNOWN");
}
