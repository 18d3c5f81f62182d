//! Media of other servers: between two of ours, from older ones, from elsewhere, and from hostile
//! ones.

use std::sync::atomic::Ordering;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::LOCATION};
use image::ImageFormat;
use millrace_test_support::{Network, TestServer};

use super::{download, header, host, read, refused, thumbnails::picture, upload};

const NEW: &str = "/_matrix/federation/v1/media/download/";
const OLD: &str = "/_matrix/media/v3/download/";

fn in_parts(file: &[u8]) -> Response {
    let head = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\n";
    let body = [&head[..], file, b"\r\n--x--\r\n"].concat();
    ([("content-type", "multipart/mixed; boundary=x")], body).into_response()
}

#[tokio::test]
async fn media_and_thumbnails_of_another_server_are_fetched_once_and_kept() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let content = picture(500, 500, ImageFormat::Png);
    let medium = upload(&alice, "?filename=%C3%BC.png", "image/png", content.clone()).await;
    let answer = download(&bob, &medium).await;
    assert!(*answer.body() == content);
    assert_eq!(header(&answer, "content-type"), "image/png");
    assert_eq!(header(&answer, "content-disposition"), "inline; filename*=utf-8''%C3%BC.png");
    network.leave("one");
    assert!(*download(&bob, &medium).await.body() == content, "it was kept");
    let path = format!("/_matrix/client/v1/media/thumbnail/{medium}?width=32&height=32");
    assert_eq!(read(&bob, &path, &[]).await.status(), 200);
    let legacy = format!("{OLD}{medium}");
    refused(&read(&bob, &legacy, &[]).await, 404, "M_NOT_FOUND");
    let other = download(&bob, "one/neverseen").await;
    refused(&other, 502, "M_UNKNOWN");
}

#[tokio::test]
async fn what_another_server_does_not_have_or_has_not_yet_is_said() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    refused(&download(&bob, "one/unknown").await, 404, "M_NOT_FOUND");
    let created = alice.post("/_matrix/media/v1/create", serde_json::json!({})).await.ok();
    let medium = created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap();
    let path = format!("/_matrix/client/v1/media/download/{medium}?timeout_ms=0");
    refused(&read(&bob, &path, &[]).await, 504, "M_NOT_YET_UPLOADED");
}

#[tokio::test]
async fn a_server_of_before_1_11_is_asked_by_the_endpoint_that_it_has() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let alice = one.register("alice").await;
    host(&network, "old", |path| {
        let headers =
            [("content-type", "text/plain"), ("content-disposition", "inline; filename=a")];
        (path == format!("{OLD}old/x")).then(|| (headers, "content").into_response())
    });
    let answer = download(&alice, "old/x").await;
    assert_eq!(answer.body(), "content");
    assert_eq!(header(&answer, "content-disposition"), "inline; filename=a");
}

#[tokio::test]
async fn a_location_is_followed_over_redirects_to_where_the_file_is() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let alice = one.register("alice").await;
    host(&network, "peer", |path| {
        let id = path.strip_prefix(NEW)?;
        Some(in_parts(format!("Location: https://cdn/{id}\r\n\r\n").as_bytes()))
    });
    let asked = host(&network, "cdn", |path| match path {
        "/good" => Some((StatusCode::FOUND, [(LOCATION, "/file")]).into_response()),
        "/file" => Some(([("content-type", "image/png")], "picture").into_response()),
        "/loop" => Some((StatusCode::FOUND, [(LOCATION, "/loop")]).into_response()),
        "/file_scheme" => {
            Some((StatusCode::FOUND, [(LOCATION, "file:///etc/passwd")]).into_response())
        }
        _ => None,
    });
    let answer = download(&alice, "peer/good").await;
    assert_eq!(
        (answer.body().as_ref(), header(&answer, "content-type")),
        (&b"picture"[..], "image/png")
    );
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    for wrong in ["loop", "file_scheme", "absent"] {
        refused(&download(&alice, &format!("peer/{wrong}")).await, 502, "M_UNKNOWN");
    }
    assert!(asked.load(Ordering::Relaxed) < 15, "a loop ends");
}

#[tokio::test]
async fn hostile_answers_are_refused_and_nothing_is_kept() {
    let network = Network::default();
    let folder = tempfile::tempdir().unwrap();
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    config.media.remote_bytes_max = 200_000;
    let one = TestServer::start_in_with(&network, "one", config).await;
    let alice = one.register("alice").await;
    host(&network, "evil", |path| {
        let large = vec![b'x'; 250_000];
        Some(match path.strip_prefix(NEW)? {
            "large" => in_parts(&[&b"Content-Type: a/b\r\n\r\n"[..], &large].concat()),
            "endless" => {
                let chunks = futures::stream::repeat_with(|| {
                    Ok::<_, std::convert::Infallible>(bytes::Bytes::from(vec![b'x'; 65_536]))
                });
                let kind = ("content-type", "multipart/mixed; boundary=x");
                ([kind], Body::from_stream(chunks)).into_response()
            }
            "half" => {
                let body = "--x\r\n\r\n{}\r\n--x\r\nContent-Type: a/b\r\n\r\nhalf a file";
                ([("content-type", "multipart/mixed; boundary=x")], body).into_response()
            }
            "plain" => ([("content-type", "image/png")], "no parts").into_response(),
            "inject" => in_parts(
                b"Content-Type: text/html\r\nContent-Disposition: inline; filename=a.html\r\n\r\n<b>",
            ),
            _ => return None,
        })
    });
    refused(&download(&alice, "evil/large").await, 502, "M_TOO_LARGE");
    refused(&download(&alice, "evil/endless").await, 502, "M_TOO_LARGE");
    for wrong in ["half", "plain"] {
        refused(&download(&alice, &format!("evil/{wrong}")).await, 502, "M_UNKNOWN");
    }
    let page = download(&alice, "evil/inject").await;
    assert_eq!(header(&page, "content-disposition"), "attachment; filename=a.html");
    assert_eq!(super::uploads::files_below(&folder.path().join("files")), 1);
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
}

#[tokio::test]
async fn other_servers_get_media_of_ours_only_with_a_signature() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let two = TestServer::start_in(&network, "two").await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let medium = upload(&alice, "", "text/plain", "content").await;
    let id = medium.strip_prefix("one/").unwrap();
    let unsigned = read(&one.client(), &format!("{NEW}{id}"), &[]).await;
    assert_eq!(unsigned.status(), 401);
    // Copies of what others have are not given on.
    assert_eq!(download(&bob, &medium).await.body(), "content");
    let three = TestServer::start_in(&network, "three").await;
    let carol = three.register("carol").await;
    let copy = format!("two/{id}");
    refused(&download(&carol, &copy).await, 404, "M_NOT_FOUND");
}

#[tokio::test]
async fn what_is_too_large_to_be_fetched_has_the_thumbnail_that_its_server_makes() {
    let network = Network::default();
    let one = TestServer::start_in(&network, "one").await;
    let mut config = TestServer::config();
    config.media.remote_bytes_max = 1000;
    let two = TestServer::start_in_with(&network, "two", config).await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let large = upload(&alice, "", "image/png", picture(500, 250, ImageFormat::Png)).await;
    refused(&download(&bob, &large).await, 502, "M_TOO_LARGE");
    let path = |medium: &str| {
        format!("/_matrix/client/v1/media/thumbnail/{medium}?width=64&height=64&method=crop")
    };
    let small = read(&bob, &path(&large), &[]).await;
    assert_eq!((small.status().as_u16(), header(&small, "content-type")), (200, "image/png"));
    let image = image::load_from_memory(small.body()).unwrap();
    assert_eq!((image.width(), image.height()), (64, 64));
    // What is no picture has none there either.
    let text = upload(&alice, "", "text/plain", "x".repeat(2000)).await;
    refused(&read(&bob, &path(&text), &[]).await, 502, "M_UNKNOWN");
}
