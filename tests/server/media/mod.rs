//! The media repository over HTTP.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod federation;
mod moderation;
mod previews;
mod thumbnails;
mod uploads;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::Request, response::IntoResponse};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use millrace_test_support::{Client, Network};
use serde_json::Value;

const UPLOAD: &str = "/_matrix/media/v3/upload";

async fn upload(client: &Client, query: &str, kind: &str, content: impl Into<Body>) -> String {
    let path = format!("{UPLOAD}{query}");
    let headers = [("content-type", kind)];
    let answer = client.send_raw(Method::POST, &path, &headers, content.into()).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    body["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned()
}

async fn download(client: &Client, medium: &str) -> Response<Bytes> {
    read(client, &format!("/_matrix/client/v1/media/download/{medium}"), &[]).await
}

async fn read(client: &Client, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    client.send_raw(Method::GET, path, headers, Body::empty()).await
}

fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
    answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

#[track_caller]
fn refused(answer: &Response<Bytes>, status: u16, errcode: &str) {
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let found = (answer.status().as_u16(), body["errcode"].as_str().unwrap_or_default());
    assert_eq!(found, (status, errcode), "{body}");
}

/// A host that answers as `script` says, by path; counts what it is asked.
fn host(
    network: &Network,
    name: &str,
    script: impl Fn(&str) -> Option<axum::response::Response> + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let (script, asked) = (Arc::new(script), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&asked);
    let answer = move |request: Request| {
        let (script, counter) = (Arc::clone(&script), Arc::clone(&counter));
        async move {
            counter.fetch_add(1, Ordering::Relaxed);
            script(request.uri().path()).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
        }
    };
    network.enter(name, Router::new().fallback(answer));
    asked
}
