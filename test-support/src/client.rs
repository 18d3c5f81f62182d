//! A client of the server under test.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use millrace::shutdown::ShutdownTrigger;
use ruma::{OwnedUserId, UserId};
use serde_json::Value;
use tower::ServiceExt;

/// Sends requests, with the access token of its session if it has one.
#[derive(Clone)]
pub struct Client {
    router: Router,
    session: Option<Session>,
    /// As long as its clients are there, a server works.
    #[expect(dead_code, reason = "it is held, not used")]
    server: Option<Arc<ShutdownTrigger>>,
}

#[derive(Clone)]
struct Session {
    user: OwnedUserId,
    device: String,
    token: String,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; `Null` where it is no JSON.
    pub body: Value,
    /// The body as text: what a page says.
    pub text: String,
}

impl Answer {
    /// The body of a successful answer.
    ///
    /// # Panics
    /// If the server refused, with what it said.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// Checks that the server refused with this status and errcode.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn refused(&self, status: u16, errcode: &str) {
        let found = (self.status.as_u16(), self.body["errcode"].as_str().unwrap_or_default());
        assert_eq!(found, (status, errcode), "{}", self.body);
    }
}

impl Answer {
    /// Checks that the server answered with a page that says this, under the headers of all pages.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn says(&self, status: u16, text: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(
            self.text.starts_with("<!DOCTYPE html>") && self.text.contains(text),
            "{}",
            self.text
        );
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-security-policy", "default-src 'none'"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            let found = self.headers.get(name).and_then(|found| found.to_str().ok());
            assert!(found.is_some_and(|found| found.starts_with(value)), "{name}: {found:?}");
        }
    }
}

impl Client {
    /// A client without a session.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self { router, session: None, server: None }
    }

    /// The client, while which is there the server works.
    #[must_use]
    pub(crate) fn of(self, server: &Arc<ShutdownTrigger>) -> Self {
        Self { server: Some(Arc::clone(server)), ..self }
    }

    /// The client with the session that a login or registration answered.
    ///
    /// # Panics
    /// If the answer lacks a field of a session.
    #[must_use]
    pub fn with_session(mut self, answer: &Value) -> Self {
        let text = |field: &str| answer[field].as_str().expect("a session's field").to_owned();
        self.session = Some(Session {
            user: text("user_id").try_into().expect("a user ID"),
            device: text("device_id"),
            token: text("access_token"),
        });
        self
    }

    /// The same client, now with another server: one that was restarted.
    #[must_use]
    pub fn on(&self, server: &crate::TestServer) -> Self {
        Self { session: self.session.clone(), ..server.client() }
    }

    /// Who is logged in.
    ///
    /// # Panics
    /// Without a session.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.session.as_ref().expect("a session").user
    }

    /// The session's device ID.
    ///
    /// # Panics
    /// Without a session.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.session.as_ref().expect("a session").device
    }

    /// The session's access token.
    ///
    /// # Panics
    /// Without a session.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.session.as_ref().expect("a session").token
    }

    /// `GET`, with the query in the path.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    /// `GET` of a text.
    ///
    /// # Panics
    /// If the server refuses, or the text is none.
    pub async fn text(&self, path: &str) -> String {
        let session = self.session.as_ref().expect("a session");
        let request = Request::get(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", session.token));
        let request = request.body(Body::empty()).expect("a valid path");
        let response =
            self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("bodies are whole");
        String::from_utf8(bytes.to_vec()).expect("a text")
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body.to_string().into()).await
    }

    /// `PUT` of a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, body.to_string().into()).await
    }

    /// `DELETE` with a JSON body.
    pub async fn delete(&self, path: &str, body: Value) -> Answer {
        self.send(Method::DELETE, path, body.to_string().into()).await
    }

    /// Any request. `path` is percent-encoded where it must be.
    ///
    /// # Panics
    /// If the path is no URI.
    pub async fn send(&self, method: Method, path: &str, body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(session) = &self.session {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", session.token));
        }
        self.request(request.body(body).expect("a valid path")).await
    }

    /// As [`Client::send`], with headers of the test's choice, and the body of the answer as it is.
    ///
    /// # Panics
    /// If path or headers are none, or the answer breaks off.
    pub async fn send_raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<bytes::Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(session) = &self.session {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", session.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a valid path");
        let response =
            self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("bodies are whole");
        http::Response::from_parts(parts, bytes)
    }

    /// Any request, as it is.
    ///
    /// # Panics
    /// If the answer breaks off.
    pub async fn request(&self, request: Request<Body>) -> Answer {
        let response =
            self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("bodies are whole");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, body, text }
    }
}
