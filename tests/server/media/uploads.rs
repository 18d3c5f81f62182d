//! Uploads and downloads: limits, ranges, retention, and what is hostile.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use millrace_test_support::TestServer;
use serde_json::json;

use super::{UPLOAD, download, header, read, refused, upload};

#[tokio::test]
async fn what_is_uploaded_is_downloaded_by_whoever_has_an_account() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let medium = upload(&alice, "?filename=a%20b.png", "image/png", "content").await;
    let answer = download(&bob, &medium).await;
    assert_eq!(answer.body(), "content");
    assert_eq!(header(&answer, "content-type"), "image/png");
    assert_eq!(header(&answer, "content-disposition"), "inline; filename=\"a b.png\"");
    assert_eq!(header(&answer, "content-length"), "7");
    assert!(header(&answer, "content-security-policy").starts_with("sandbox; default-src 'none'"));
    assert_eq!(header(&answer, "cross-origin-resource-policy"), "cross-origin");
    assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
    refused(&download(&server.client(), &medium).await, 401, "M_MISSING_TOKEN");
    let named =
        read(&bob, &format!("/_matrix/client/v1/media/download/{medium}/c.html"), &[]).await;
    assert_eq!(header(&named, "content-disposition"), "inline; filename=c.html");
}

#[tokio::test]
async fn what_could_run_in_a_browser_is_an_attachment() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    for kind in ["text/html", "image/svg+xml", "application/octet-stream", "application/pdf"] {
        let medium = upload(&alice, "", kind, "<script>alert(1)</script>").await;
        let answer = download(&alice, &medium).await;
        assert_eq!(header(&answer, "content-disposition"), "attachment", "{kind}");
    }
    let medium = upload(&alice, "", "", "GIF89a<script>alert(1)</script>").await;
    let answer = download(&alice, &medium).await;
    assert_eq!(header(&answer, "content-type"), "application/octet-stream", "nobody guesses");
}

#[tokio::test]
async fn a_range_is_a_part_and_what_is_known_is_not_sent_again() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let content: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[0] ^ 7).collect();
    let medium = upload(&alice, "", "video/mp4", content.clone()).await;
    let path = format!("/_matrix/client/v1/media/download/{medium}");
    let whole = read(&alice, &path, &[]).await;
    assert!(*whole.body() == content);
    let part = read(&alice, &path, &[("range", "bytes=300000-599999")]).await;
    assert_eq!(part.status(), 206);
    assert_eq!(header(&part, "content-range"), "bytes 300000-599999/700000");
    assert!(part.body() == &content[300_000..600_000]);
    let beyond = read(&alice, &path, &[("range", "bytes=700000-")]).await;
    assert_eq!(
        (beyond.status().as_u16(), header(&beyond, "content-range")),
        (416, "bytes */700000")
    );
    let tag = header(&whole, "etag");
    let known = read(&alice, &path, &[("if-none-match", tag)]).await;
    assert_eq!((known.status().as_u16(), known.body().len()), (304, 0));
    let head = alice.send_raw(Method::HEAD, &path, &[], Body::empty()).await;
    assert_eq!((header(&head, "content-length"), head.body().len()), ("700000", 0));
}

#[tokio::test]
async fn an_upload_passes_the_limit_of_json_and_has_its_own() {
    let mut config = TestServer::config();
    config.limits.max_request_size = 131_072;
    config.media.upload_bytes_max = 3_000_000;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let config = alice.get("/_matrix/client/v1/media/config").await.ok();
    assert_eq!(config, json!({ "m.upload.size": 3_000_000 }));
    assert_eq!(alice.get("/_matrix/media/v3/config").await.ok(), config);
    let medium = upload(&alice, "", "text/plain", vec![b'x'; 3_000_000]).await;
    assert_eq!(download(&alice, &medium).await.body().len(), 3_000_000);
    let announced = [("content-length", "3000001")];
    let large = alice.send_raw(Method::POST, UPLOAD, &announced, Body::empty()).await;
    refused(&large, 413, "M_TOO_LARGE");
    let chunks = (0..31).map(|_| Ok::<_, Infallible>(Bytes::from(vec![0; 100_000])));
    let endless = Body::from_stream(futures::stream::iter(chunks));
    refused(&alice.send_raw(Method::POST, UPLOAD, &[], endless).await, 413, "M_TOO_LARGE");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let chunks = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let broken = Body::from_stream(futures::stream::iter(chunks));
    refused(&alice.send_raw(Method::POST, UPLOAD, &[], broken).await, 400, "M_UNKNOWN");
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    assert!(!folder.path().join("files").exists());
}

#[tokio::test]
async fn names_of_media_are_no_paths() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    for id in ["..%2F..%2Fconduit.toml", "%2e%2e", "a%00b", "%2Fetc%2Fpasswd", "a.b", "%C3%A9"] {
        for path in ["/_matrix/client/v1/media/download/test", "/_matrix/media/v3/download/test"] {
            let answer = read(&alice, &format!("{path}/{id}"), &[]).await;
            refused(&answer, 400, "M_INVALID_PARAM");
        }
    }
    let wrong_server = "/_matrix/client/v1/media/download/..%2Fa/x";
    refused(&read(&alice, wrong_server, &[]).await, 400, "M_INVALID_PARAM");
    refused(&download(&alice, "test/unknown").await, 404, "M_NOT_FOUND");
    let long = format!("?filename={}", "x".repeat(300));
    let answer = alice.send_raw(Method::POST, &format!("{UPLOAD}{long}"), &[], Body::empty()).await;
    refused(&answer, 400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn a_created_medium_is_uploaded_later_once_by_its_creator() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let created = alice.post("/_matrix/media/v1/create", json!({})).await.ok();
    assert!(created["unused_expires_at"].is_u64());
    let medium =
        created["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let to = format!("{UPLOAD}/{medium}");
    let path = format!("/_matrix/client/v1/media/download/{medium}?timeout_ms=0");
    refused(&read(&alice, &path, &[]).await, 504, "M_NOT_YET_UPLOADED");
    let by_bob = bob.send_raw(Method::PUT, &to, &[], "x".into()).await;
    refused(&by_bob, 403, "M_FORBIDDEN");
    // Who waits gets it as soon as it is there.
    let waiting = tokio::spawn({
        let (bob, medium) = (bob.clone(), medium.clone());
        async move { download(&bob, &medium).await }
    });
    tokio::task::yield_now().await;
    let kind = [("content-type", "text/plain")];
    let put = alice.send_raw(Method::PUT, &to, &kind, "content".into()).await;
    assert_eq!(put.status(), 200);
    assert_eq!(waiting.await.unwrap().body(), "content");
    let again = alice.send_raw(Method::PUT, &to, &[], Body::empty()).await;
    refused(&again, 409, "M_CANNOT_OVERWRITE_MEDIA");
    let unknown = format!("{UPLOAD}/test/unknown");
    refused(&alice.send_raw(Method::PUT, &unknown, &[], Body::empty()).await, 404, "M_NOT_FOUND");
}

#[tokio::test]
async fn created_media_expire_and_are_limited() {
    let mut config = TestServer::config();
    config.media.pending_max = 2;
    config.media.pending_lifetime_s = 60;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let create = async || alice.post("/_matrix/media/v1/create", json!({})).await;
    let first = create().await.ok();
    create().await.ok();
    create().await.refused(429, "M_LIMIT_EXCEEDED");
    server.clock.advance(Duration::from_mins(1));
    let medium = first["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    refused(&download(&alice, &medium).await, 404, "M_NOT_FOUND");
    let late = alice.send_raw(Method::PUT, &format!("{UPLOAD}/{medium}"), &[], "x".into()).await;
    refused(&late, 404, "M_NOT_FOUND");
    create().await.ok();
    server.media.step().await.unwrap();
    let late = alice.send_raw(Method::PUT, &format!("{UPLOAD}/{medium}"), &[], "x".into()).await;
    refused(&late, 404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_freeze_closes_the_deprecated_endpoints_to_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let engine = std::sync::Arc::new(millrace_store::engine::MemoryEngine::new());
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    config.media.freeze_legacy_endpoints = false;
    let server = TestServer::start_on(engine.clone(), &config, Default::default()).await;
    let alice = server.register("alice").await;
    let old = upload(&alice, "", "text/plain", "old").await;
    let legacy = |medium: &str| format!("/_matrix/media/v3/download/{medium}");
    assert_eq!(read(&server.client(), &legacy(&old), &[]).await.body(), "old");
    server.stop().await;

    config.media.freeze_legacy_endpoints = true;
    let server = TestServer::start_on(engine, &config, Default::default()).await;
    let alice = alice.on(&server);
    let new = upload(&alice, "", "text/plain", "new").await;
    assert_eq!(read(&server.client(), &legacy(&old), &[]).await.body(), "old");
    refused(&read(&server.client(), &legacy(&new), &[]).await, 404, "M_NOT_FOUND");
    assert_eq!(download(&alice, &new).await.body(), "new");
}

#[tokio::test]
async fn a_quota_bounds_what_a_user_has() {
    let mut config = TestServer::config();
    config.media.user_bytes_max = 10;
    config.media.user_files_max = 2;
    let server = TestServer::start_with(&config).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    upload(&alice, "", "text/plain", "123456").await;
    let more = alice.send_raw(Method::POST, UPLOAD, &[], "12345".into()).await;
    refused(&more, 403, "M_FORBIDDEN");
    upload(&alice, "", "text/plain", "1").await;
    let more = alice.send_raw(Method::POST, UPLOAD, &[], "1".into()).await;
    refused(&more, 403, "M_FORBIDDEN");
    upload(&bob, "", "text/plain", "123456").await;
}

#[tokio::test]
async fn media_that_nobody_asks_for_go_and_their_files_with_the_last_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    config.media.local_lifetime_days = 10;
    config.media.user_files_max = 2;
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let (kept, gone) =
        (upload(&alice, "", "a/a", "same").await, upload(&alice, "", "b/b", "same").await);
    server.clock.advance(Duration::from_hours(8 * 24));
    assert_eq!(download(&alice, &kept).await.body(), "same");
    server.clock.advance(Duration::from_hours(4 * 24));
    server.media.step().await.unwrap();
    refused(&download(&alice, &gone).await, 404, "M_NOT_FOUND");
    assert_eq!(download(&alice, &kept).await.body(), "same", "one file, two media");
    upload(&alice, "", "a/a", "another, in place of the one that is gone").await;
    server.clock.advance(Duration::from_hours(20 * 24));
    server.media.step().await.unwrap();
    refused(&download(&alice, &kept).await, 404, "M_NOT_FOUND");
    assert_eq!(files_below(&folder.path().join("files")), 0);
    // What is removed can be uploaded again.
    let again = upload(&alice, "", "a/a", "same").await;
    assert_eq!(download(&alice, &again).await.body(), "same");
}

pub(crate) fn files_below(folder: &std::path::Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[tokio::test]
async fn what_a_process_that_died_left_of_uploads_is_put_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = TestServer::config();
    config.media.path = Some(folder.path().to_owned());
    let server = TestServer::start_with(&config).await;
    let alice = server.register("alice").await;
    let medium = upload(&alice, "", "a/a", "acknowledged").await;
    upload(&alice, "", "a/a", "lost").await;
    // As if the process had died before the second upload was committed, and before the first one's
    // incoming file was removed.
    let incoming = folder.path().join("incoming");
    for content in ["acknowledged", "never committed"] {
        let hash = blake3::hash(content.as_bytes()).to_hex();
        std::fs::write(incoming.join(format!("{hash}.abc.whole")), content).unwrap();
        let place = folder.path().join("files").join(&hash[..2]).join(&hash[2..4]);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(hash.as_str()), content).unwrap();
    }
    std::fs::write(incoming.join("half"), "half").unwrap();
    server.media.recover().await.unwrap();
    assert!(!incoming.exists());
    assert_eq!(files_below(&folder.path().join("files")), 2);
    assert_eq!(download(&alice, &medium).await.body(), "acknowledged");
}
