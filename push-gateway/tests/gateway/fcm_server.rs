//! Google's token endpoint and Firebase Cloud Messaging, HTTP v1, as "FCM error codes" has it.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use parking_lot::Mutex;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::{
    jwt,
    server::{self, Authority, Handler, Server, Terms},
};

pub const PROJECT: &str = "example-1234";
const EMAIL: &str = "push@example-1234.iam.gserviceaccount.com";

/// A status, an error code, and `Retry-After`.
type Refusal = (u16, &'static str, Option<&'static str>);

#[derive(Default)]
pub struct State {
    /// Messages, as they were sent.
    pub taken: Vec<Value>,
    /// What the next requests for a device get: status, error code, Retry-After.
    pub scripted: HashMap<String, Vec<Refusal>>,
    /// The access token that is good; each that is handed out takes the place of the one before.
    pub access_token: Option<String>,
    /// Tokens handed out.
    pub tokens: usize,
    /// What the token endpoint answers instead.
    pub token_failure: Option<u16>,
}

pub struct FcmServer {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

/// The private key of the service account, as PEM. Made for these tests and used nowhere else.
fn private_key() -> String {
    let kind = "PRIVATE KEY";
    let key = include_str!("service_account_key.txt");
    format!("-----BEGIN {kind}-----\n{key}-----END {kind}-----\n")
}

fn public_key() -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let der = STANDARD.decode(include_str!("service_account_key.txt").replace('\n', "")).unwrap();
    RsaKeyPair::from_pkcs8(&der).unwrap().public_key().as_ref().to_vec()
}

impl FcmServer {
    pub async fn start(authority: &Authority) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let own_url = Arc::new(OnceLock::new());
        let handler: Handler = {
            let (state, own_url) = (Arc::clone(&state), Arc::clone(&own_url));
            Arc::new(move |request| {
                let mut state = state.lock();
                let url: &String = own_url.get().unwrap();
                let response = match request.uri().path() {
                    "/token" => token(&mut state, &request, url),
                    _ => send(&mut state, &request),
                };
                async move { response }.boxed()
            })
        };
        let server = Server::start(authority, &Terms::default(), handler).await;
        own_url.set(server.url()).unwrap();
        Self { server, state }
    }

    /// The file that Google hands out.
    pub fn service_account(&self) -> Value {
        json!({
            "type": "service_account", "project_id": PROJECT, "private_key_id": "key-1",
            "private_key": private_key(), "client_email": EMAIL,
            "token_uri": format!("{}/token", self.server.url()),
        })
    }

    pub fn taken(&self, token: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.taken.iter().filter(|message| message["token"] == token).cloned().collect()
    }

    pub fn script(
        &self,
        token: &str,
        status: u16,
        code: &'static str,
        after: Option<&'static str>,
    ) {
        let mut state = self.state.lock();
        state.scripted.entry(token.to_owned()).or_default().push((status, code, after));
    }
}

type Answer = http::Response<http_body_util::Full<Bytes>>;

fn token(state: &mut State, request: &Request<Bytes>, url: &str) -> Answer {
    if let Some(status) = state.token_failure {
        return server::json(status, &json!({ "error": "temporarily_unavailable" }));
    }
    let refuse = |why: &str| {
        let body = json!({ "error": "invalid_grant", "error_description": why });
        server::json(400, &body)
    };
    let form: HashMap<String, String> =
        url::form_urlencoded::parse(request.body()).into_owned().collect();
    if form.get("grant_type").map(String::as_str)
        != Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
    {
        return server::json(400, &json!({ "error": "unsupported_grant_type" }));
    }
    let assertion = form.get("assertion").map(String::as_str).unwrap_or_default();
    let public = public_key();
    let Some((head, claims)) = jwt::read(assertion, &RSA_PKCS1_2048_8192_SHA256, &public) else {
        return refuse("Invalid JWT Signature.");
    };
    let (made, end) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    if end - made > 3600 || end < jwt::now_s() || made > jwt::now_s() + 60 {
        return refuse("Token must be a short-lived token (60 minutes)");
    }
    let aud = format!("{url}/token");
    let scope = "https://www.googleapis.com/auth/firebase.messaging";
    if head["alg"] != "RS256" || claims["iss"] != EMAIL || claims["aud"] != aud.as_str() {
        return refuse("Invalid JWT.");
    }
    if claims["scope"] != scope {
        return server::json(400, &json!({ "error": "invalid_scope" }));
    }
    state.tokens += 1;
    let token = format!("ya29.{}", state.tokens);
    state.access_token = Some(token.clone());
    let body = json!({ "access_token": token, "expires_in": 3599, "token_type": "Bearer" });
    server::json(200, &body)
}

fn error(status: u16, code: &str, details: Value) -> Answer {
    let body = json!({ "error": {
        "code": status, "status": code, "message": format!("it is {code}"), "details": details,
    } });
    server::json(status, &body)
}

fn fcm_error(status: u16, code: &str) -> Answer {
    let kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError";
    error(status, code, json!([{ "@type": kind, "errorCode": code }]))
}

fn invalid(field: &str) -> Answer {
    let kind = "type.googleapis.com/google.rpc.BadRequest";
    let violation = json!({ "field": field, "description": "Invalid value" });
    let details = json!([{ "@type": kind, "fieldViolations": [violation] }]);
    error(400, "INVALID_ARGUMENT", details)
}

fn send(state: &mut State, request: &Request<Bytes>) -> Answer {
    if request.uri().path() != format!("/v1/projects/{PROJECT}/messages:send") {
        return error(403, "PERMISSION_DENIED", json!([]));
    }
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let good = state.access_token.as_ref().map(|token| format!("Bearer {token}"));
    if given != good.as_deref() || good.is_none() {
        return error(401, "UNAUTHENTICATED", json!([]));
    }
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let Some(message) = body["message"].as_object() else { return invalid("message") };
    let known = ["token", "data", "notification", "android", "apns", "webpush", "fcm_options"];
    if let Some(other) = message.keys().find(|key| !known.contains(&key.as_str())) {
        return invalid(&format!("message.{other}"));
    }
    let Some(token) = message.get("token").and_then(Value::as_str) else {
        return invalid("message.token");
    };
    if token.contains(' ') {
        return invalid("message.token");
    }
    let data = message.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    let reserved = |key: &str| key == "from" || key.starts_with("google") || key.starts_with("gcm");
    if data.values().any(|value| !value.is_string()) || data.keys().any(|key| reserved(key)) {
        return invalid("message.data");
    }
    let size: usize = data.iter().map(|(key, text)| key.len() + text.as_str().unwrap().len()).sum();
    if size > 4096 {
        return invalid("message.data");
    }
    let priority = &message["android"]["priority"];
    if priority != "high" && priority != "normal" {
        return invalid("message.android.priority");
    }
    if let Some(scripted) = state.scripted.get_mut(token)
        && !scripted.is_empty()
    {
        let (status, code, after) = scripted.remove(0);
        let mut response = fcm_error(status, code);
        if let Some(after) = after {
            response.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        return response;
    }
    state.taken.push(body["message"].clone());
    server::json(200, &json!({ "name": format!("projects/{PROJECT}/messages/1") }))
}
