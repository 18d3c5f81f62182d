//! A client that encrypts, on vodozemac: what a real one does, without its caches.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use millrace_test_support::{Client, TestServer};
use ruma::{CanonicalJsonObject, signatures::to_canonical_json_string_for_signing};
use serde_json::{Value, json};
use vodozemac::{
    Curve25519PublicKey,
    megolm::{self, GroupSession, InboundGroupSession, MegolmMessage, SessionKey},
    olm::{self, Account, OlmMessage},
};

pub const OLM: &str = "m.olm.v1.curve25519-aes-sha2";
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// What is signed of an object.
pub fn signable(object: &Value) -> String {
    let object: CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
    to_canonical_json_string_for_signing(&object).unwrap()
}

pub struct Device {
    pub client: Client,
    pub account: Account,
    since: String,
    /// Messages to the device that were synced.
    pub messages: Vec<Value>,
    /// Events of rooms that were synced.
    pub events: Vec<Value>,
}

impl Device {
    /// A device that has published its keys and so many one-time keys.
    pub async fn new(client: Client, one_time_keys: usize) -> Self {
        let (account, since) = (Account::new(), String::new());
        let mut device = Self { client, account, since, messages: Vec::new(), events: Vec::new() };
        let upload = json!({
            "device_keys": device.device_keys(),
            "one_time_keys": device.new_one_time_keys(one_time_keys),
        });
        device.upload(upload).await;
        device
    }

    /// Another device of a user with the password `"password"`.
    pub async fn log_in(server: &TestServer, user: &str, one_time_keys: usize) -> Self {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": user },
            "password": "password",
        });
        let answer = server.client().post("/_matrix/client/v3/login", body).await.ok();
        Self::new(server.client().with_session(&answer), one_time_keys).await
    }

    pub fn user(&self) -> String {
        self.client.user().to_string()
    }

    pub fn id(&self) -> &str {
        self.client.device()
    }

    pub async fn upload(&self, body: Value) -> Value {
        self.client.post("/_matrix/client/v3/keys/upload", body).await.ok()
    }

    pub fn device_keys(&self) -> Value {
        let id = self.id();
        self.signed(json!({
            "user_id": self.user(),
            "device_id": id,
            "algorithms": [OLM, MEGOLM],
            "keys": {
                format!("ed25519:{id}"): self.account.ed25519_key().to_base64(),
                format!("curve25519:{id}"): self.account.curve25519_key().to_base64(),
            },
        }))
    }

    /// `object` with this device's signature.
    pub fn signed(&self, mut object: Value) -> Value {
        let signature = self.account.sign(signable(&object)).to_base64();
        object["signatures"][self.user()][format!("ed25519:{}", self.id())] = signature.into();
        object
    }

    pub fn new_one_time_keys(&mut self, count: usize) -> Value {
        self.account.generate_one_time_keys(count);
        let keys = self.account.one_time_keys();
        let keys: BTreeMap<String, Value> = keys
            .into_iter()
            .map(|(id, key)| {
                let key = self.signed(json!({ "key": key.to_base64() }));
                (format!("signed_curve25519:{}", id.to_base64()), key)
            })
            .collect();
        self.account.mark_keys_as_published();
        json!(keys)
    }

    pub fn new_fallback_key(&mut self) -> Value {
        self.account.generate_fallback_key();
        let (id, key) = self.account.fallback_key().into_iter().next().unwrap();
        let key = self.signed(json!({ "key": key.to_base64(), "fallback": true }));
        json!({ format!("signed_curve25519:{}", id.to_base64()): key })
    }

    /// Syncs, waiting for news, and keeps what came.
    pub async fn sync(&mut self) -> Value {
        let path = format!("/_matrix/client/v3/sync?timeout=5000&since={}", self.since);
        let answer = self.client.get(&path).await.ok();
        self.since = answer["next_batch"].as_str().unwrap().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        self.messages.extend(list(&answer["to_device"]["events"]));
        for room in answer["rooms"]["join"].as_object().into_iter().flatten() {
            self.events.extend(list(&room.1["timeline"]["events"]));
        }
        answer
    }

    /// Where to look for news without waiting.
    pub fn path_without_waiting(&self) -> String {
        format!("/_matrix/client/v3/sync?since={}", self.since)
    }

    /// Syncs until an answer is as wanted.
    pub async fn sync_until(&mut self, wanted: impl Fn(&Self, &Value) -> bool) -> Value {
        for _ in 0..50 {
            let answer = self.sync().await;
            if wanted(self, &answer) {
                return answer;
            }
        }
        panic!("{} {} never synced what was wanted", self.user(), self.id());
    }

    pub async fn query(&self, users: &[&str]) -> Value {
        let users: BTreeMap<_, _> = users.iter().map(|user| (user, json!([]))).collect();
        let body = json!({ "device_keys": users });
        self.client.post("/_matrix/client/v3/keys/query", body).await.ok()
    }

    pub async fn claim(&self, user: &str, device: &str) -> Value {
        let body = json!({ "one_time_keys": { user: { device: "signed_curve25519" } } });
        self.client.post("/_matrix/client/v3/keys/claim", body).await.ok()
    }

    /// Sends the key of a session to another device, as its keys say, over a new Olm session.
    pub async fn share(&self, session: &GroupSession, device_keys: &Value) {
        let (user, id) = (device_keys["user_id"].as_str(), device_keys["device_id"].as_str());
        let (user, id) = (user.unwrap(), id.unwrap());
        let claimed = self.claim(user, id).await;
        let one_time = claimed["one_time_keys"][user][id].as_object().expect("a key").values();
        let one_time = one_time.into_iter().next().unwrap()["key"].as_str().unwrap();
        let identity = device_keys["keys"][format!("curve25519:{id}")].as_str().unwrap();
        let key = |text: &str| Curve25519PublicKey::from_base64(text).unwrap();
        let config = olm::SessionConfig::version_1();
        let olm = self.account.create_outbound_session(config, key(identity), key(one_time));
        let payload = json!({ "session_key": session.session_key().to_base64() }).to_string();
        let (kind, body) = olm.unwrap().encrypt(payload).unwrap().to_parts();
        let body = BASE64_STANDARD_NO_PAD.encode(body);
        let content = json!({
            "algorithm": OLM,
            "sender_key": self.account.curve25519_key().to_base64(),
            "ciphertext": { identity: { "type": kind, "body": body } },
        });
        let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{user}{id}");
        let body = json!({ "messages": { user: { id: content } } });
        self.client.put(&path, body).await.ok();
    }

    /// Sends an encrypted message.
    pub async fn say(&self, room: &str, session: &mut GroupSession, text: &str) {
        let ciphertext = session.encrypt(text).to_base64();
        let content = json!({
            "algorithm": MEGOLM,
            "session_id": session.session_id(),
            "ciphertext": ciphertext,
        });
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.encrypted/{text}");
        self.client.put(&path, content).await.ok();
    }

    /// The session whose key came to this device.
    pub fn received_session(&mut self) -> InboundGroupSession {
        let own = self.account.curve25519_key();
        let mut content = self.messages.iter().map(|message| &message["content"]);
        let content = content.rfind(|content| content["algorithm"] == OLM).unwrap();
        let encrypted = &content["ciphertext"][own.to_base64()];
        let body = encrypted["body"].as_str().expect("it is for this device");
        let body = BASE64_STANDARD_NO_PAD.decode(body).unwrap();
        let kind = encrypted["type"].as_u64().unwrap();
        let OlmMessage::PreKey(message) =
            OlmMessage::from_parts(usize::try_from(kind).unwrap(), &body).unwrap()
        else {
            panic!("the first message of a session")
        };
        let sender = content["sender_key"].as_str().unwrap();
        let sender = Curve25519PublicKey::from_base64(sender).unwrap();
        let config = olm::SessionConfig::version_1();
        let created = self.account.create_inbound_session(config, sender, &message).unwrap();
        let payload: Value = serde_json::from_slice(&created.plaintext).unwrap();
        let key = SessionKey::from_base64(payload["session_key"].as_str().unwrap()).unwrap();
        InboundGroupSession::new(&key, megolm::SessionConfig::version_1())
    }

    /// The text of an encrypted message of a room, once it came.
    pub fn read(&self, session: &mut InboundGroupSession) -> String {
        let is_encrypted = |event: &&Value| event["type"] == "m.room.encrypted";
        let event = self.events.iter().rfind(is_encrypted).expect("an encrypted event");
        let message = event["content"]["ciphertext"].as_str().unwrap();
        let message = MegolmMessage::from_base64(message).unwrap();
        String::from_utf8(session.decrypt(&message).unwrap().plaintext).unwrap()
    }

    /// Whether a message to the device and an encrypted event have come.
    pub fn can_read(&self) -> bool {
        let is_encrypted = |event: &Value| event["type"] == "m.room.encrypted";
        self.messages.iter().any(is_encrypted) && self.events.iter().any(is_encrypted)
    }
}
