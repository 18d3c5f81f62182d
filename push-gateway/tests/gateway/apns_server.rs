//! Apple's push notification service, as "Handling notification responses from APNs" has it.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Version};
use parking_lot::Mutex;
use ring::signature::ECDSA_P256_SHA256_FIXED;
use serde_json::{Value, json};

use crate::{
    jwt,
    server::{self, Authority, Handler, Server, Terms},
};

pub const KEY_ID: &str = "ABC123DEFG";
pub const TEAM_ID: &str = "DEF123GHIJ";
pub const TOPIC: &str = "com.example.app";

/// A status, what is said with it, and `Retry-After`.
type Refusal = (u16, Value, Option<&'static str>);

/// What Apple knows.
#[derive(Default)]
pub struct State {
    /// Notifications by device token.
    pub taken: Vec<(String, Value)>,
    /// What the next requests for a device get, whatever is in them: status, reason, Retry-After.
    pub scripted: HashMap<String, Vec<Refusal>>,
    /// Every refusal, by its reason.
    pub refusals: Vec<String>,
    /// Tokens made before this moment are too old, in seconds.
    pub tokens_from_s: u64,
    /// Devices for which there is never an answer.
    pub hanging: Vec<String>,
}

pub struct ApnsServer {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

impl ApnsServer {
    /// `public` is the key that tokens are read with; without one, certificates are demanded.
    pub async fn start(authority: &Authority, public: Option<Vec<u8>>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let terms = Terms { http2_only: true, client_certificates: public.is_none() };
        let handler: Handler = {
            let state = Arc::clone(&state);
            Arc::new(move |request| {
                let (state, public) = (Arc::clone(&state), public.clone());
                async move {
                    let token = request.uri().path().rsplit('/').next().unwrap().to_owned();
                    if state.lock().hanging.contains(&token) {
                        std::future::pending::<()>().await;
                    }
                    let (status, body, after) = answer(&state, &request, public.as_deref());
                    if let Some(reason) = body["reason"].as_str() {
                        state.lock().refusals.push(reason.to_owned());
                    }
                    let mut response = server::json(status, &body);
                    if let Some(after) = after {
                        response.headers_mut().insert("retry-after", after.parse().unwrap());
                    }
                    response
                }
                .boxed()
            })
        };
        Self { server: Server::start(authority, &terms, handler).await, state }
    }

    /// The notifications that a device has got.
    pub fn taken(&self, token: &str) -> Vec<Value> {
        let state = self.state.lock();
        let of_it = state.taken.iter().filter(|(to, _)| to == token);
        of_it.map(|(_, payload)| payload.clone()).collect()
    }

    /// The next request for a device is answered so.
    pub fn script(&self, token: &str, status: u16, reason: &str, after: Option<&'static str>) {
        let mut state = self.state.lock();
        let scripted = state.scripted.entry(token.to_owned()).or_default();
        scripted.push((status, json!({ "reason": reason }), after));
    }
}

fn answer(state: &Mutex<State>, request: &Request<Bytes>, public: Option<&[u8]>) -> Refusal {
    let refuse = |status: u16, reason: &str| (status, json!({ "reason": reason }), None);
    assert_eq!(request.version(), Version::HTTP_2);
    let Some(token) = request.uri().path().strip_prefix("/3/device/") else {
        return refuse(404, "BadPath");
    };
    if request.method() != Method::POST {
        return refuse(405, "MethodNotAllowed");
    }
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap());
    if let Some(public) = public {
        let Some(given) = header("authorization").and_then(|all| all.strip_prefix("bearer "))
        else {
            return refuse(403, "MissingProviderToken");
        };
        let Some((head, claims)) = jwt::read(given, &ECDSA_P256_SHA256_FIXED, public) else {
            return refuse(403, "InvalidProviderToken");
        };
        if head["alg"] != "ES256" || head["kid"] != KEY_ID || claims["iss"] != TEAM_ID {
            return refuse(403, "InvalidProviderToken");
        }
        let made = claims["iat"].as_u64().unwrap();
        if made + 3600 < jwt::now_s() || made < state.lock().tokens_from_s {
            return refuse(403, "ExpiredProviderToken");
        }
    }
    match header("apns-topic") {
        None => return refuse(400, "MissingTopic"),
        Some(TOPIC) => {}
        Some(_) => return refuse(400, "TopicDisallowed"),
    }
    match (header("apns-push-type"), header("apns-priority")) {
        (Some("alert"), Some("10" | "5")) | (Some("background"), Some("5")) => {}
        (Some("alert" | "background"), _) => return refuse(400, "BadPriority"),
        _ => return refuse(400, "InvalidPushType"),
    }
    if token.len() != 64 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return refuse(400, "BadDeviceToken");
    }
    if request.body().len() > 4096 {
        return refuse(413, "PayloadTooLarge");
    }
    let payload: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    if !payload["aps"].is_object() {
        return refuse(400, "PayloadEmpty");
    }
    let mut state = state.lock();
    if let Some(scripted) = state.scripted.get_mut(token)
        && !scripted.is_empty()
    {
        return scripted.remove(0);
    }
    state.taken.push((token.to_owned(), payload));
    (200, Value::Null, None)
}
