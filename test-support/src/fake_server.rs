//! A server that does what a test says: it has a key, makes events for any place of a room's graph,
//! sends signed requests, and answers what it is asked as scripted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use millrace_domain::{Clock, Identity};
use millrace_federation::signing;
use millrace_model::{
    Pdu,
    pdu::EventReference,
    rules::{
        build::{self, NewEvent},
        room_version,
        signing_key::ServerSigningKey,
    },
};
use parking_lot::Mutex;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    RoomVersionId, ServerName, UserId, room_version_rules::RoomVersionRules,
};
use serde_json::{Value, json};

use crate::{Answer, Network, TestServer, client::Client, world::TestClock};

/// How long the keys of a fake server are valid.
const KEYS_VALID: Duration = Duration::from_hours(24);

/// A request as a fake server gets it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path with its query, as it was sent.
    pub path: String,
    /// The body; `Null` where there is none.
    pub body: Value,
}

/// What a fake server answers.
#[derive(Debug, Clone)]
pub enum FakeAnswer {
    /// 200 with this body.
    Json(Value),
    /// The same, as a text that many answers share.
    Text(bytes::Bytes),
    /// This status with this body.
    Status(u16, Value),
    /// No answer, ever.
    Never,
    /// A body that goes on and on.
    Endless,
}

type Script = Arc<dyn Fn(&Asked) -> Option<FakeAnswer> + Send + Sync>;

/// A server under a test's control. Clones are the same server.
#[derive(Clone)]
pub struct FakeServer {
    parts: Arc<Parts>,
}

struct Parts {
    identity: Identity,
    network: Network,
    clock: TestClock,
    scripts: Mutex<Vec<Script>>,
    asked: Mutex<Vec<Asked>>,
    made: AtomicU64,
}

impl FakeServer {
    /// A new server, which others in `network` can reach. It answers the question for its keys, and
    /// everything else with 404.
    ///
    /// # Panics
    /// If `name` is no server name.
    #[must_use]
    pub fn start(network: &Network, name: &str) -> Self {
        let seed: [u8; 32] = std::array::from_fn(|at| {
            let bytes = name.as_bytes();
            bytes[at % bytes.len()].wrapping_add(u8::try_from(at).unwrap_or(0))
        });
        let key = ServerSigningKey::new("fake", &seed).expect("32 bytes are a key");
        let name = OwnedServerName::try_from(name).expect("a server name");
        let parts = Parts {
            identity: Identity { name, key },
            network: network.clone(),
            clock: network.clock.clone(),
            scripts: Mutex::default(),
            asked: Mutex::default(),
            made: AtomicU64::new(0),
        };
        let server = Self { parts: Arc::new(parts) };
        let answering = server.clone();
        let router = Router::new().fallback(move |request: Request| {
            let server = answering.clone();
            async move { server.answer(request).await }
        });
        network.enter(server.name().as_str(), router);
        server
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.parts.identity.name
    }

    /// `@localpart:name`.
    ///
    /// # Panics
    /// If that is no user ID.
    #[must_use]
    pub fn user(&self, localpart: &str) -> OwnedUserId {
        UserId::parse(format!("@{localpart}:{}", self.name())).expect("a localpart")
    }

    /// From now on, requests whose path contains `part` are answered by `script`, unless it returns
    /// `None`; a newer script goes before an older one.
    pub fn on(
        &self,
        part: &str,
        script: impl Fn(&Asked) -> Option<FakeAnswer> + Send + Sync + 'static,
    ) {
        let part = part.to_owned();
        let script = move |asked: &Asked| asked.path.contains(&part).then(|| script(asked))?;
        self.parts.scripts.lock().push(Arc::new(script));
    }

    /// As [`FakeServer::on`], always the same answer.
    pub fn answers(&self, part: &str, answer: FakeAnswer) {
        self.on(part, move |_| Some(answer.clone()));
    }

    /// What it was asked whose path contains `part`, the oldest first; questions for its keys are
    /// not noted.
    #[must_use]
    pub fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.parts.asked.lock();
        asked.iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }

    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
        if path.starts_with("/_matrix/key/v2/server") {
            return json_response(StatusCode::OK, &self.keys());
        }
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let asked = Asked { method: parts.method, path, body };
        self.parts.asked.lock().push(asked.clone());
        let scripts = self.parts.scripts.lock().clone();
        match scripts.iter().rev().find_map(|script| script(&asked)) {
            Some(FakeAnswer::Json(body)) => json_response(StatusCode::OK, &body),
            Some(FakeAnswer::Text(body)) => {
                ([(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Some(FakeAnswer::Status(status, body)) => {
                json_response(StatusCode::from_u16(status).unwrap_or_default(), &body)
            }
            Some(FakeAnswer::Never) => std::future::pending().await,
            Some(FakeAnswer::Endless) => endless(),
            None => {
                let body = json!({ "errcode": "M_UNRECOGNIZED", "error": "not scripted" });
                json_response(StatusCode::NOT_FOUND, &body)
            }
        }
    }

    /// Its keys, as it publishes them.
    fn keys(&self) -> Value {
        let Identity { name, key } = &self.parts.identity;
        let valid = u64::from(self.parts.clock.now().get())
            + u64::try_from(KEYS_VALID.as_millis()).unwrap_or_default();
        let public = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(
            key.public_bytes().to_vec(),
        );
        let keys = json!({
            "server_name": name,
            "valid_until_ts": valid,
            "verify_keys": { key.key_id().as_str(): { "key": public.encode() } },
            "old_verify_keys": {},
        });
        let mut object: CanonicalJsonObject = serde_json::from_value(keys).expect("an object");
        key.sign_json(name, &mut object).expect("an object can be signed");
        serde_json::to_value(object).expect("canonical JSON is JSON")
    }

    /// Sends a signed request to a server in the network.
    ///
    /// # Panics
    /// If `path` is no URI.
    pub async fn ask(&self, to: &TestServer, method: Method, path: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut request = http::Request::builder().method(method).uri(path);
        if !bytes.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(bytes).expect("a valid path");
        signing::sign(&mut request, &self.parts.identity, &to.env.identity.name)
            .expect("JSON can be signed");
        Client::new(to.router.clone()).request(request.map(Body::from)).await
    }

    /// `GET`, signed.
    pub async fn get(&self, to: &TestServer, path: &str) -> Answer {
        self.ask(to, Method::GET, path, Value::Null).await
    }

    /// Sends a transaction with a new ID.
    pub async fn send(&self, to: &TestServer, pdus: &[&Pdu], edus: &[Value]) -> Answer {
        let id = format!("txn{}", self.parts.made.fetch_add(1, Ordering::Relaxed));
        let pdus: Vec<Value> = pdus.iter().map(|pdu| wire(pdu)).collect();
        self.send_as(to, &id, &pdus, edus).await
    }

    /// Sends a transaction of anything.
    pub async fn send_as(
        &self,
        to: &TestServer,
        id: &str,
        pdus: &[Value],
        edus: &[Value],
    ) -> Answer {
        let body = json!({
            "origin": self.name(),
            "origin_server_ts": self.parts.clock.now(),
            "pdus": pdus,
            "edus": edus,
        });
        self.ask(to, Method::PUT, &format!("/_matrix/federation/v1/send/{id}"), body).await
    }

    /// Makes and signs an event.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn event(&self, room: &FakeRoom, event: FakeEvent<'_>) -> Pdu {
        let at = self.parts.made.fetch_add(1, Ordering::Relaxed);
        let FakeEvent { sender, kind, state_key, content, prev, auth } = event;
        let references = |pdus: &[&Pdu]| -> Vec<EventReference> {
            pdus.iter().map(|pdu| pdu.reference(room.rules).expect("a hashed event")).collect()
        };
        let new = NewEvent {
            room_id: Some(&room.id),
            sender,
            kind: &kind.into(),
            state_key,
            content: serde_json::from_value(content).expect("an object"),
            redacts: None,
            origin_server_ts: self.parts.clock.now(),
            prev_events: &references(prev),
            auth_events: &references(auth),
            local_id: &format!("fake{at}"),
        };
        let Identity { name, key } = &self.parts.identity;
        build::build(new, room.rules, name, key).expect("an event")
    }

    /// Makes and signs the create event of a room of its own.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn first_event(&self, room: &RoomId, creator: &UserId, version: &RoomVersionId) -> Pdu {
        let rules = room_version::rules(version).expect("a known version");
        let content = json!({ "room_version": version, "creator": creator });
        let new = NewEvent {
            room_id: Some(room),
            sender: creator,
            kind: &"m.room.create".into(),
            state_key: Some(""),
            content: serde_json::from_value(content).expect("an object"),
            redacts: None,
            origin_server_ts: self.parts.clock.now(),
            prev_events: &[],
            auth_events: &[],
            local_id: "create",
        };
        let Identity { name, key } = &self.parts.identity;
        build::build(new, rules, name, key).expect("an event")
    }

    /// The network that it is part of.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.parts.network
    }
}

/// An event that a fake server is to make.
#[derive(Debug, Clone)]
pub struct FakeEvent<'a> {
    /// The sender.
    pub sender: &'a UserId,
    /// The `type`.
    pub kind: &'a str,
    /// The state key; `None` for a message.
    pub state_key: Option<&'a str>,
    /// The content.
    pub content: Value,
    /// The events just before it.
    pub prev: &'a [&'a Pdu],
    /// The events that authorise it.
    pub auth: &'a [&'a Pdu],
}

/// A room of a server under test, as a fake server knows it: what it needs for making events.
#[derive(Debug, Clone)]
pub struct FakeRoom {
    /// The room.
    pub id: OwnedRoomId,
    /// Rules of its version.
    pub rules: &'static RoomVersionRules,
    /// The create event.
    pub create: Pdu,
    /// The power levels.
    pub levels: Pdu,
    /// The join rules.
    pub join_rules: Pdu,
    /// The newest event.
    pub newest: Pdu,
}

impl FakeRoom {
    /// A public room of a server under test, as it is there now.
    ///
    /// # Panics
    /// If the server does not have the room.
    pub async fn of(server: &TestServer, room: &str) -> Self {
        use millrace_store::{
            Read,
            tables::{CURRENT_STATE, EVENT_NUMBERS, ROOM_HEAD},
        };
        let id = OwnedRoomId::try_from(room).expect("a room ID");
        let snapshot = server.env.store.snapshot();
        let head = snapshot.get(&ROOM_HEAD, &id, ()).await.expect("a store").expect("the room");
        let rules = room_version::rules(&head.version).expect("a known version");
        let load = async |number: u64| -> Pdu {
            let events = &server.federation.rooms.events;
            let event = events.load_one(&snapshot, &id, &head.version, number).await;
            event.expect("the event is there").pdu.clone()
        };
        let state = async |kind: &str| -> Pdu {
            let number = snapshot.get(&CURRENT_STATE, &id, (kind, "")).await.expect("a store");
            load(number.expect("the state event is there")).await
        };
        let (create, levels) = (state("m.room.create").await, state("m.room.power_levels").await);
        let join_rules = state("m.room.join_rules").await;
        let newest = newest_of(&head);
        let newest = snapshot.get(&EVENT_NUMBERS, &id, &newest).await.expect("a store");
        let newest = load(newest.expect("extremities are stored")).await;
        Self { id: id.clone(), rules, create, levels, join_rules, newest }
    }

    /// What authorises an event of a member: create event (where the room version names it), power
    /// levels and the member event.
    #[must_use]
    pub fn auth<'a>(&'a self, member: &'a Pdu) -> Vec<&'a Pdu> {
        let mut auth = vec![&self.levels, member];
        if !self.rules.authorization.room_create_event_id_as_room_id {
            auth.push(&self.create);
        }
        auth
    }

    /// What authorises that somebody joins.
    #[must_use]
    pub fn join_auth(&self) -> Vec<&Pdu> {
        self.auth(&self.join_rules)
    }

    /// `user` of `server` joins after `prev`.
    #[must_use]
    pub fn join(&self, server: &FakeServer, user: &UserId, prev: &[&Pdu]) -> Pdu {
        let event = FakeEvent {
            sender: user,
            kind: "m.room.member",
            state_key: Some(user.as_str()),
            content: json!({ "membership": "join" }),
            prev,
            auth: &self.join_auth(),
        };
        server.event(self, event)
    }

    /// The member of `server` whose joining is `member` says something after `prev`.
    #[must_use]
    pub fn say(&self, server: &FakeServer, member: &Pdu, prev: &[&Pdu], text: &str) -> Pdu {
        let event = FakeEvent {
            sender: &member.sender,
            kind: "m.room.message",
            state_key: None,
            content: json!({ "msgtype": "m.text", "body": text }),
            prev,
            auth: &self.auth(member),
        };
        server.event(self, event)
    }
}

fn newest_of(head: &millrace_store::rows::room::RoomHead) -> OwnedEventId {
    let newest = head.extremities.iter().max_by_key(|end| end.event.depth);
    newest.expect("a room has a newest event").event.event_id.clone()
}

/// An event as it is sent.
///
/// # Panics
/// Never: events are JSON.
#[must_use]
pub fn wire(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json()).expect("events are JSON")
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

/// An array that is never closed.
fn endless() -> Response {
    let chunk = || Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 65_536]));
    let body = futures::stream::repeat_with(chunk);
    (StatusCode::OK, Body::from_stream(body)).into_response()
}
