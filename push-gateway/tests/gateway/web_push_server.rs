//! A push service (RFC 8030) that knows VAPID (RFC 8292), and a browser that reads what arrives with
//! other libraries than the gateway has.

use std::sync::{Arc, OnceLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::FutureExt;
use hkdf::Hkdf;
use http::Request;
use p256::{PublicKey, SecretKey, ecdh::diffie_hellman, elliptic_curve::sec1::ToEncodedPoint};
use parking_lot::Mutex;
use ring::signature::ECDSA_P256_SHA256_FIXED;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    jwt,
    server::{self, Authority, Handler, Server, Terms},
};

/// The keys of one subscription.
pub struct Browser {
    secret: SecretKey,
    auth: [u8; 16],
}

impl Browser {
    /// One of its own for each number.
    pub fn new(number: u8) -> Self {
        Self { secret: SecretKey::from_slice(&[number; 32]).unwrap(), auth: [number; 16] }
    }

    /// The push key that it gives to homeservers.
    pub fn pushkey(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.secret.public_key().to_encoded_point(false))
    }

    pub fn auth(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.auth)
    }

    /// RFC 8291, section 3.4.
    pub fn open(&self, sealed: &[u8]) -> Value {
        let theirs = PublicKey::from_sec1_bytes(&sealed[21..86]).unwrap();
        let shared = diffie_hellman(self.secret.to_nonzero_scalar(), theirs.as_affine());
        let ours = self.secret.public_key().to_encoded_point(false);
        let info = [b"WebPush: info\0", ours.as_bytes(), &sealed[21..86]].concat();
        let mut ikm = [0; 32];
        Hkdf::<Sha256>::new(Some(&self.auth), shared.raw_secret_bytes())
            .expand(&info, &mut ikm)
            .unwrap();
        serde_json::from_slice(&ece_native::decrypt(ikm, sealed.to_vec()).unwrap()).unwrap()
    }
}

#[derive(Default)]
pub struct State {
    /// Path, urgency, topic, content.
    pub taken: Vec<(String, String, Option<String>, Bytes)>,
    /// What every request gets instead: status, Retry-After.
    pub failure: Option<(u16, Option<&'static str>)>,
}

pub struct WebPushServer {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

impl WebPushServer {
    pub async fn start(authority: &Authority) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let own_url = Arc::new(OnceLock::new());
        let handler: Handler = {
            let (state, own_url) = (Arc::clone(&state), Arc::clone(&own_url));
            Arc::new(move |request| {
                let url: &String = own_url.get().unwrap();
                let response = answer(&mut state.lock(), &request, url);
                async move { response }.boxed()
            })
        };
        let server = Server::start(authority, &Terms::default(), handler).await;
        own_url.set(server.url()).unwrap();
        Self { server, state }
    }

    pub fn endpoint(&self, path: &str) -> String {
        format!("{}/{path}", self.server.url())
    }
}

fn answer(
    state: &mut State,
    request: &Request<Bytes>,
    url: &str,
) -> http::Response<http_body_util::Full<Bytes>> {
    let header =
        |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    if let Some((status, after)) = state.failure {
        let mut response = server::json(status, &Value::Null);
        if let Some(after) = after {
            response.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        return response;
    }
    if request.uri().path() == "/gone" {
        return server::json(410, &Value::Null);
    }
    let proof = header("authorization").unwrap_or_default();
    let proof = proof.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k="));
    let read = proof.and_then(|(token, key)| {
        let public = URL_SAFE_NO_PAD.decode(key).ok()?;
        jwt::read(token, &ECDSA_P256_SHA256_FIXED, &public)
    });
    let Some((_, claims)) = read else { return server::json(401, &json!({ "error": "no VAPID" })) };
    let end = claims["exp"].as_u64().unwrap();
    let good = claims["aud"] == url && end > jwt::now_s() && end <= jwt::now_s() + 24 * 3600;
    if !good || !claims["sub"].as_str().unwrap().starts_with("mailto:") {
        return server::json(403, &json!({ "error": "bad VAPID" }));
    }
    if header("ttl").and_then(|ttl| ttl.parse::<u32>().ok()).is_none() {
        return server::json(400, &json!({ "error": "no TTL" }));
    }
    if request.body().len() > 4096 {
        return server::json(413, &Value::Null);
    }
    if header("content-encoding").as_deref() != Some("aes128gcm") {
        return server::json(415, &Value::Null);
    }
    let topic = header("topic");
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if topic.as_ref().is_some_and(|topic| topic.len() > 32 || !topic.chars().all(of_base64)) {
        return server::json(400, &json!({ "error": "bad topic" }));
    }
    let urgency = header("urgency").unwrap_or_default();
    let path = request.uri().path().to_owned();
    state.taken.push((path, urgency, topic, request.body().clone()));
    let mut response = server::json(201, &Value::Null);
    response.headers_mut().insert("location", format!("{url}/message/1").parse().unwrap());
    response
}
